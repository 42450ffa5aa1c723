"""Trace an answer back to its data: check each link on the way against its hash, and restore that state."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from serving.releases import git_history, ledger
from serving.releases.approval import APPROVED
from serving.releases.git_history import CHAMPION, MANIFEST, State, digest
from serving.releases.store import Store, parts
from serving.triton import manifest as manifests
from serving.triton.manifest import Manifest
from serving.triton.names import Names
from stages.core import lockfile
from stages.core.children import child_environment
from stages.core.dvc_files import replacement_advice
from stages.core.errors import Misuse, UserError
from stages.gating.verdict import COMPARED, COST, DATA, SLICE

SINCE = ("verdict", "champion", "better", APPROVED)  # the verdict's keys that change after the release
VERDICT, GOLDEN = f"{CHAMPION}/verdict.json", f"{CHAMPION}/golden.json"
STATISTICS = f"{CHAMPION}/statistics.json"
REPOSITORY, POINTER = f"{CHAMPION}/repository", f"{CHAMPION}/repository.dvc"
FEW = 5  # faults of a link that are printed
FETCH = "`dvc fetch --all-commits`"


@dataclass(frozen=True)
class Link:
    """One step of a trace, such as the weights or the raw data."""

    what: str
    where: str
    hash: str = ""
    detail: str = ""
    broken: list[str] = field(default_factory=list)  # what was altered in git or DVC
    absent: list[str] = field(default_factory=list)  # what is not here, and so cannot be checked
    copies: list[str] = field(default_factory=list)  # what was altered in a working copy; the original is intact

    @property
    def holds(self) -> bool:
        """Whether everything is here and unaltered."""
        return not (self.broken or self.absent or self.copies)


@dataclass(frozen=True)
class Trace:
    """The steps from a release back to its data."""

    release: str
    state: State
    links: list[Link]

    @property
    def holds(self) -> bool:
        """Whether every step holds."""
        return all(link.holds for link in self.links)


def follow(root: Path, store: Store, release: str) -> Trace:
    """Trace a release back to its data, and check each link against its hash.

    Raises:
        UserError: git does not know the release, or cannot be read.
    """
    states = git_history.releases(root)
    if release not in states:
        raise UserError("trace-unknown-release", _unknown(root, store, release, list(states)))
    state = git_history.origin(states[release])
    manifest = Manifest(**json.loads(state.read(MANIFEST)))
    links = [*_champion(state, store, manifest, states[release]), *_outputs(state, manifest), *_sources(state)]
    return Trace(release, state, links)


def show(trace: Trace) -> None:
    """Print a trace: as a table on a terminal, else as lines. What does not hold is printed on stderr."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(title=f"release {trace.release}, back to its data", title_justify="left")
        for heading in ("what", "where", "hash", "", ""):
            table.add_column(heading, overflow="fold")
        for link in trace.links:
            outcome = Text("holds", "green") if link.holds else Text("does not hold", "red")
            short = re.sub(r"\b([0-9a-f]{12})[0-9a-f]{20,}", r"\1…", link.hash)
            table.add_row(link.what, Text(link.where), short, Text(link.detail), outcome)
        Console().print(table)
    else:
        for link in trace.links:
            print("  ".join(filter(None, (link.what, link.where, link.hash, link.detail))))
    holding = sum(link.holds for link in trace.links)
    print(f"release {trace.release}: {holding} of {len(trace.links)} links hold", flush=True)
    for link in trace.links:
        faults = [*link.broken, *link.absent, *link.copies]
        for fault in [*faults[:FEW], *([f"and {len(faults) - FEW:,} more"] if len(faults) > FEW else [])]:
            print(UserError("trace-broken", f"{link.what}: {fault}").line, file=sys.stderr)


