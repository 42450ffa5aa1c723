"""The releases on this host as files: the repository that Triton serves, and a record of each release.

    live/repository/NAME_ID_encode, NAME_ID_network, NAME_ID     the parts of each kept release, never changed
    live/repository/NAME_ID_canary                               the router, while a release is on trial
    live/repository/NAME                                         the public ensemble: its config names the live release
    live/releases/ID/                                            its record: manifest, RECORD, public config, time
    live/ledger.jsonl  switch.json  server.json  key  lock

Every change becomes visible by one rename within the file system, so that a kill leaves either the old or the new.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from serving.releases import ledger
from serving.triton import manifest as manifests
from serving.triton.manifest import Manifest
from serving.triton.names import Names
from stages.core.errors import UserError
from stages.core.files import replacing
from stages.core.locks import holder, holding

RESTORE = (
    "`millrace release --from-champion` restores the release in champion/"
    " (`git checkout COMMIT -- champion` and `dvc pull champion/repository.dvc` get an earlier one)"
)
RECORD = ("verdict.json", "golden.json", "statistics.json")  # the files of a release's record, besides its manifest
LATER = "statistics.json"  # releases of earlier versions do not have it
_PART = re.compile(r"(?P<name>.+)_(?P<id>[0-9a-f]{12})(?P<part>_encode|_network|_canary)?")


class Place(NamedTuple):
    """A release's position among all that were made here. `number`: 0 for releases of versions that did not count."""

    number: int
    time: str


