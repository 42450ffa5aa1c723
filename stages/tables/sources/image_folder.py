"""A folder for each class with a file for each sample, optionally below folders train, val and test."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from stages.core import dvc_files
from stages.core.errors import UserError
from stages.schema import Schema
from stages.tables.sources import NoOptions, Reject, Sample, split_named, two_columns

Options = NoOptions
LAYOUT = "a folder for each class, CLASS/FILE, or the same in splits, train/CLASS/FILE"
CHUNK_FILES = 256
CHUNK_BYTES = 4 << 20  # a chunk ends with the file that passes this, so that few large files are in memory
FEW = 3  # examples

_IGNORED = {b"thumbs.db", b"desktop.ini", b"__macosx"}


class Found(NamedTuple):
    """A listed file."""

    path: bytes  # relative to the root
    split: str | None
    label: str
    size: int
    fault: str  # why it cannot be a sample; usually empty


class Chunk(NamedTuple):
    """Files for one process."""

    root: bytes
    feature: str
    target: str
    folder: bool  # whether the name of each file's folder is wanted
    files: list[Found]


def claims(path: Path) -> bool:
    """Whether the folder contains a folder."""
    try:
        return any(folder for _, folder in _entries(os.fsencode(path)))
    except OSError:
        return False


def columns(path: Path, options: Options) -> list[str]:
    """The one column besides picture and label: the name of the file's folder, to split by."""
    return ["folder"]


def chunks(path: Path, schema: Schema, options: Options) -> Iterator[Chunk]:
    """Chunks of at most 256 files or some 4 MB, sorted by path.

    Raises:
        UserError: there is no class folder, or the schema has several features.
    """
    feature, target = two_columns(schema, "image_folder", "folder")
    folder = any(column.name == "folder" for column in schema.features)
    root = os.fsencode(os.path.realpath(path))
    files: list[Found] = []
    size = 0
    for file in _listed(root):
        files.append(file)
        size += file.size
        if len(files) >= CHUNK_FILES or size >= CHUNK_BYTES:
            yield Chunk(root, feature, target, folder, files)
            files, size = [], 0
    if files:
        yield Chunk(root, feature, target, folder, files)


def read(chunk: Chunk) -> Iterator[Sample | Reject]:
    """Yield paths and labels."""
    for path, split, label, _, fault in chunk.files:
        if fault:
            yield Reject(_readable(path), fault)
        else:
            values = {"folder": _readable(os.path.basename(os.path.dirname(path)))} if chunk.folder else {}
            values |= {chunk.feature: os.fsdecode(chunk.root + b"/" + path), chunk.target: label}
            yield Sample(_readable(path), split, values)


def levels(path: Path) -> list[str]:
    """Sentences about files below a class folder's own folders, whose names are dropped, and about ignored files."""
    root = os.fsencode(os.path.realpath(path))
    splits = _splits(root, [name for name, folder in _entries(root) if folder])
    deeper, dropped, ignored = [], Counter[str](), []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not _ignored(name))
        below = os.path.relpath(folder, root).split(b"/")
        more = below[2:] if below[0] in splits else below[1:]
        for name in sorted(names):
            file = _readable(b"/".join([*below, name]).removeprefix(b"./"))
            if _ignored(name):
                ignored += [file] if name != b".gitignore" else []
            elif more:
                deeper.append(file)
                dropped[_readable(b"/".join(more))] += 1
    found = []
    if deeper:
        named = ", ".join(f"{name!r} ({count:,})" for name, count in dropped.most_common(FEW))
        named += f" and {len(dropped) - FEW:,} more" if len(dropped) > FEW else ""
        found.append(
            f"{len(deeper):,} files lie in folders below their class's, such as {deeper[0]}: the class is the upper"
            f" folder, and the names below are dropped: {named}: if those are the classes, move them up"
        )
    if ignored:
        shown = ", ".join(ignored[:FEW]) + (", ..." if len(ignored) > FEW else "")
        found.append(f"{len(ignored):,} hidden and system files are ignored: {shown}")
    return found


