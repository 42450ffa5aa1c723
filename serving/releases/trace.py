"""From a client's answer back to the data: every link on the way, held against its hash; and that state restored."""

from __future__ import annotations

import csv
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
from stages.core.cached import replacing
from stages.core.children import surroundings
from stages.core.errors import Misuse, UserError
from stages.gating.verdict import COMPARED, COST, DATA, SLICE

SINCE = ("verdict", "champion", "better", APPROVED)  # of a verdict: what the gate says otherwise after the release
VERDICT, GOLDEN = f"{CHAMPION}/verdict.json", f"{CHAMPION}/golden.json"
STATISTICS = f"{CHAMPION}/statistics.json"
REPOSITORY, POINTER = f"{CHAMPION}/repository", f"{CHAMPION}/repository.dvc"
FEW = 5  # faults of a link that are named
FETCH = "`dvc fetch --all-commits`"


@dataclass(frozen=True)
class Link:
    """One thing on the way back. `broken`: what is altered in git or DVC, `absent`: what is not here to be looked at,
    `copies`: what is altered in a working copy of it, whose original is sound."""

    what: str
    where: str
    hash: str = ""
    told: str = ""
    broken: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not (self.broken or self.absent or self.copies)


@dataclass(frozen=True)
class Trace:
    """The way back from a release."""

    release: str
    state: State
    links: list[Link]

    @property
    def holds(self) -> bool:
        return all(link.holds for link in self.links)


def named(answer: str) -> list[str]:
    """The releases that a saved answer names: an id, JSON, or a file of JSON, lines of JSON, CSV or Parquet.

    Raises:
        UserError: it names none.
    """
    path = Path(answer)
    if re.fullmatch("[0-9a-f]{12}", answer):
        return [answer]
    try:
        if answer.lstrip().startswith(("{", "[")):
            found = dict.fromkeys(_in_json(json.loads(answer)))
        elif path.exists():
            found = dict.fromkeys(_in_file(path))
        else:
            raise Misuse(f"{answer} is neither a release (12 hex digits), nor a file that is there, nor JSON")
    except (ValueError, OSError) as error:
        raise UserError(f"{answer} cannot be read as answers: {error}") from error
    releases = [release for release in found if release]
    if not releases:
        raise UserError(
            f"{answer} names no release: give answers that `millrace predict` or Triton gave, with `release`"
        )
    return releases


def follow(root: Path, store: Store, release: str) -> Trace:
    """The way back from a release, each link held against its hash.

    Raises:
        UserError: git does not know the release, or cannot be read.
    """
    states = git_history.releases(root)
    if release not in states:
        raise UserError(_unknown(root, store, release, list(states)))
    state = git_history.origin(states[release])
    made = Manifest(**json.loads(state.read(MANIFEST)))
    links = [*_champion(state, store, made, states[release]), *_made(state, made), *_roots(state)]
    return Trace(release, state, links)


def show(trace: Trace) -> None:
    """Print it: a table on a terminal, lines elsewhere; and on stderr whatever does not hold."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(title=f"release {trace.release}, the way back", title_justify="left")
        for heading in ("what", "where", "hash", "", ""):
            table.add_column(heading, overflow="fold")
        for link in trace.links:
            outcome = Text("holds", "green") if link.holds else Text("does not hold", "red")
            short = re.sub(r"\b([0-9a-f]{12})[0-9a-f]{20,}", r"\1…", link.hash)
            table.add_row(link.what, Text(link.where), short, Text(link.told), outcome)
        Console().print(table)
    else:
        for link in trace.links:
            print("  ".join(filter(None, (link.what, link.where, link.hash, link.told))))
    sound = sum(link.holds for link in trace.links)
    print(f"release {trace.release}: {sound} of {len(trace.links)} links hold", flush=True)
    for link in trace.links:
        faults = [*link.broken, *link.absent, *link.copies]
        for fault in [*faults[:FEW], *([f"and {len(faults) - FEW:,} more"] if len(faults) > FEW else [])]:
            print(f"error: {link.what}: {fault}", file=sys.stderr)


def restore(trace: Trace, folder: Path) -> None:
    """Check out, into a new folder, the state in which the release was made. It shares DVC's cache with the project.

    Raises:
        UserError: the folder is in use, or a link on the way does not hold.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Misuse(f"{folder} is there already: give --restore a new folder")
    faults = [fault for link in trace.links for fault in [*link.broken, *link.absent]]
    if faults:
        raise UserError(f"{trace.release} cannot be restored: {'; '.join(faults[:3])}")
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
        raise UserError(f"{root} is restored, but `dvc status` says that these changed: {', '.join(changed)}")
    print(f"restored to {root}: `dvc repro` has nothing to do there; `make run` there sets everything up and goes on")


