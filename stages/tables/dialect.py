"""How a text table is written: its encoding, its delimiter and the names of its columns, found once from its head."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from stages.core.errors import UserError

DELIMITERS = ",\t;|"
HEAD_BYTES = 1 << 20  # in which the first row must end
FILES = 64  # whose dialects are remembered


@dataclass(frozen=True)
class Dialect:
    """How one file is written."""

    file: Path
    encoding: str
    delimiter: str
    declared: tuple[str, ...]  # the names of the columns if the file has no header row
    head: str  # its first line

    @cached_property
    def first_row(self) -> tuple[str, ...]:
        """The cells of the first row: the names of the columns if it is a header row.

        Raises:
            UserError: the file is empty, or not in the declared encoding.
        """
        if not self.head.strip():
            raise UserError(
                "data-no-rows", f"{self.file} is empty: it needs a header row, or names in data.options.columns"
            )
        if "\ufffd" in self.head:
            name = self.encoding.upper()
            raise UserError(
                "data-other-encoding", f"{self.file}: its first row is not {name}: set data.options.encoding"
            )
        parse = csv.ParseOptions(delimiter=self.delimiter)
        texts = csv.ConvertOptions(strings_can_be_null=False)
        try:
            table = csv.read_csv(pa.BufferReader(self.head.encode()), parse_options=parse, convert_options=texts)
        except pa.ArrowInvalid as error:
            raise UserError(
                "data-damaged", f"{self.file}: its first row cannot be read: {error}: correct it"
            ) from error
        return tuple(name.strip() for name in table.column_names)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, without the unnamed ones around them.

        Raises:
            UserError: the first row cannot be read.
        """
        before, after = self.unnamed
        return self.declared or self.first_row[before : len(self.first_row) - after]

    @cached_property
    def unnamed(self) -> tuple[int, int]:
        """How many columns without a name come before and after the others: a pandas index, trailing delimiters."""
        if self.declared:
            return 0, 0
        names = self.first_row
        before = int(len(names) > 1 and not names[0] and any(names))
        after = next((count for count, name in enumerate(reversed(names)) if name), 0)
        return before, after


def find(file: Path, encoding: str, delimiter: str = "", columns: tuple[str, ...] = ()) -> Dialect:
    """Find the dialect of a file. Its head is read once, and again only after the file has changed.

    Args:
        file: The table; decompressed if its name ends in .gz.
        encoding: The declared encoding.
        delimiter: The declared delimiter; "" for the most frequent one in the first row.
        columns: The declared names of the columns, if there is no header row.

    Raises:
        UserError: the file cannot be read, or is UTF-16 without being declared so.
    """
    try:
        status = file.stat()
        return _find(file, encoding, delimiter, columns, (status.st_ino, status.st_size, status.st_mtime_ns))
    except OSError as error:
        raise UserError(
            "data-unreadable", f"{file} cannot be read: {error.strerror or error}: check its rights"
        ) from error


@lru_cache(FILES)
def _find(
    file: Path, encoding: str, delimiter: str, columns: tuple[str, ...], identity: tuple[int, int, int]
) -> Dialect:
    """`identity` is of the file's content, so that a changed file is read again."""
    head = _first_line(file, encoding)
    return Dialect(file, encoding, delimiter or max(DELIMITERS, key=head.count), columns, head)


def _first_line(file: Path, encoding: str) -> str:
    """The first line that is not blank; bytes outside the declared encoding become U+FFFD."""
    with pa.input_stream(str(file)) as stream:
        head = bytes(stream.read(HEAD_BYTES))
    if encoding == "utf-8" and head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError(
            "data-other-encoding", f"{file} is not UTF-8 (it looks like UTF-16): set data.options.encoding to utf-16"
        )
    text = codecs.getincrementaldecoder(encoding)("replace").decode(head)
    return text.lstrip("\r\n").partition("\n")[0] + "\n"