def _listed(root: bytes) -> Iterator[Found]:
    try:
        entries = _entries(root)
    except OSError as error:
        raise UserError(
            "data-unreadable",
            f"{_readable(root)} cannot be read: {error.strerror}. Check its rights; image_folder expects {LAYOUT}",
        ) from error
    folders = [name for name, folder in entries if folder]
    if not folders:
        content = f": it holds only {_readable(entries[0][0])}" if entries else ": it is empty"
        raise UserError(
            "data-other-format", f"{_readable(root)} holds no class folder{content}. image_folder expects {LAYOUT}"
        )
    splits = _splits(root, folders)
    for name, folder in entries:
        if not folder:
            yield _file(root, name, None, "", _BESIDE)
        elif name not in splits:
            yield from _below(root, name, None, _readable(name))
        else:
            yield from _of_split(root, name, splits[name])


def _splits(root: bytes, folders: list[bytes]) -> dict[bytes, str]:
    """Folder -> split. Either all folders are official splits or none is, since a class may be named train."""
    splits = {name: split for name in folders if (split := split_named(_readable(name)))}
    nested = [name for name in splits if claims(Path(os.fsdecode(root + b"/" + name)))]
    if not nested:
        return {}
    others = [name for name in folders if name not in splits]
    if others:
        raise UserError(
            "data-mixed-folders",
            f"{_readable(root)}: {_readable(nested[0])}/ holds folders, like a split, "
            f"but {_readable(others[0])}/ beside it is not one. image_folder expects {LAYOUT}",
        )
    return splits


def _of_split(root: bytes, top: bytes, split: str) -> Iterator[Found]:
    try:
        entries = _entries(root + b"/" + top)
    except OSError as error:
        yield Found(top, split, "", 0, _because(error))
        return
    for name, folder in entries:
        path = top + b"/" + name
        if folder:
            yield from _below(root, path, split, _readable(name))
        else:
            yield _file(root, path, split, "", _BESIDE)


def _below(root: bytes, folder: bytes, split: str | None, label: str) -> Iterator[Found]:
    """All files below a class folder. Links to folders are not followed, so there are no loops."""
    try:
        entries = _entries(root + b"/" + folder)
    except OSError as error:
        yield Found(folder, split, label, 0, _because(error))
        return
    for name, is_folder in entries:
        path = folder + b"/" + name
        if is_folder:
            yield from _below(root, path, split, label)
        else:
            yield _file(root, path, split, label)


def _file(root: bytes, path: bytes, split: str | None, label: str, fault: str = "") -> Found:
    size = 0
    try:
        absolute = root + b"/" + path
        status = os.lstat(absolute)
        if stat.S_ISLNK(status.st_mode):
            status = os.stat(absolute)
            fault = fault or _led_out(root, absolute)
        if stat.S_ISDIR(status.st_mode):
            fault = "a link to a folder: not followed"
        elif not stat.S_ISREG(status.st_mode):
            fault = fault or "not a file"
        size = status.st_size
    except OSError as error:
        fault = _because(error)
    return Found(path, split, label, 0 if fault else size, fault)


def _led_out(root: bytes, link: bytes) -> str:
    """Why a link is not followed: it leads out of the data set, but not into DVC's cache. "" if it is followed."""
    target = os.path.realpath(link)
    if target.startswith(root + b"/") or dvc_files.is_object(target):
        return ""
    return f"a link out of the data set, to {_readable(target)}"


def _entries(folder: bytes) -> list[tuple[bytes, bool]]:
    """Each name in a folder and whether it is a folder, sorted by bytes, since file systems list in any order."""
    with os.scandir(folder) as entries:
        return sorted(
            (entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries if not _ignored(entry.name)
        )


def _ignored(name: bytes) -> bool:
    return name.startswith(b".") or name.lower() in _IGNORED


def _readable(name: bytes) -> str:
    r"""A name as text, with bytes that are not UTF-8 as \xNN."""
    return name.decode("utf-8", "backslashreplace")


def _because(error: OSError) -> str:
    return f"cannot be read: {error.strerror}"


_BESIDE = "lies beside the class folders, not in one"
