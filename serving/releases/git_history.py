"""What git and DVC have kept of the project: its state at a commit, each file by its hash, and who holds which release.

Reads git's objects and DVC's cache alone: offline, and whatever lies in the working folders.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import getitem
from pathlib import Path, PurePosixPath
from typing import Any

from stages.core import dvc_files, lockfile
from stages.core.children import child_environment
from stages.core.errors import UserError
from stages.core.lockfile import LOCK

CHAMPION = "champion"
MANIFEST = f"{CHAMPION}/manifest.json"


@dataclass(frozen=True)
class State:
    """The project at a commit. `cache`: where DVC keeps its objects."""

    root: Path
    commit: str
    cache: Path

    @cached_property
    def blobs(self) -> dict[str, str]:
        """Path below the root -> git's object, of every file that git tracks."""
        listed = _git(self.root, "ls-tree", "-r", "-z", self.commit).decode(errors="surrogateescape").split("\0")
        return {path: said.split()[2] for said, _, path in (line.partition("\t") for line in listed if line)}

    def read(self, path: str) -> bytes:
        """A tracked file.

        Raises:
            UserError: git does not have it.
        """
        if path not in self.blobs:
            raise UserError(f"commit {self.commit[:12]} has no {path}")
        (content,) = _contents(self.root, {path: self.blobs[path]})
        return content

    @cached_property
    def paths(self) -> dict[str, str]:
        """Where dvc.yaml says that everything lies."""
        return dict(_yaml(self.read("dvc.yaml"))["vars"][0]["paths"])

    @cached_property
    def stages(self) -> dict[str, Any]:
        """What dvc.lock says of each stage, in the order in which they ran."""
        return lockfile.parse(self.read(LOCK))

    @cached_property
    def made(self) -> dict[str, str]:
        """Path -> MD5 of every output of the stages."""
        return lockfile.outputs(self.stages)

    @cached_property
    def added(self) -> dict[str, str]:
        """Path -> MD5 of all that was put under DVC by `dvc add`."""
        pointers = [path for path in self.blobs if path.endswith(".dvc")]
        outs = {path: _yaml(self.read(path)).get("outs", []) for path in pointers}
        return {
            (Path(path).parent / out["path"]).as_posix(): out["md5"]
            for path in pointers
            for out in outs[path]
            if "md5" in out
        }

    @cached_property
    def read_by_stages(self) -> list[tuple[str, str]]:
        """Path and MD5 of everything that a stage read, as it saw it; after changes two may have seen two."""
        read = [dependency for stage in self.stages.values() for dependency in stage.get("deps", [])]
        return sorted({(dependency["path"], dependency["md5"]) for dependency in read})

    @cached_property
    def raw(self) -> dict[str, str]:
        """Of what was `added`, that which the stages read."""
        read = [f"{path}/" for path, _ in self.read_by_stages]
        return {path: md5 for path, md5 in self.added.items() if any(each.startswith(f"{path}/") for each in read)}

    def object(self, md5: str) -> Path:
        """Where DVC keeps the bytes of this MD5; those of `HASH.dir` are a list of files."""
        return dvc_files.object_path(self.cache, md5)

    def holds(self, md5: str) -> bool:
        """Whether the bytes of this MD5 are here and have it."""
        return dvc_files.is_intact(self.object(md5), md5)

    def members(self, md5: str) -> dict[str, str]:
        """Path -> MD5 of the files in a folder that DVC `holds`; of a file, itself as ""."""
        return dvc_files.members(self.cache, md5)

    @cached_property
    def disagreements(self) -> list[str]:
        """Where git has other code, parameters or data than dvc.lock says that the stages ran on; a sentence each."""
        if LOCK not in self.blobs:
            return ["dvc.lock is not in git: commit it"]
        told = []
        folders = {folder: md5 for folder, md5 in (self.made | self.added).items() if md5.endswith(".dir")}
        unknown = [f"{folder}/" for folder, md5 in folders.items() if not self.holds(md5)]
        for path, md5 in self.read_by_stages:
            if path.startswith(tuple(unknown)):
                continue
            has = self._has(path)
            if has is None:
                told.append(f"{path} is neither in git nor under DVC: commit it, or its .dvc file")
            elif has != md5:
                told.append(f"{path} is not in git as the stages read it: commit it as it was, or run again")
        return told + unlike_params(self.stages, _yaml(self.read("params.yaml")))

    def _has(self, path: str) -> str | None:
        """MD5 of what this commit has at a path, as DVC would say it."""
        known = self.made | self.added
        if path in known:
            return known[path]
        for folder, md5 in known.items():
            if path.startswith(f"{folder}/"):
                return _md5_at(path.removeprefix(f"{folder}/"), self.members(md5))
        return _md5_at(path, self._code)

    @cached_property
    def _code(self) -> dict[str, str]:
        """Path -> MD5 of every tracked file that the stages read."""
        read = {path for path, _ in self.read_by_stages}
        files = {
            path: blob for path, blob in self.blobs.items() if read & {path, *map(str, PurePosixPath(path).parents)}
        }
        md5s = (hashlib.md5(content).hexdigest() for content in _contents(self.root, files))
        return dict(zip(files, md5s, strict=True))

    def damage(self) -> list[str]:
        """What git's own objects of this commit lack or have altered."""
        done = _run(self.root, "git", "rev-list", "--objects", "--verify-objects", "--no-walk", "--quiet", self.commit)
        said = done.stderr.decode(errors="replace").strip()
        for path, blob in self.blobs.items():
            said = said.replace(blob, f"{blob} ({path})")
        return [f"git: {line}" for line in said.splitlines()] or (["git cannot read it"] if done.returncode else [])

    def about(self) -> str:
        """When it was committed, by whom, and its title."""
        return (
            _git(self.root, "show", "--no-patch", "--format=%cI %cn: %s", self.commit).decode(errors="replace").strip()
        )


