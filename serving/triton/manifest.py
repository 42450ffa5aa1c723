"""The manifest of an exported model: SHA-256 of every file and of all it came from. Its digest is the release."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from stages.core.dvc_files import remedy
from stages.core.errors import UserError

BLANK = "0" * 12  # stands for the release's own id wherever the manifest would have to contain its own digest


@dataclass(frozen=True)
class Manifest:
    """`files`: path under the repository, with BLANK for the id -> SHA-256 of its bytes, with BLANK for the id.

    `sources`: what it came from -> SHA-256.
    """

    name: str
    files: Mapping[str, str]
    sources: Mapping[str, str]

    @property
    def text(self) -> str:
        """As it is stored; equal manifests are equal bytes."""
        tree = {"name": self.name, "files": dict(self.files), "sources": dict(self.sources)}
        return json.dumps(tree, indent=1, sort_keys=True) + "\n"

    @property
    def id(self) -> str:
        """The first 12 hex digits of the SHA-256 of the text: `sha256sum manifest.json` shows it."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]


def describe(repository: Path, name: str, sources: Mapping[str, str]) -> Manifest:
    """The manifest of a repository that was written under the BLANK id."""
    paths = sorted(path for path in repository.rglob("*") if path.is_file())
    files = {path.relative_to(repository).as_posix(): _digest(path, name, BLANK) for path in paths}
    return Manifest(name, files, sources)


def load(path: Path) -> Manifest:
    """Read `manifest.json`.

    Raises:
        UserError: it is no manifest.
    """
    try:
        tree = json.loads(Path(path).read_text(encoding="utf-8"))
        return Manifest(tree["name"], tree["files"], tree["sources"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no manifest of an exported model: run `dvc repro export`") from error


def check(repository: Path, manifest: Manifest, original: Path | None = None) -> None:
    """Raise UserError unless the repository holds exactly the manifest's files with exactly their bytes.

    original: of what `repository` is a copy, if it is one; the advice is on that.
    """
    found = faults(Path(repository), manifest)
    if found:
        place = Path(original or repository)
        pointer = place.with_name(f"{place.name}.dvc")
        restore = f"`dvc checkout --force {pointer if pointer.exists() else place}` restores it"
        if not pointer.exists():
            restore += ", or `dvc repro --force export` exports it again"
        raise UserError(
            f"{place} is not what its manifest {manifest.id} says: {'; '.join(found[:5])}. {remedy(place, restore)}"
        )


def faults(repository: Path, manifest: Manifest, folders: Collection[str] = ()) -> list[str]:
    """What is missing, strange or altered in the repository, or in those of its `folders` alone."""
    expected = {path.replace(BLANK, manifest.id): digest for path, digest in manifest.files.items()}
    found = {path.relative_to(repository).as_posix() for path in repository.rglob("*") if path.is_file()}
    if folders:
        expected = {path: digest for path, digest in expected.items() if path.partition("/")[0] in folders}
        found = {path for path in found if path.partition("/")[0] in folders}
    told = [f"{path} is missing" for path in expected if path not in found]
    told += [f"{path} does not belong there" for path in sorted(found) if path not in expected]
    for path, digest in expected.items():
        if path in found and _digest(repository / path, manifest.name, manifest.id) != digest:
            told.append(f"{path} has other bytes")
    return told


def _digest(path: Path, name: str, release: str) -> str:
    content = path.read_bytes()
    if path.name == "config.pbtxt":  # the only files that contain the id
        content = content.replace(f"{name}_{release}".encode(), f"{name}_{BLANK}".encode())
    return hashlib.sha256(content).hexdigest()
