"""The manifest of an exported model: the SHA-256 of every file. Its own digest is the release's id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from stages.core.dvc_files import remedy
from stages.core.errors import UserError

BLANK = "0" * 12  # replaces the release's id where the manifest would otherwise contain its own digest


@dataclass(frozen=True)
class Manifest:
    """What an exported model consists of.

    `files`: path in the repository -> SHA-256 of the file's bytes; in both BLANK replaces the id.
    `sources`: name of what the model was made from -> SHA-256.
    """

    name: str
    files: Mapping[str, str]
    sources: Mapping[str, str]

    @property
    def text(self) -> str:
        """The manifest as it is stored. Equal manifests have equal texts."""
        tree = {"name": self.name, "files": dict(self.files), "sources": dict(self.sources)}
        return json.dumps(tree, indent=1, sort_keys=True) + "\n"

    @property
    def id(self) -> str:
        """The release's id: the first 12 hex digits of `sha256sum manifest.json`."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]


def describe(repository: Path, name: str, sources: Mapping[str, str]) -> Manifest:
    """Make the manifest of a repository that was written under the BLANK id."""
    paths = sorted(path for path in repository.rglob("*") if path.is_file())
    files = {path.relative_to(repository).as_posix(): _digest(path, name, BLANK) for path in paths}
    return Manifest(name, files, sources)


def load(path: Path) -> Manifest:
    """Read `manifest.json`.

    Raises:
        UserError: the file is not a manifest.
    """
    try:
        tree = json.loads(Path(path).read_text(encoding="utf-8"))
        return Manifest(tree["name"], tree["files"], tree["sources"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            "model-manifest-damaged", f"{path} is not the manifest of an exported model: run `dvc repro export`"
        ) from error


def check(repository: Path, manifest: Manifest, original: Path | None = None) -> None:
    """Check that a repository has exactly the manifest's files, with exactly their bytes.

    Args:
        repository: the repository to check.
        manifest: what it should consist of.
        original: what `repository` is a copy of, if it is one; the error message is about the original.

    Raises:
        UserError: the repository differs.
    """
    differences = faults(Path(repository), manifest)
    if differences:
        place = Path(original or repository)
        pointer = place.with_name(f"{place.name}.dvc")
        restore = f"`dvc checkout --force {pointer if pointer.exists() else place}` restores it"
        if not pointer.exists():
            restore += ", or `dvc repro --force export` exports it again"
        raise UserError(
            "model-altered",
            f"{place} differs from its manifest {manifest.id}: {'; '.join(differences[:5])}. {remedy(place, restore)}",
        )


def faults(repository: Path, manifest: Manifest, folders: Collection[str] = ()) -> list[str]:
    """List the files that are missing, unexpected or altered, in the whole repository or only in `folders` of it."""
    expected = {path.replace(BLANK, manifest.id): digest for path, digest in manifest.files.items()}
    present = {path.relative_to(repository).as_posix() for path in repository.rglob("*") if path.is_file()}
    if folders:
        expected = {path: digest for path, digest in expected.items() if path.partition("/")[0] in folders}
        present = {path for path in present if path.partition("/")[0] in folders}
    differences = [f"{path} is missing" for path in expected if path not in present]
    differences += [f"{path} does not belong there" for path in sorted(present) if path not in expected]
    for path, digest in expected.items():
        if path in present and _digest(repository / path, manifest.name, manifest.id) != digest:
            differences.append(f"{path} has other bytes")
    return differences


def _digest(path: Path, name: str, release: str) -> str:
    content = path.read_bytes()
    if path.name == "config.pbtxt":  # the only files that contain the id
        content = content.replace(f"{name}_{release}".encode(), f"{name}_{BLANK}".encode())
    return hashlib.sha256(content).hexdigest()