def releases(root: Path) -> dict[str, list[State]]:
    """Every release that a commit has as its champion -> these commits, the oldest first."""
    _git(root, "rev-parse", "--git-dir") if (root / ".git").exists() else None
    if _run(root, "git", "rev-parse", "--verify", "--quiet", "HEAD").returncode:
        raise UserError(f"{root} is not under git, or has no commit: `git init`, `git add --all`, `git commit`")
    commits = (
        _git(root, "log", "--topo-order", "--reverse", "--format=%H", "HEAD", "--branches", "--tags", "--remotes")
        .decode()
        .split()
    )
    prefix = _git(root, "rev-parse", "--show-prefix").decode().strip()
    asked = "".join(f"{commit}:{prefix}{MANIFEST}\n" for commit in commits)
    answered = _git(root, "cat-file", "--batch-check", given=asked.encode()).decode().splitlines()
    holding = [
        (commit, line.split()[0])
        for commit, line in zip(commits, answered, strict=True)
        if not line.endswith(" missing")
    ]
    blobs = {f"{MANIFEST} at {commit[:12]}": blob for commit, blob in holding}
    contents = dict(zip(blobs.values(), _contents(root, blobs), strict=True))
    found: dict[str, list[State]] = {}
    for commit, blob in holding:
        if contents[blob].strip() != b"{}":
            id = hashlib.sha256(contents[blob]).hexdigest()[:12]
            found.setdefault(id, []).append(State(root, commit, cache(root)))
    return found


def origin(states: Iterable[State]) -> State:
    """Of the commits of one release, the first that has all that made it; else the one that comes nearest."""
    states = list(states)
    made = [state for state in states if made_here(state)]
    return next((state for state in made if not state.disagreements), (made or states)[0])


def made_here(state: State) -> bool:
    """Whether a commit's dvc.lock is of the run that made its champion, and not of a later one."""
    md5 = hashlib.md5(state.read(MANIFEST)).hexdigest()
    return LOCK in state.blobs and md5.encode() in state.read(LOCK)


def head(root: Path) -> State:
    """The project at the commit that is checked out."""
    return State(root, _git(root, "rev-parse", "HEAD").decode().strip(), cache(root))


def detached(root: Path) -> bool:
    """Whether a commit is checked out and no branch, so that no branch gets what is committed next."""
    known = _run(root, "git", "rev-parse", "--verify", "--quiet", "HEAD").returncode == 0
    return known and _run(root, "git", "symbolic-ref", "--quiet", "HEAD").returncode == 1


