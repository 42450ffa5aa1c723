"""The releases on this host, as files: what Triton serves, what is known of each release, and who may write.

    live/repository/NAME_ID_encode, NAME_ID_network, NAME_ID     parts of each kept release, never changed
    live/repository/NAME_ID_canary                               the router, while a release is on trial
    live/repository/NAME                                         the public ensemble: its config names the live release
    live/releases/ID/                                            manifest, more files (RECORD), public config, when
    live/ledger.jsonl  switch.json  server.json  key  lock

Only renames within one file system make anything visible here, so that a kill leaves the old or the new.
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
from stages.core.command import holder, holding, replacing
from stages.core.errors import UserError

RESTORE = (
    "`millrace release --from-champion` restores the release that champion/ holds"
    " (`git checkout COMMIT -- champion` and `dvc pull champion/repository.dvc` for an earlier one)"
)
RECORD = ("verdict.json", "golden.json", "statistics.json")  # what is known of a release, beside its manifest
LATER = "statistics.json"  # which releases lack that are older than it
_PART = re.compile(r"(?P<name>.+)_(?P<id>[0-9a-f]{12})(?P<part>_encode|_network|_canary)?")


class Place(NamedTuple):
    """Of a release among all that were made here. `number`: 0 for those of versions that did not count."""

    number: int
    time: str


class Store:
    """`live/`, whose every change is made by one process at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = folder / "repository"
        self.ledger = folder / "ledger.jsonl"
        self._releases = folder / "releases"
        self._incoming = folder / "incoming"
        self._switch = folder / "switch.json"

    @contextlib.contextmanager
    def writing(self, doing: str) -> Iterator[None]:
        """Be the only one that changes anything until the block ends, however it ends.

        Raises:
            UserError: another process is at it.
        """
        with holding(self.folder / "lock", doing):
            for folder in (self.repository, self._releases):
                folder.mkdir(exist_ok=True)
            self._discard(self._incoming)
            try:
                yield
            finally:
                self._discard(self._incoming)  # where a copy failed for want of room, it takes none

    @property
    def key(self) -> str:
        """What opens the server's administration: made once."""
        path = self.folder / "key"
        if not path.exists():
            self.keep_key(secrets.token_hex(16))
        return path.read_text()

    def renewed_key(self) -> str:
        """Another key: whoever knows the last one may have read it. On a full disk it stays in memory alone."""
        key = secrets.token_hex(16)
        with contextlib.suppress(OSError):
            self.keep_key(key)
        return key

    def keep_key(self, key: str) -> None:
        """Write it where nobody else can read it."""
        self.folder.mkdir(exist_ok=True)
        with replacing(self.folder / "key") as whole:
            whole.touch(mode=0o600)
            whole.write_text(key)

    def server(self) -> int | None:
        """The process that keeps a server on this store, even while that starts; None where there is none."""
        return holder(self.folder / "serving.lock")

    def address(self) -> str:
        """Of the gRPC of the server that is kept on this store; nothing where there is none."""
        told = self.announced() if self.server() is not None else None
        return str(told["grpc"]) if told else ""

    def free(self) -> int:
        """Bytes that can still be written here."""
        return shutil.disk_usage(self.folder).free

    def names(self) -> list[str]:
        """The public names under which anything has been released."""
        return sorted({public for public, _ in self._made()})

    def current(self, name: str) -> str | None:
        """The release that the public config names."""
        config = self.repository / name / "config.pbtxt"
        if not config.exists():
            return None
        found = re.search(rf'"{re.escape(name)}_([0-9a-f]{{12}})(_encode)?"', config.read_text())  # or, routed, `live`
        return found.group(1) if found else None

    def stands(self, names: Names) -> bool:
        """Whether the public config is this release's, byte for byte."""
        configs = [folder / "config.pbtxt" for folder in (self.repository / names.public, self._public(names.release))]
        return all(map(Path.exists, configs)) and configs[0].read_bytes() == configs[1].read_bytes()

    def kept(self, name: str) -> list[str]:
        """Releases whose parts are here, the latest first: by their number, never by the clock.

        Releases of earlier versions have no number. They are older than all that have one; among them the ledger
        decides, and the time only where that knows nothing of them.
        """
        made = {id: place for (public, id), place in self._made().items() if public == name}
        ledger_has = (
            ledger.order(ledger.lines(self.ledger), name) if any(not each.number for each in made.values()) else {}
        )
        return sorted(made, key=lambda id: (made[id].number, ledger_has.get(id, -1), made[id].time), reverse=True)

    def predecessor(self, name: str) -> str | None:
        """The kept release that was made before the live one."""
        kept, current = self.kept(name), self.current(name)
        older = kept[kept.index(current) + 1 :] if current in kept else []
        return older[0] if older else None

    def record(self, release: str) -> Path:
        """The folder of what is known of a release."""
        return self._releases / release

    def manifest(self, release: str) -> Manifest:
        """What a kept release consists of.

        Raises:
            UserError: there is no such manifest, or it is another's.
        """
        path = self.record(release) / "manifest.json"
        with contextlib.suppress(UserError):
            manifest = manifests.load(path)
            if manifest.id == release:
                return manifest
        raise UserError(f"{path} is not that of release {release}: {RESTORE}")

    def read(self, release: str, name: str) -> Any:
        """A file of JSON in a release's record.

        Raises:
            UserError: it is missing or damaged.
        """
        path = self.record(release) / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is missing or damaged: {RESTORE}") from error

    def add(self, exported: Path, manifest: Manifest, known: Mapping[str, str]) -> None:
        """Copy a release in, every byte checked in the copy. `known`: more files of its record, by name.

        Raises:
            UserError: the bytes are not the manifest's.
        """
        names = Names(manifest.name, manifest.id)
        if self.record(manifest.id).exists() and not self.faults(manifest.id):
            for name in known.keys() - {"golden.json"}:  # which it was judged anew with
                self.note(manifest.id, name, known[name])
            return
        copy = self._aside("repository")
        shutil.copytree(exported, copy)
        manifests.check(copy, manifest, exported)
        record = self._aside("record")
        record.mkdir()
        (copy / names.public).rename(record / "public")
        made = self.record(manifest.id) / "released"
        if made.exists():
            shutil.copyfile(made, record / "released")
        for name, content in {**known, "manifest.json": manifest.text}.items():
            (record / name).write_text(content, encoding="utf-8")
        _sync(self._incoming)
        for part in parts(names):
            self._replace(copy / part, self.repository / part)
        self._replace(record, self.record(manifest.id))

    def note(self, release: str, name: str, content: str) -> None:
        """Write a file of a release's record."""
        with replacing(self.record(release) / name) as whole:
            whole.write_text(content, encoding="utf-8")

    def made(self, names: Names) -> None:
        """Note that a release has been made: whoever loses the ledger loses no release."""
        number = 1 + max((place.number for place in self._made().values()), default=0)
        self.note(names.release, "released", f"{datetime.now(UTC).isoformat()} {names.public}\n{number}\n")

    def faults(self, release: str) -> list[str]:
        """What is wrong with a kept release's bytes; what does not belong in its folders is moved out first."""
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
        """Let the public name stand for this release: one rename. A running server must still be told.

        Where it does already nothing is written, so that healing needs no room on the disk.
        """
        if self.stands(names):
            return
        source, place = self._public(names.release), self.repository / names.public
        if not place.exists():
            copy = self._aside("public")
            self._discard(copy)
            shutil.copytree(source, copy)
            _sync(copy)
            copy.rename(place)
            _sync_folder(self.repository)
            return
        self._publish(source / "config.pbtxt", place)

    def route(self, names: Names, write: Callable[[Path], None]) -> None:
        """Put the router of a release on trial beside its parts. `write` makes the folder, `public.pbtxt` in it."""
        copy = self._aside("router")
        self._discard(copy)
        write(copy)
        _sync(copy)
        self._replace(copy, self.repository / names.router)

    def divert(self, names: Names) -> None:
        """Let the public name lead to that router: one rename. A running server must still be told."""
        self._publish(self.repository / names.router / "public.pbtxt", self.repository / names.public)

    def diverted(self, names: Names) -> bool:
        """Whether the public name leads to the router of this release."""
        config = self.repository / names.public / "config.pbtxt"
        return config.exists() and f'"{names.router}"' in config.read_text()

    def routed(self) -> list[Names]:
        """The releases of which a router is here."""
        found = [_PART.fullmatch(path.name) for path in self.repository.glob("*_canary")]
        return [Names(match["name"], match["id"]) for match in found if match]

    def unroute(self, names: Names) -> None:
        """Remove a router that the server holds no more."""
        self._discard(self.repository / names.router)

    def unpublish(self, name: str) -> None:
        """Take the public name away again, where its first release has failed."""
        self._discard(self.repository / name)

    def intend(self, event: str, names: Names, facts: Mapping[str, Any]) -> None:
        """Note what is about to become live, so that a killed command can be finished by the next."""
        with replacing(self._switch) as whole:
            whole.write_text(json.dumps({"event": event, "name": names.public, "release": names.release, **facts}))
            _sync(whole)

    def intended(self) -> dict[str, Any] | None:
        return _json(self._switch)

    def settled(self) -> None:
        """Nothing is under way any more."""
        self._switch.unlink(missing_ok=True)

    def drop(self, names: Names) -> None:
        """Remove a release that the server holds no more."""
        for part in parts(names):
            self._discard(self.repository / part)
        self._discard(self.record(names.release))

    def strangers(self) -> list[Names]:
        """Releases of which parts are here that were never made: a killed command's. Whole ones and fragments."""
        found = [_PART.fullmatch(path.name) for path in self.repository.iterdir()]
        named = {Names(match["name"], match["id"]) for match in found if match}
        for record in self._releases.iterdir():
            with contextlib.suppress(UserError):
                named.add(Names(self.manifest(record.name).name, record.name))
        made = {Names(public, id) for public, id in self._made()}
        return sorted(named - made, key=lambda names: names.candidate)

    def touch(self, names: Names) -> None:
        """Make the next load of a release read its parts anew, where nothing in them has changed."""
        for part in (names.encode, names.network):
            os.utime(self.repository / part / "1")

    def announce(self, server: Mapping[str, Any] | None) -> None:
        """Tell other commands where the server is, or that there is none."""
        path = self.folder / "server.json"
        if server is None:
            path.unlink(missing_ok=True)
            return
        with replacing(path) as whole:
            whole.write_text(json.dumps(server))

    def announced(self) -> dict[str, Any] | None:
        """Where the server said that it is, whether or not it still is."""
        return _json(self.folder / "server.json")

    def _aside(self, name: str) -> Path:
        """Where a file or folder is made, or unmade, before one rename brings it into place or takes it away."""
        self._incoming.mkdir(exist_ok=True)
        return self._incoming / name

    def _public(self, release: str) -> Path:
        return self.record(release) / "public"

    def _made(self) -> dict[tuple[str, str], Place]:
        """(public name, id) of each kept release -> its place among all."""
        made = {}
        for path in self._releases.glob("*/released"):
            first, *rest = path.read_text(encoding="utf-8").splitlines() or [""]
            time, _, public = first.partition(" ")
            made[public, path.parent.name] = Place(int(rest[0]) if rest and rest[0].isdigit() else 0, time)
        return made

    def _move_strays(self, manifest: Manifest, folders: tuple[str, ...]) -> None:
        """A version folder that no manifest names would be loaded, or crash the server."""
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
        _sync_folder(place)

    def _replace(self, new: Path, old: Path) -> None:
        if old.exists():
            self._discard(old)
        new.rename(old)
        _sync_folder(old.parent)

    def _discard(self, folder: Path) -> None:
        """Gone at once, however long it takes to delete."""
        if folder == self._incoming:
            shutil.rmtree(folder, ignore_errors=True)
        elif folder.exists():
            aside = self._aside(f"discarded-{secrets.token_hex(4)}")
            folder.rename(aside)
            shutil.rmtree(aside)


def parts(names: Names) -> tuple[str, ...]:
    """The folders that belong to one release for ever."""
    return names.encode, names.network, names.candidate


def _json(path: Path) -> dict[str, Any] | None:
    """What a small file of ours says; None where it is missing or damaged."""
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads(path.read_text(encoding="utf-8")))
    return None


def _sync(path: Path) -> None:
    """Put a file, or a folder with all that is in it, on disk."""
    for each in [path, *path.rglob("*")] if path.is_dir() else [path]:
        _sync_folder(each)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
