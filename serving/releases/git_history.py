"""The project's history in git and DVC: its state at a commit, with the hash of each file, and the commits of releases.

Reads only git's objects and DVC's cache: offline, and independent of the working folders.
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

from stages.core import closure, dvc_files, lockfile
from stages.core.children import child_environment
from stages.core.errors import UserError
from stages.core.lockfile import LOCK

AS_IT_WAS = "commit it as it was, or run again"
CHAMPION = "champion"
MANIFEST = f"{CHAMPION}/manifest.json"


@dataclass(frozen=True)
class State:
    """The project at a commit. `cache`: the folder of DVC's objects."""

    root: Path
    commit: str
    cache: Path

    @cached_property
    def blobs(self) -> dict[str, str]:
        """Path below the root -> git's object, for every tracked file."""
        lines = _git(self.root, "ls-tree", "-r", "-z", self.commit).decode(errors="surrogateescape").split("\0")
        return {path: entry.split()[2] for entry, _, path in (line.partition("\t") for line in lines if line)}

    def read(self, path: str) -> bytes:
        """Return the content of a tracked file.

        Raises:
            UserError: git does not have it.
        """
        if path not in self.blobs:
            raise UserError(
                "git-no-file", f"commit {self.commit[:12]} has no {path}: `git log --all -- {path}` shows which have it"
            )
        (content,) = _contents(self.root, {path: self.blobs[path]})
        return content

    @cached_property
    def paths(self) -> dict[str, str]:
        """The paths that dvc.yaml defines, by name."""
        return dict(_yaml(self.read("dvc.yaml"))["vars"][0]["paths"])

    @cached_property
    def stages(self) -> dict[str, Any]:
        """The entry of each stage in dvc.lock, in the order in which the stages ran."""
        return lockfile.parse(self.read(LOCK))

    @cached_property
    def outputs(self) -> dict[str, str]:
        """Path -> MD5, for every output of the stages."""
        return lockfile.outputs(self.stages)

    @cached_property
    def added(self) -> dict[str, str]:
        """Path -> MD5, for everything that was put under DVC by `dvc add`."""
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
        """Path and MD5 of everything that a stage read. Two stages may have read different states of a file."""
        read = [dependency for stage in self.stages.values() for dependency in stage.get("deps", [])]
        return sorted({(dependency["path"], dependency["md5"]) for dependency in read})

    @cached_property
    def raw(self) -> dict[str, str]:
        """The part of `added` that the stages read."""
        read = [f"{path}/" for path, _ in self.read_by_stages]
        return {path: md5 for path, md5 in self.added.items() if any(file.startswith(f"{path}/") for file in read)}

    def object(self, md5: str) -> Path:
        """Return the path of DVC's object with this MD5. The object of `HASH.dir` is a list of files."""
        return dvc_files.object_path(self.cache, md5)

    def holds(self, md5: str) -> bool:
        """Whether DVC's object with this MD5 exists and is intact."""
        return dvc_files.is_intact(self.object(md5), md5)

    def members(self, md5: str) -> dict[str, str]:
        """Return path -> MD5 of the files in a folder that DVC `holds`; for a file only itself, with the path ""."""
        return dvc_files.members(self.cache, md5)

    @cached_property
    def disagreements(self) -> list[str]:
        """How git's code, parameters and data differ from those that dvc.lock says the stages read, as sentences."""
        if LOCK not in self.blobs:
            return ["dvc.lock is not in git: commit it"]
        differences = []
        folders = {folder: md5 for folder, md5 in (self.outputs | self.added).items() if md5.endswith(".dir")}
        missing = [f"{folder}/" for folder, md5 in folders.items() if not self.holds(md5)]
        for path, md5 in self.read_by_stages:
            if path.startswith(tuple(missing)):
                continue
            committed = self._md5(path)
            if committed is None:
                differences.append(f"{path} is neither in git nor under DVC: commit it, or its .dvc file")
            elif committed != md5:
                files = self._changed_files(path)
                differences += [f"{file} is not in git as the stages read it: {AS_IT_WAS}" for file in files]
        return differences + unlike_params(self.stages, _yaml(self.read("params.yaml")))

    def _changed_files(self, path: str) -> list[str]:
        """List the files below a changed dependency that differ from the stages' records of their code.

        A comment, or a file that no stage loads, makes no difference. Without records, the dependency itself is listed.
        """
        below = [file for file in self._recorded_code if file.startswith(f"{path}/")]
        tracked = {file: self.blobs[file] for file in below if file in self.blobs}
        contents = dict(zip(tracked, _contents(self.root, tracked), strict=True))
        same = {file for file in tracked if closure.matches(contents[file], self._recorded_code[file])}
        return [file for file in below if file not in same] if below else [path]

    @cached_property
    def _recorded_code(self) -> dict[str, set[str]]:
        """File -> its digests in the records of the code that the stages ran; empty where DVC's cache lacks them."""
        digests: dict[str, set[str]] = {}
        for path, md5 in self.read_by_stages:
            if PurePosixPath(path).parent.name == "code" and self.holds(md5):
                record = closure.load(self.object(md5))
                for file, digest in (*record.code.items(), *record.data.items()):
                    digests.setdefault(file, set()).add(digest)
        return digests

    def _md5(self, path: str) -> str | None:
        """Return the MD5 of what this commit has at a path, as DVC computes it; None where it has nothing there."""
        under_dvc = self.outputs | self.added
        if path in under_dvc:
            return under_dvc[path]
        for folder, md5 in under_dvc.items():
            if path.startswith(f"{folder}/"):
                return _md5_at(path.removeprefix(f"{folder}/"), self.members(md5))
        return _md5_at(path, self._code)

    @cached_property
    def _code(self) -> dict[str, str]:
        """Path -> MD5, for every tracked file that the stages read."""
        read = {path for path, _ in self.read_by_stages}
        files = {
            path: blob for path, blob in self.blobs.items() if read & {path, *map(str, PurePosixPath(path).parents)}
        }
        md5s = (hashlib.md5(content).hexdigest() for content in _contents(self.root, files))
        return dict(zip(files, md5s, strict=True))

    def damage(self) -> list[str]:
        """List the objects of this commit that git is missing or that were altered."""
        result = _run(
            self.root, "git", "rev-list", "--objects", "--verify-objects", "--no-walk", "--quiet", self.commit
        )
        message = result.stderr.decode(errors="replace").strip()
        for path, blob in self.blobs.items():
            message = message.replace(blob, f"{blob} ({path})")
        faults = [f"git: {line}" for line in message.splitlines()]
        return faults or (["git cannot read it"] if result.returncode else [])

    def about(self) -> str:
        """Describe the commit: its time, its author and its title."""
        described = _git(self.root, "show", "--no-patch", "--format=%cI %cn: %s", self.commit)
        return described.decode(errors="replace").strip()