class Store:
    """The folder `live/`. Only one process at a time changes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = folder / "repository"
        self.ledger = folder / "ledger.jsonl"
        self._releases = folder / "releases"
        self._incoming = folder / "incoming"
        self._switch = folder / "switch.json"

    @contextlib.contextmanager
    def writing(self, doing: str) -> Iterator[None]:
        """Hold the lock on the store until the block ends. `doing`: what for, such as "a release".

        Raises:
            UserError: another process holds it.
        """
        with holding(self.folder / "lock", doing):
            for folder in (self.repository, self._releases):
                folder.mkdir(exist_ok=True)
            self._discard(self._incoming)
            try:
                yield
            finally:
                self._discard(self._incoming)  # an unfinished copy must not fill the disk

    @property
    def key(self) -> str:
        """The key of the server's administration. It is made on first use."""
        path = self.folder / "key"
        if not path.exists():
            self.keep_key(secrets.token_hex(16))
        return path.read_text()

    def renewed_key(self) -> str:
        """Make a new key, because somebody may have read the old one. On a full disk it is not stored."""
        key = secrets.token_hex(16)
        with contextlib.suppress(OSError):
            self.keep_key(key)
        return key

    def keep_key(self, key: str) -> None:
        """Store the key in a file that only its owner can read."""
        self.folder.mkdir(exist_ok=True)
        with replacing(self.folder / "key") as path:
            path.touch(mode=0o600)
            path.write_text(key)

    def server(self) -> int | None:
        """Return the process that supervises a server on this store, even while that starts; None if there is none."""
        return holder(self.folder / "serving.lock")

    def address(self) -> str:
        """Return the gRPC address of the server on this store; "" if there is none."""
        announced = self.announced() if self.server() is not None else None
        return str(announced["grpc"]) if announced else ""

    def free(self) -> int:
        """Return how many bytes can still be written here."""
        return shutil.disk_usage(self.folder).free

    def names(self) -> list[str]:
        """Return the public names under which anything has been released."""
        return sorted({public for public, _ in self._released()})

    def current(self, name: str) -> str | None:
        """Return the release that the public config names: in its first step, or during a canary in `live`."""
        config = self.repository / name / "config.pbtxt"
        if not config.exists():
            return None
        match = re.search(rf'"{re.escape(name)}_([0-9a-f]{{12}})(_encode)?"', config.read_text())
        return match.group(1) if match else None

    def is_public(self, names: Names) -> bool:
        """Whether the public config is this release's, byte for byte."""
        configs = [folder / "config.pbtxt" for folder in (self.repository / names.public, self._public(names.release))]
        return all(map(Path.exists, configs)) and configs[0].read_bytes() == configs[1].read_bytes()

    def kept(self, name: str) -> list[str]:
        """Return the releases whose parts are here, the latest first: by their number, never by the clock.

        Releases of earlier versions have no number and are older than all that have one. Among them the ledger
        decides, and the time only for those that the ledger does not mention.
        """
        places = {id: place for (public, id), place in self._released().items() if public == name}
        numbered = all(place.number for place in places.values())
        in_ledger = {} if numbered else ledger.order(ledger.lines(self.ledger), name)
        return sorted(places, key=lambda id: (places[id].number, in_ledger.get(id, -1), places[id].time), reverse=True)

    def predecessor(self, name: str) -> str | None:
        """Return the kept release that was made before the live one."""
        kept, current = self.kept(name), self.current(name)
        older = kept[kept.index(current) + 1 :] if current in kept else []
        return older[0] if older else None

    def record(self, release: str) -> Path:
        """Return the folder of a release's record."""
        return self._releases / release

    def manifest(self, release: str) -> Manifest:
        """Read the manifest of a kept release.

        Raises:
            UserError: it is missing, or is another release's.
        """
        path = self.record(release) / "manifest.json"
        with contextlib.suppress(UserError):
            manifest = manifests.load(path)
            if manifest.id == release:
                return manifest
        raise UserError("release-record-damaged", f"{path} is not the manifest of release {release}: {RESTORE}")

    def read(self, release: str, name: str) -> Any:
        """Read a JSON file of a release's record.

        Raises:
            UserError: it is missing or damaged.
        """
        path = self.record(release) / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError("release-record-damaged", f"{path} is missing or damaged: {RESTORE}") from error

    def add(self, exported: Path, manifest: Manifest, files: Mapping[str, str]) -> None:
        """Copy a release into the store, and check every byte of the copy.

        Args:
            exported: the repository to copy.
            manifest: its manifest.
            files: more files of its record: name -> content.

        Raises:
            UserError: the files differ from the manifest.
        """
        names = Names(manifest.name, manifest.id)
        if self.record(manifest.id).exists() and not self.faults(manifest.id):
            for name in files.keys() - {"golden.json"}:  # a new verdict on the same release
                self.note(manifest.id, name, files[name])
            return
        copy = self._aside("repository")
        shutil.copytree(exported, copy)
        manifests.check(copy, manifest, exported)
        record = self._aside("record")
        record.mkdir()
        (copy / names.public).rename(record / "public")
        released = self.record(manifest.id) / "released"
        if released.exists():
            shutil.copyfile(released, record / "released")
        for name, content in {**files, "manifest.json": manifest.text}.items():
            (record / name).write_text(content, encoding="utf-8")
        _sync(self._incoming)
        for part in parts(names):
            self._replace(copy / part, self.repository / part)
        self._replace(record, self.record(manifest.id))

    def note(self, release: str, name: str, content: str) -> None:
        """Write a file of a release's record."""
        with replacing(self.record(release) / name) as path:
            path.write_text(content, encoding="utf-8")

    def mark_released(self, names: Names) -> None:
        """Record that a release has been made. It does not depend on the ledger, which may be lost."""
        number = 1 + max((place.number for place in self._released().values()), default=0)
        self.note(names.release, "released", f"{datetime.now(UTC).isoformat()} {names.public}\n{number}\n")

    def faults(self, release: str) -> list[str]:
        """List what is wrong with a kept release's files. Stray files in its folders are moved out first."""
        try:
            manifest = self.manifest(release)
            for name in RECORD:
                if name != LATER or (self.record(release) / name).exists():
                    self.read(release, name)
        except UserError as error:
            return [str(error)]
        names = Names(manifest.name, release)
        self._move_strays(manifest, (*parts(names), names.public))
        return manifests.faults(self.repository, manifest, parts(names))

    def switch(self, names: Names) -> None:
        """Point the public name at this release by one rename. A running server must load it afterwards.

        Where it points there already, nothing is written, so that healing needs no space on the disk.
        """
        if self.is_public(names):
            return
        source, place = self._public(names.release), self.repository / names.public
        if not place.exists():
            copy = self._aside("public")
            self._discard(copy)
            shutil.copytree(source, copy)
            _sync(copy)
            copy.rename(place)
            _sync_one(self.repository)
            return
        self._publish(source / "config.pbtxt", place)

    def route(self, names: Names, write: Callable[[Path], None]) -> None:
        """Add the router of a release on trial. `write` makes its folder, with `public.pbtxt` in it."""
        copy = self._aside("router")
        self._discard(copy)
        write(copy)
        _sync(copy)
        self._replace(copy, self.repository / names.router)

    def divert(self, names: Names) -> None:
        """Point the public name at the router by one rename. A running server must load it afterwards."""
        self._publish(self.repository / names.router / "public.pbtxt", self.repository / names.public)

    def diverted(self, names: Names) -> bool:
        """Whether the public name points at the router of this release."""
        config = self.repository / names.public / "config.pbtxt"
        return config.exists() and f'"{names.router}"' in config.read_text()

    def routed(self) -> list[Names]:
        """Return the releases that have a router here."""
        matches = [_PART.fullmatch(path.name) for path in self.repository.glob("*_canary")]
        return [Names(match["name"], match["id"]) for match in matches if match]

    def unroute(self, names: Names) -> None:
        """Remove a router that the server has unloaded."""
        self._discard(self.repository / names.router)

    def unpublish(self, name: str) -> None:
        """Remove the public name, because its first release has failed."""
        self._discard(self.repository / name)

    def intend(self, event: str, names: Names, facts: Mapping[str, Any]) -> None:
        """Record what is about to become live, so that the next command can finish it after a kill."""
        with replacing(self._switch) as path:
            path.write_text(json.dumps({"event": event, "name": names.public, "release": names.release, **facts}))
            _sync(path)

    def intended(self) -> dict[str, Any] | None:
        """Return what was about to become live; None if nothing was."""
        return _json(self._switch)

    def settled(self) -> None:
        """Record that nothing is under way any more."""
        self._switch.unlink(missing_ok=True)

    def drop(self, names: Names) -> None:
        """Remove a release that the server has unloaded."""
        for part in parts(names):
            self._discard(self.repository / part)
        self._discard(self.record(names.release))

    def unreleased(self) -> list[Names]:
        """Return the releases that have files here but were never made, because a command was killed."""
        matches = [_PART.fullmatch(path.name) for path in self.repository.iterdir()]
        present = {Names(match["name"], match["id"]) for match in matches if match}
        for record in self._releases.iterdir():
            with contextlib.suppress(UserError):
                present.add(Names(self.manifest(record.name).name, record.name))
        released = {Names(public, id) for public, id in self._released()}
        return sorted(present - released, key=lambda names: names.candidate)

    def touch(self, names: Names) -> None:
        """Make the server read a release's parts again at its next load, although they have not changed."""
        for part in (names.encode, names.network):
            os.utime(self.repository / part / "1")

    def announce(self, server: Mapping[str, Any] | None) -> None:
        """Publish the server's announcement for other commands, or remove it."""
        path = self.folder / "server.json"
        if server is None:
            path.unlink(missing_ok=True)
            return
        with replacing(path) as partial:
            partial.write_text(json.dumps(server))

    def announced(self) -> dict[str, Any] | None:
        """Return the server's announcement, whether or not the server still runs."""
        return _json(self.folder / "server.json")

    def _aside(self, name: str) -> Path:
        """Return a path for a file or folder that one rename will move into place, or that is to be deleted."""
        self._incoming.mkdir(exist_ok=True)
        return self._incoming / name

    def _public(self, release: str) -> Path:
        return self.record(release) / "public"

    def _released(self) -> dict[tuple[str, str], Place]:
        """Return (public name, id) of each kept release -> its position among all."""
        places = {}
        for path in self._releases.glob("*/released"):
            first, *rest = path.read_text(encoding="utf-8").splitlines() or [""]
            time, _, public = first.partition(" ")
            places[public, path.parent.name] = Place(int(rest[0]) if rest and rest[0].isdigit() else 0, time)
        return places

    def _move_strays(self, manifest: Manifest, folders: tuple[str, ...]) -> None:
        """Move files out that the manifest does not name: Triton would load such a version folder, or crash."""
        expected = {path.replace(manifests.BLANK, manifest.id) for path in manifest.files}
        above = {parent.as_posix() for path in expected for parent in Path(path).parents}
        for folder in folders:
            for path in sorted((self.repository / folder).rglob("*")):
                place = path.relative_to(self.repository).as_posix()
                if path.exists() and place not in expected | above:
                    strays = self.folder / "strays"
                    strays.mkdir(exist_ok=True)
                    path.rename(strays / f"{place.replace('/', '.')}.{secrets.token_hex(4)}")

    def _publish(self, source: Path, place: Path) -> None:
        config = self._aside("config.pbtxt")
        shutil.copyfile(source, config)
        _sync(self._incoming)
        config.replace(place / "config.pbtxt")
        _sync_one(place)

    def _replace(self, new: Path, old: Path) -> None:
        if old.exists():
            self._discard(old)
        new.rename(old)
        _sync_one(old.parent)

    def _discard(self, folder: Path) -> None:
        """Delete a folder. One rename takes it away first, however long the deletion takes."""
        if folder == self._incoming:
            shutil.rmtree(folder, ignore_errors=True)
        elif folder.exists():
            aside = self._aside(f"discarded-{secrets.token_hex(4)}")
            folder.rename(aside)
            shutil.rmtree(aside)


def parts(names: Names) -> tuple[str, ...]:
    """Return the folders that belong to one release and never change."""
    return names.encode, names.network, names.candidate


def _json(path: Path) -> dict[str, Any] | None:
    """Read a small JSON file; None where it is missing or damaged."""
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads(path.read_text(encoding="utf-8")))
    return None


def _sync(path: Path) -> None:
    """Sync a file, or a folder with all that is in it, to disk."""
    for member in [path, *path.rglob("*")] if path.is_dir() else [path]:
        _sync_one(member)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