def check_new(folder: Path) -> None:
    """Check that nothing would be overwritten by restoring to a folder.

    Raises:
        Misuse: it holds files, or is one.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Misuse("trace-folder-exists", f"{folder} exists already: give --restore a new folder")


def restore(trace: Trace, folder: Path) -> None:
    """Check out the state in which a release was made into a new folder, which shares DVC's cache with the project.

    Raises:
        UserError: a link of the trace is broken or absent, or a command failed.
    """
    faults = [fault for link in trace.links for fault in [*link.broken, *link.absent]]
    if faults:
        raise UserError("trace-broken", f"{trace.release} needs these restored first: {'; '.join(faults[:3])}")
    state, folder = trace.state, folder.resolve()
    top = git_history.top(state.root)
    _call(top, "git", "clone", "--quiet", "--no-checkout", str(top), str(folder))
    _call(folder, "git", "checkout", "--quiet", "--detach", state.commit)
    root = folder / state.root.relative_to(top)
    dvc, of_release = (sys.executable, "-m", "dvc"), ("dvc.yaml", POINTER, *(f"{path}.dvc" for path in state.raw))
    _call(root, *dvc, "config", "--quiet", "--local", "cache.dir", str(state.cache))
    _call(root, *dvc, "checkout", "--quiet", *of_release)
    changed = json.loads(_call(root, *dvc, "status", "--json", *of_release))
    if changed:
        differ = f"but `dvc status` there says that these differ: {', '.join(changed)}"
        raise UserError("trace-not-restored", f"{root} is restored, {differ}")
    print(f"restored to {root}: `dvc repro` has nothing to do there; `make run` there sets everything up and goes on")


def _champion(state: State, store: Store, manifest: Manifest, states: list[State]) -> Iterator[Link]:
    """Link to the release in git and to its served files, with the copies of both in champion/ and live/."""
    names, record = Names(manifest.name, manifest.id), store.record(manifest.id)
    is_champion = git_history.head(state.root).commit in [later.commit for later in states]
    lines = [line for line in ledger.lines(store.ledger) if line.get("release") == manifest.id]
    released = [line for line in lines if line["event"] == ledger.RELEASED]
    verdict = json.loads(state.read(VERDICT))

    def altered(path: str) -> list[str]:
        originals = [made.read(path) for made in (state, states[-1])]  # a second release may have a later verdict
        copies = [state.root / path] * is_champion + [record / Path(path).name] * (record.exists() and path != POINTER)
        return [f"{copy} is not what git has" for copy in copies if _bytes(copy) not in originals]

    detail = f"of {manifest.name}" + "".join(f", released {line['time']} by {line['actor']}" for line in released[:1])
    broken = [] if git_history.has_own_lock(state) else [f"commit {state.commit[:12]} has the dvc.lock of another run"]
    hash = f"sha256 {sha256(state.read(MANIFEST)).hexdigest()}"
    yield Link("manifest", MANIFEST, hash, detail, broken, [], altered(MANIFEST))
    broken = _unlike_gate(verdict, state, manifest)
    detail = _describe_verdict(verdict, released)
    yield Link("verdict", VERDICT, _blob(state, VERDICT), detail, broken, [], altered(VERDICT))
    yield Link("golden answers", GOLDEN, _blob(state, GOLDEN), copies=altered(GOLDEN))
    if STATISTICS in state.blobs and json.loads(state.read(STATISTICS)):  # releases of earlier versions have none
        yield Link("statistics", STATISTICS, _blob(state, STATISTICS), copies=altered(STATISTICS))
    copies = altered(POINTER)
    link = _under_dvc(state, "served files", REPOSITORY, state.added[REPOSITORY], {}, is_champion)
    broken = link.broken if link.broken or link.absent else _unlike_manifest(state, manifest)
    if record.exists():
        folders = parts(names) + ((names.public,) if store.current(names.public) == manifest.id else ())
        copies += [f"live/repository/{fault}" for fault in manifests.faults(store.repository, manifest, folders)]
    yield replace(link, broken=broken, copies=link.copies + copies)


def _outputs(state: State, manifest: Manifest) -> Iterator[Link]:
    """Link to every output of the stages, the last stage first."""
    sources = {
        state.paths.get(source, f"{state.paths['arrays']}/{source}"): hash for source, hash in manifest.sources.items()
    }
    current = lockfile.outputs(lockfile.stages(state.root))
    reports = {state.paths[name]: report for name, report in _REPORTS.items()}
    names = {path: name for name, path in state.paths.items()}
    for path, md5 in reversed(state.outputs.items()):
        link = _under_dvc(state, names.get(path, "output"), path, md5, sources, current.get(path) == md5)
        if path in reports and not (link.broken or link.absent):
            file, describe = reports[path]
            report = state.object(state.members(md5)[file])
            link = replace(link, detail=describe(json.loads(report.read_bytes())))
        yield link


def _sources(state: State) -> Iterator[Link]:
    """Link to what people provided: data, parameters, code, and the commit that has them."""
    for path, md5 in state.raw.items():
        yield _under_dvc(state, "raw data", path, md5, {}, md5.encode() in _bytes(state.root / f"{path}.dvc"))
    for name, stage in state.stages.items():
        values = stage.get("params", {}).get("params.yaml", {})
        if values:
            yield Link("params", f"params.yaml of {name}", "", json.dumps(values, ensure_ascii=False))
    code = {path for path, _ in state.read_by_stages if path not in state.outputs | state.raw}
    yield Link("code", f"{len(code)} files and folders", "", "as the stages read them", broken=state.disagreements)
    yield Link("git", f"commit {state.commit}", "", state.about(), broken=state.damage())


def _under_dvc(state: State, what: str, path: str, md5: str, sources: Mapping[str, str], current: bool) -> Link:
    """Link to a file or folder under DVC.

    Args:
        state: the project's state.
        what: the link's title.
        path: the path in the project.
        md5: DVC's hash.
        sources: path -> SHA-256, as the release's manifest has it.
        current: whether the working folder should have the same bytes, so that they are checked too.
    """
    link = Link(what, path, f"md5 {md5}", broken=[], absent=[], copies=[])
    listing = state.object(md5)
    if not state.holds(md5):
        altered = f"{path}: {listing} in DVC's cache has other bytes: {replacement_advice([listing], path)}"
        exists = listing.exists()
        return replace(link, broken=[altered] * exists, absent=[f"{path} is not here: {FETCH}"] * (not exists))
    for inside, hash in state.members(md5).items():
        place, cached = f"{path}/{inside}" if inside else path, state.object(hash)
        copy = state.root / place
        if not cached.exists():
            link.absent.append(f"{place} is not here: {FETCH}")
        elif inside and not state.holds(hash):
            link.broken.append(
                f"{place}: {cached} in DVC's cache has other bytes: {replacement_advice([cached], path)}"
            )
            continue  # a checkout would bring the same bytes
        elif place in sources and digest(cached, "sha256") != sources[place]:
            link.broken.append(f"{place} is not the source that the manifest names")
        if current and (state.root / path).exists():
            if not copy.is_file():
                link.copies.append(f"{place} is missing here: `dvc checkout {path}`")
            elif digest(copy, "md5") != hash:
                link.copies.append(f"{place} has other bytes here: `dvc checkout --force {path}`")
    return link


def _unlike_manifest(state: State, manifest: Manifest) -> list[str]:
    """List how the repository in DVC's cache differs from the manifest."""
    with tempfile.TemporaryDirectory() as temporary:
        for inside, hash in state.members(state.added[REPOSITORY]).items():
            place = Path(temporary) / inside
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(state.object(hash))
        return [f"{fault}, according to the manifest" for fault in manifests.faults(Path(temporary), manifest)]