def releases(root: Path) -> dict[str, list[State]]:
    """Return every release that was a champion -> the commits that have it as champion, the oldest first.

    Raises:
        UserError: the project is not under git, or git's objects are damaged.
    """
    if (root / ".git").exists():
        _git(root, "rev-parse", "--git-dir")  # whose error is more precise than the next one
    if _run(root, "git", "rev-parse", "--verify", "--quiet", "HEAD").returncode:
        raise UserError(
            "git-no-commit", f"{root} is not under git, or has no commit: `git init`, `git add --all`, `git commit`"
        )
    commits = (
        _git(root, "log", "--topo-order", "--reverse", "--format=%H", "HEAD", "--branches", "--tags", "--remotes")
        .decode()
        .split()
    )
    prefix = _git(root, "rev-parse", "--show-prefix").decode().strip()
    queries = "".join(f"{commit}:{prefix}{MANIFEST}\n" for commit in commits)
    lines = _git(root, "cat-file", "--batch-check", stdin=queries.encode()).decode().splitlines()
    with_manifest = [
        (commit, line.split()[0]) for commit, line in zip(commits, lines, strict=True) if not line.endswith(" missing")
    ]
    blobs = {f"{MANIFEST} at {commit[:12]}": blob for commit, blob in with_manifest}
    contents = dict(zip(blobs.values(), _contents(root, blobs), strict=True))
    states: dict[str, list[State]] = {}
    for commit, blob in with_manifest:
        if contents[blob].strip() != b"{}":
            id = hashlib.sha256(contents[blob]).hexdigest()[:12]
            states.setdefault(id, []).append(State(root, commit, cache(root)))
    return states


def origin(states: Iterable[State]) -> State:
    """Return the first of a release's commits that has everything that made it; else the one that comes closest."""
    states = list(states)
    own_lock = [state for state in states if has_own_lock(state)]
    return next((state for state in own_lock if not state.disagreements), (own_lock or states)[0])


def has_own_lock(state: State) -> bool:
    """Whether a commit's dvc.lock comes from the run that made its champion, and not from a later one."""
    md5 = hashlib.md5(state.read(MANIFEST)).hexdigest()
    return LOCK in state.blobs and md5.encode() in state.read(LOCK)


def head(root: Path) -> State:
    """Return the project at the commit that is checked out."""
    return State(root, _git(root, "rev-parse", "HEAD").decode().strip(), cache(root))