def _champion(state: State, store: Store, made: Manifest, states: list[State]) -> Iterator[Link]:
    """What git holds of the release itself, and its served bytes; with the copies in champion/ and live/."""
    names, record = Names(made.name, made.id), store.record(made.id)
    is_champion = git_history.head(state.root).commit in [each.commit for each in states]
    lines = [line for line in ledger.lines(store.ledger) if line.get("release") == made.id]
    released = [line for line in lines if line["event"] == ledger.RELEASED]
    verdict = json.loads(state.read(VERDICT))

    def altered(path: str) -> list[str]:
        has = [each.read(path) for each in (state, states[-1])]  # released again, its verdict may be a later one
        copies = [state.root / path] * is_champion + [record / Path(path).name] * (record.exists() and path != POINTER)
        return [f"{copy} is not what git has" for copy in copies if _bytes(copy) not in has]

    told = f"of {made.name}" + "".join(f", released {line['time']} by {line['actor']}" for line in released[:1])
    strange = [] if git_history.made_here(state) else [f"commit {state.commit[:12]} has the dvc.lock of another run"]
    yield Link(
        "manifest", MANIFEST, f"sha256 {sha256(state.read(MANIFEST)).hexdigest()}", told, strange, [], altered(MANIFEST)
    )
    unlike = _unlike_gate(verdict, state, made)
    yield Link("verdict", VERDICT, _blob(state, VERDICT), _say_verdict(verdict, released), unlike, [], altered(VERDICT))
    yield Link("golden answers", GOLDEN, _blob(state, GOLDEN), copies=altered(GOLDEN))
    if STATISTICS in state.blobs and json.loads(state.read(STATISTICS)):  # older releases have none
        yield Link("statistics", STATISTICS, _blob(state, STATISTICS), copies=altered(STATISTICS))
    copies = altered(POINTER)
    link = _kept(state, "served files", REPOSITORY, state.added[REPOSITORY], {}, is_champion)
    broken = link.broken if link.broken or link.absent else _unlike_manifest(state, made)
    if record.exists():
        folders = parts(names) + ((names.public,) if store.current(names.public) == made.id else ())
        copies += [f"live/repository/{fault}" for fault in manifests.faults(store.repository, made, folders)]
    yield replace(link, broken=broken, copies=link.copies + copies)


def _made(state: State, made: Manifest) -> Iterator[Link]:
    """Every output of the stages, the last stage first."""
    sources = {
        state.paths.get(source, f"{state.paths['arrays']}/{source}"): hash for source, hash in made.sources.items()
    }
    here = lockfile.outputs(lockfile.stages(state.root))
    facts = {state.paths[name]: (file, say) for name, (file, say) in _FACTS.items()}
    names = {path: name for name, path in state.paths.items()}
    for path, md5 in reversed(state.made.items()):
        link = _kept(state, names.get(path, "output"), path, md5, sources, here.get(path) == md5)
        if path in facts and not (link.broken or link.absent):
            file, say = facts[path]
            report = state.object(state.members(md5)[file])
            link = replace(link, told=say(json.loads(report.read_bytes())))
        yield link


def _roots(state: State) -> Iterator[Link]:
    """What people brought: data, parameters, code, and the commit that holds them."""
    for path, md5 in state.raw.items():
        yield _kept(state, "raw data", path, md5, {}, md5.encode() in _bytes(state.root / f"{path}.dvc"))
    for name, stage in state.stages.items():
        values = stage.get("params", {}).get("params.yaml", {})
        if values:
            yield Link("params", f"params.yaml of {name}", "", json.dumps(values, ensure_ascii=False))
    code = {path for path, _ in state.read_by_stages if path not in state.made | state.raw}
    yield Link("code", f"{len(code)} files and folders", "", "as the stages read them", broken=state.disagreements)
    yield Link("git", f"commit {state.commit}", "", state.about(), broken=state.damage())


def _kept(state: State, what: str, path: str, md5: str, sources: Mapping[str, str], here: bool) -> Link:
    """A file or folder under DVC: the bytes in its cache and, where they should lie `here`, those too."""
    link = Link(what, path, f"md5 {md5}", broken=[], absent=[], copies=[])
    listing = state.object(md5)
    if not state.holds(md5):
        altered = f"{path}: {listing} in DVC's cache has other bytes: {replacing([listing], path)}"
        there = listing.exists()
        return replace(link, broken=[altered] * there, absent=[f"{path} is not here: {FETCH}"] * (not there))
    for inside, hash in state.members(md5).items():
        place, kept = f"{path}/{inside}" if inside else path, state.object(hash)
        copy = state.root / place
        if not kept.exists():
            link.absent.append(f"{place} is not here: {FETCH}")
        elif inside and not state.holds(hash):
            link.broken.append(f"{place}: {kept} in DVC's cache has other bytes: {replacing([kept], path)}")
            continue  # a checkout would bring the same bytes
        elif place in sources and digest(kept, "sha256") != sources[place]:
            link.broken.append(f"{place} is not what the manifest says that it came from")
        if here and (state.root / path).exists():
            if not copy.is_file():
                link.copies.append(f"{place} is missing here: `dvc checkout {path}`")
            elif digest(copy, "md5") != hash:
                link.copies.append(f"{place} has other bytes here: `dvc checkout --force {path}`")
    return link


