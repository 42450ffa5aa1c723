"""A folder for each class with a file for each sample in it, perhaps below train, val and test."""

from __future__ import annotations

import os
import stat
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
CHUNK_BYTES = 4 << 20  # a chunk with the file that passes this is complete, so few large files are in flight

_IGNORED = {b"thumbs.db", b"desktop.ini", b"__macosx"}


class Found(NamedTuple):
    """A file, as listed."""

    path: bytes  # below the root
    split: str | None
    label: str
    size: int
    fault: str  # why it can be no sample; usually empty


class Chunk(NamedTuple):
    root: bytes
    feature: str
    target: str
    folder: bool  # whether the folder of each file is asked for
    files: list[Found]


def claims(path: Path) -> bool:
    """Whether there is a folder in the folder."""
    try:
        return any(folder for _, folder in _entries(os.fsencode(path)))
    except OSError:
        return False


def columns(path: Path, options: Options) -> list[str]:
    """What beside picture and label is known of a file: the name of the folder that it lies in, to split by."""
    return ["folder"]


def chunks(path: Path, schema: Schema, options: Options) -> Iterator[Chunk]:
    """Files sorted by path, of at most 256 files or some 4 MB each.

    Raises:
        UserError: there is no class folder, or several features are wanted of the one file.
    """
    feature, target = two_columns(schema, "image_folder", "folder")
    folder = any(column.name == "folder" for column in schema.features)
    root = os.fsencode(os.path.realpath(path))
    files: list[Found] = []
    size = 0
    for found in _listed(root):
        files.append(found)
        size += found.size
        if len(files) >= CHUNK_FILES or size >= CHUNK_BYTES:
            yield Chunk(root, feature, target, folder, files)
            files, size = [], 0
    if files:
        yield Chunk(root, feature, target, folder, files)


def read(chunk: Chunk) -> Iterator[Sample | Reject]:
    """Paths and labels."""
    for path, split, label, _, fault in chunk.files:
        if fault:
            yield Reject(_readable(path), fault)
        else:
            values = {"folder": _readable(os.path.basename(os.path.dirname(path)))} if chunk.folder else {}
            values |= {chunk.feature: os.fsdecode(chunk.root + b"/" + path), chunk.target: label}
            yield Sample(_readable(path), split, values)


def _listed(root: bytes) -> Iterator[Found]:
    try:
        entries = _entries(root)
    except OSError as error:
        raise UserError(f"{_readable(root)} cannot be read: {error.strerror}. image_folder expects {LAYOUT}") from error
    folders = [name for name, folder in entries if folder]
    if not folders:
        beside = f": it holds only {_readable(entries[0][0])}" if entries else ": it is empty"
        raise UserError(f"{_readable(root)} holds no class folder{beside}. image_folder expects {LAYOUT}")
    splits = _splits(root, folders)
    for name, folder in entries:
        if not folder:
            yield _file(root, name, None, "", _BESIDE)
        elif name not in splits:
            yield from _below(root, name, None, _readable(name))
        else:
            yield from _of_split(root, name, splits[name])


def _splits(root: bytes, folders: list[bytes]) -> dict[bytes, str]:
    """Which folders are official splits: all of them or none, since a class may well be called train."""
    named = {name: split for name in folders if (split := split_named(_readable(name)))}
    nested = [name for name in named if claims(Path(os.fsdecode(root + b"/" + name)))]
    if not nested:
        return {}
    others = [name for name in folders if name not in named]
    if others:
        raise UserError(
            f"{_readable(root)}: {_readable(nested[0])}/ holds folders, like a split, "
            f"but {_readable(others[0])}/ beside it is none. image_folder expects {LAYOUT}"
        )
    return named


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
    """All files below a class folder. Folders that are links are not entered, so there are no loops."""
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
        whole = root + b"/" + path
        status = os.lstat(whole)
        if stat.S_ISLNK(status.st_mode):
            status = os.stat(whole)
            fault = fault or _led_out(root, whole)
        if stat.S_ISDIR(status.st_mode):
            fault = "a link to a folder: not followed"
        elif not stat.S_ISREG(status.st_mode):
            fault = fault or "not a file"
        size = status.st_size
    except OSError as error:
        fault = _because(error)
    return Found(path, split, label, 0 if fault else size, fault)


def _led_out(root: bytes, link: bytes) -> str:
    """Why a link is not followed: it leads out of the data set, and not into DVC's cache of it."""
    target = os.path.realpath(link)
    if target.startswith(root + b"/") or dvc_files.is_object(target):
        return ""
    return f"a link out of the data set, to {_readable(target)}"


def _entries(folder: bytes) -> list[tuple[bytes, bool]]:
    """Names in a folder and whether each is a folder itself, in the order of their bytes, as no file system has it."""
    with os.scandir(folder) as found:
        return sorted((each.name, each.is_dir(follow_symlinks=False)) for each in found if not _ignored(each.name))


def _ignored(name: bytes) -> bool:
    return name.startswith(b".") or name.lower() in _IGNORED


def _readable(name: bytes) -> str:
    """A name as text; bytes that are not UTF-8 show as \\xNN."""
    return name.decode("utf-8", "backslashreplace")


def _because(error: OSError) -> str:
    return f"cannot be read: {error.strerror}"


_BESIDE = "lies beside the class folders, not in one"