def shallow(root: Path) -> bool:
    """Whether this clone has the last commits alone."""
    return _run(root, "git", "rev-parse", "--is-shallow-repository").stdout.strip() == b"true"


def uncommitted(root: Path, folder: str) -> list[str]:
    """The files below a folder that git has otherwise, or not at all; nothing where git does not say."""
    listed = _run(root, "git", "status", "--porcelain", "-z", "--", folder).stdout.decode(errors="replace")
    return [line[3:] for line in listed.split("\0") if line[3:]]


def top(root: Path) -> Path:
    """The folder that git tracks, which the project may be a part of."""
    return Path(_git(root, "rev-parse", "--show-toplevel").decode().strip())


def damaged(root: Path) -> str:
    """What git finds wrong with all of its objects."""
    done = _run(root, "git", "fsck", "--no-dangling", "--no-progress")
    return "; ".join(done.stderr.decode(errors="replace").split("\n")[:3]) if done.returncode else ""


def unlike_params(stages: Mapping[str, Any], params: Any) -> list[str]:
    """Which values of params.yaml are not those that the stages ran with; a sentence each."""
    told = {}
    for stage in stages.values():
        for key, ran_with in stage.get("params", {}).get("params.yaml", {}).items():
            try:
                has = reduce(getitem, key.split("."), params)
            except (KeyError, TypeError):
                has = None
            if has != ran_with:
                told[key] = f"{key} is {json.dumps(has)} in params.yaml, but the stages ran with {json.dumps(ran_with)}"
    return list(told.values())


def params_stand(root: Path) -> bool:
    """Whether params.yaml, as it lies here, has the values that the stages last ran with."""
    return not unlike_params(lockfile.stages(root), _yaml((root / "params.yaml").read_bytes()))


def digest(path: Path, algorithm: str) -> str:
    """Of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


cache = functools.cache(dvc_files.cache)


def _md5_at(path: str, files: Mapping[str, str]) -> str | None:
    """MD5 of a file, or, as DVC lists its files, of a folder."""
    below = dvc_files.below(files, path)
    return below.get("") or (dvc_files.folder_md5(below) if below else None)


def _contents(root: Path, files: Mapping[str, str]) -> Iterator[bytes]:
    """The bytes of files, path -> git's object, one after another.

    Raises:
        UserError: git does not have them, or has altered ones.
    """
    try:
        told = _git(root, "cat-file", "--batch", given="".join(f"{blob}\n" for blob in files.values()).encode())
    except UserError as error:
        named = [path for path, blob in files.items() if blob in str(error)]
        raise UserError(f"{named[0]}: {error}" if named else str(error)) from error
    at = 0
    for path, blob in files.items():
        line = told.index(b"\n", at)
        size = int(told[at:line].split()[2])
        content = told[line + 1 : line + 1 + size]
        algorithm = "sha1" if len(blob) == 40 else "sha256"
        if hashlib.new(algorithm, b"blob %d\0" % size + content).hexdigest() != blob:
            raise UserError(f"{path}: git's object {blob} has other bytes")
        yield content
        at = line + 1 + size + 1


@functools.lru_cache(maxsize=64)
def _yaml(content: bytes) -> Any:
    from ruamel.yaml import YAML

    return YAML(typ="safe").load(content)


def _git(root: Path, *arguments: str, given: bytes = b"") -> bytes:
    """What git says.

    Raises:
        UserError: it cannot.
    """
    done = _run(root, "git", *arguments, given=given)
    if done.returncode:
        message = done.stderr.decode(errors="replace").strip()
        raise UserError(f"`git {arguments[0]}` failed: {refusal(message) or done.returncode}")
    return done.stdout


def refusal(message: str) -> str:
    """Git's reason on its stderr, in one line."""
    if owned := re.search(r"dubious ownership in repository at '(.*)'", message):
        allowed = f"`git config --global --add safe.directory {owned[1]}`"
        return f"{owned[1]} is another user's repository: {allowed} lets git read it"
    return message.splitlines()[-1].strip() if message else ""


def _run(root: Path, *command: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, cwd=root, env=child_environment(), input=given, capture_output=True)