def detached(root: Path) -> bool:
    """Whether a commit is checked out instead of a branch, so that the next commit is on no branch."""
    has_commit = _run(root, "git", "rev-parse", "--verify", "--quiet", "HEAD").returncode == 0
    return has_commit and _run(root, "git", "symbolic-ref", "--quiet", "HEAD").returncode == 1


def shallow(root: Path) -> bool:
    """Whether this is a shallow clone, which has only the last commits."""
    return _run(root, "git", "rev-parse", "--is-shallow-repository").stdout.strip() == b"true"


def uncommitted(root: Path, folder: str) -> list[str]:
    """List the files in a folder that have uncommitted changes; none where git fails."""
    status = _run(root, "git", "status", "--porcelain", "-z", "--", folder).stdout.decode(errors="replace")
    return [line[3:] for line in status.split("\0") if line[3:]]


def top(root: Path) -> Path:
    """Return the top folder of the git repository, which may contain more than the project."""
    return Path(_git(root, "rev-parse", "--show-toplevel").decode().strip())


def damaged(root: Path) -> str:
    """Return what `git fsck` finds wrong; "" if nothing is."""
    result = _run(root, "git", "fsck", "--no-dangling", "--no-progress")
    return "; ".join(result.stderr.decode(errors="replace").split("\n")[:3]) if result.returncode else ""


def unlike_params(stages: Mapping[str, Any], params: Any) -> list[str]:
    """List the values of params.yaml that differ from those that the stages ran with, as sentences."""
    differences = {}
    for stage in stages.values():
        for key, used in stage.get("params", {}).get("params.yaml", {}).items():
            try:
                value = reduce(getitem, key.split("."), params)
            except (KeyError, TypeError):
                value = None
            if value != used:
                differences[key] = (
                    f"{key} is {json.dumps(value)} in params.yaml, but the stages ran with {json.dumps(used)}"
                )
    return list(differences.values())


def params_stand(root: Path) -> bool:
    """Whether params.yaml in the working folder has the values that the stages last ran with."""
    return not unlike_params(lockfile.stages(root), _yaml((root / "params.yaml").read_bytes()))


def digest(path: Path, algorithm: str) -> str:
    """Return the digest of a file in hex. `algorithm`: such as "sha256"."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


cache = functools.cache(dvc_files.cache)


def _md5_at(path: str, files: Mapping[str, str]) -> str | None:
    """Return the MD5 of a file, or of a folder as DVC computes it from the folder's files."""
    below = dvc_files.below(files, path)
    return below.get("") or (dvc_files.folder_md5(below) if below else None)


def _contents(root: Path, files: Mapping[str, str]) -> Iterator[bytes]:
    """Yield the contents of files, given as path -> git's object.

    Raises:
        UserError: an object is missing or was altered.
    """
    try:
        batch = _git(root, "cat-file", "--batch", stdin="".join(f"{blob}\n" for blob in files.values()).encode())
    except UserError as error:
        named = [path for path, blob in files.items() if blob in str(error)]
        raise UserError(error.code, f"{named[0]}: {error}" if named else str(error)) from error
    start = 0
    for path, blob in files.items():
        line_end = batch.index(b"\n", start)
        size = int(batch[start:line_end].split()[2])
        content = batch[line_end + 1 : line_end + 1 + size]
        algorithm = "sha1" if len(blob) == 40 else "sha256"
        if hashlib.new(algorithm, b"blob %d\0" % size + content).hexdigest() != blob:
            raise UserError(
                "git-damaged", f"{path}: git's object {blob} has other bytes: `git fetch --refetch` gets it anew"
            )
        yield content
        start = line_end + 1 + size + 1


@functools.lru_cache(maxsize=64)
def _yaml(content: bytes) -> Any:
    from ruamel.yaml import YAML

    return YAML(typ="safe").load(content)


def _git(root: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    """Run git and return its standard output.

    Raises:
        UserError: it failed.
    """
    result = _run(root, "git", *arguments, stdin=stdin)
    if result.returncode:
        message = result.stderr.decode(errors="replace").strip()
        reason = refusal(message) or f"exit code {result.returncode}"
        raise UserError("git-failed", f"`git {arguments[0]}` failed in {root}: {reason}: correct that, and run again")
    return result.stdout


def refusal(message: str) -> str:
    """Summarize git's standard error in one line."""
    if match := re.search(r"dubious ownership in repository at '(.*)'", message):
        command = f"`git config --global --add safe.directory {match[1]}`"
        return f"{match[1]} is another user's repository: {command} lets git read it"
    return message.splitlines()[-1].strip() if message else ""


def _run(root: Path, *command: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, cwd=root, env=child_environment(), input=stdin, capture_output=True, check=False)