def _unlike_gate(verdict: Mapping[str, Any], state: State, manifest: Manifest) -> list[str]:
    """List the reasons why the verdict is not on this release, or is not the gate's.

    The gate has run again after the release, with the new champion, so only what does not depend on that is compared.
    """
    faults = [] if verdict.get("release") == manifest.id else [f"it is on {verdict.get('release')}, not {manifest.id}"]
    md5 = state.outputs.get(state.paths["verdict"], "")
    if md5 and state.holds(md5):
        gates = json.loads(state.object(md5).read_bytes())
        if _without_champion(gates) != _without_champion(verdict):
            faults.append(f"it differs from the gate's verdict ({state.paths['verdict']})")
    return faults


def _without_champion(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a verdict that does not depend on the champion."""
    criteria = [
        criterion
        for criterion in verdict["criteria"]
        if criterion.get("about") not in (COST, DATA) and not criterion["name"].startswith(COMPARED)
    ]
    return {**{name: value for name, value in verdict.items() if name not in SINCE}, "criteria": criteria}


def _describe_verdict(verdict: Mapping[str, Any], released: list[dict[str, Any]]) -> str:
    criteria = [
        criterion
        for criterion in verdict["criteria"]
        if criterion.get("about") not in (DATA, SLICE) and criterion["value"] is not None
    ]
    values = [f"{criterion['name']} {criterion['value']:.4g}" for criterion in criteria]
    override = [f"released in spite of it: {line['override']}" for line in released if "override" in line]
    approved = [f"approved by {verdict[APPROVED]['by']}: {verdict[APPROVED]['reason']}"] if APPROVED in verdict else []
    return ", ".join([verdict["verdict"], *approved, *override, *values])


def _describe_metrics(metrics: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{split}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items() if "[" not in name)
        for split, values in metrics.items()
        if isinstance(values, dict)
    )


def _describe_validation(report: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{report[name]:,} {name}" for name in ("rows", "quarantined", "rejected"))
    return f"{report['outcome']}: {counts}"


def _describe_arrays(summary: Mapping[str, Any]) -> str:
    return ", ".join(f"{rows:,} {split}" for split, rows in summary["rows"].items())


# Path name -> the file in it to read, and the function that describes it in a line.
_REPORTS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "metrics": ("", _describe_metrics),
    "validation": ("validation.json", _describe_validation),
    "arrays": ("summary.json", _describe_arrays),
}


def _unknown(root: Path, store: Store, release: str, releases: list[str]) -> str:
    """Return the reason why a release cannot be traced."""
    champion = _bytes(root / MANIFEST)
    if store.record(release).exists() or (champion and sha256(champion).hexdigest()[:12] == release):
        return f"release {release} is not in git yet: commit champion, dvc.lock and params.yaml as they were then"
    if git_history.shallow(root):
        return f"release {release} is not in this shallow clone: `git fetch --unshallow` brings the earlier commits"
    damaged = git_history.damaged(root)
    message = f"git knows of no release {release}; it knows {', '.join(reversed(releases)) or 'none'}"
    return f"{message}. Its own objects are damaged: {damaged}" if damaged else message


def _blob(state: State, path: str) -> str:
    return f"git {state.blobs[path]}"


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _call(folder: Path, *command: str) -> str:
    """Run a command and return its standard output.

    Raises:
        UserError: it failed.
    """
    result = subprocess.run(command, cwd=folder, env=child_environment(), text=True, capture_output=True, check=False)
    if result.returncode:
        message = (result.stderr or result.stdout).strip()
        raise UserError("trace-command-failed", f"`{' '.join(command)}` failed: {message}: then give a new --restore")
    return result.stdout