def _unlike_manifest(state: State, made: Manifest) -> list[str]:
    """What the manifest says otherwise of the repository in DVC's cache."""
    with tempfile.TemporaryDirectory() as temporary:
        for inside, hash in state.members(state.added[REPOSITORY]).items():
            place = Path(temporary) / inside
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(state.object(hash))
        return [f"{fault}, says the manifest" for fault in manifests.faults(Path(temporary), made)]


def _unlike_gate(verdict: Mapping[str, Any], state: State, made: Manifest) -> list[str]:
    """Where the verdict is not on this release, or not the gate's: that has since seen the new champion, no more."""
    told = [] if verdict.get("release") == made.id else [f"it is on {verdict.get('release')}, not on {made.id}"]
    md5 = state.made.get(state.paths["verdict"], "")
    if md5 and state.holds(md5):
        gates = json.loads(state.object(md5).read_bytes())
        if _alone(gates) != _alone(verdict):
            told.append(f"it is not what the gate said ({state.paths['verdict']})")
    return told


def _alone(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """What a verdict says of the release itself: nothing that a champion has a part in."""
    own = [
        each
        for each in verdict["criteria"]
        if each.get("about") not in (COST, DATA) and not each["name"].startswith(COMPARED)
    ]
    said = {name: each for name, each in verdict.items() if name not in SINCE}
    return {**said, "criteria": own}


def _say_verdict(verdict: Mapping[str, Any], released: list[dict[str, Any]]) -> str:
    whole = [
        each for each in verdict["criteria"] if each.get("about") not in (DATA, SLICE) and each["value"] is not None
    ]
    values = [f"{each['name']} {each['value']:.4g}" for each in whole]
    override = [f"released in spite of it: {line['override']}" for line in released if "override" in line]
    approved = [f"approved by {verdict[APPROVED]['by']}: {verdict[APPROVED]['reason']}"] if APPROVED in verdict else []
    return ", ".join([verdict["verdict"], *approved, *override, *values])


def _say_metrics(metrics: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{split}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items() if "[" not in name)
        for split, values in metrics.items()
        if isinstance(values, dict)
    )


def _say_validation(report: Mapping[str, Any]) -> str:
    counted = ", ".join(f"{report[name]:,} {name}" for name in ("rows", "quarantined", "rejected"))
    return f"{report['outcome']}: {counted}"


def _say_arrays(summary: Mapping[str, Any]) -> str:
    return ", ".join(f"{rows:,} {split}" for split, rows in summary["rows"].items())


# Of which path, which file in it, and what it says in a line.
_FACTS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "metrics": ("", _say_metrics),
    "validation": ("validation.json", _say_validation),
    "arrays": ("summary.json", _say_arrays),
}


def _in_file(path: Path) -> Iterator[str]:
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        columns = ["release"] if "release" in pq.read_schema(path).names else []
        for column in pq.read_table(path, columns=columns).columns:
            yield from column.unique().to_pylist()
    elif path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            yield from (row.get("release") or "" for row in csv.DictReader(file))
    else:
        text = path.read_text(encoding="utf-8")
        try:
            yield from _in_json(json.loads(text))
        except ValueError:
            for line in text.splitlines():
                yield from _in_json(json.loads(line)) if line.strip() else ()


def _in_json(tree: Any) -> Iterator[str]:
    """Wherever it stands: under `release`, or as the output of that name in Triton's answers, ASCII codes or text."""
    if isinstance(tree, list):
        for one in tree:
            yield from _in_json(one)
    elif isinstance(tree, dict):
        if isinstance(tree.get("release"), str):
            yield tree["release"]
        elif tree.get("name") == "release":
            data = tree.get("data", [])
            if tree.get("datatype") == "UINT8":
                data = [bytes(data[first : first + 12]).decode("ascii") for first in range(0, len(data), 12)]
            yield from map(str, data)
        else:
            yield from _in_json(list(tree.values()))


def _unknown(root: Path, store: Store, release: str, known: list[str]) -> str:
    """Why a release cannot be traced."""
    champion = _bytes(root / MANIFEST)
    if store.record(release).exists() or (champion and sha256(champion).hexdigest()[:12] == release):
        return f"release {release} is not in git yet: commit champion, dvc.lock and params.yaml, as they were at it"
    if git_history.shallow(root):
        return f"release {release} is not in this shallow clone: `git fetch --unshallow` brings the earlier commits"
    damaged = git_history.damaged(root)
    told = f"git knows of no release {release}; it knows {', '.join(reversed(known)) or 'none'}"
    return f"{told}. Its own objects are damaged: {damaged}" if damaged else told


def _blob(state: State, path: str) -> str:
    return f"git {state.blobs[path]}"


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _call(folder: Path, *command: str) -> str:
    """What a command says.

    Raises:
        UserError: it failed.
    """
    done = subprocess.run(command, cwd=folder, env=surroundings(), text=True, capture_output=True)
    if done.returncode:
        raise UserError(f"`{' '.join(command)}` failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout
