"""A candidate for release: an exported model with its verdict, from the last run or from the champion in git."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from serving.triton import manifest as manifests
from serving.triton.manifest import Manifest
from serving.triton.names import Names
from serving.triton.repository import golden
from stages.core.errors import Misuse

NEEDED = ("verdict", "manifest", "repository", "answers", "times", "statistics")  # the outputs of a run


@dataclass(frozen=True)
class Candidate:
    """An exported model, its verdict, and its predictions for the golden rows when it was judged."""

    repository: Path
    manifest: Manifest
    verdict: Mapping[str, Any]
    golden: Mapping[str, Any]  # {output: [n, *shape]} as lists
    host: Mapping[str, Any] | None = None  # the host on which it was timed; None where that does not matter
    statistics: str = "{}\n"  # of its data, as JSON; releases of earlier versions have none

    @property
    def names(self) -> Names:
        """The names of its models."""
        return Names(self.manifest.name, self.manifest.id)


def exported(paths: Mapping[str, Path]) -> Candidate:
    """Return the candidate of the last run. `paths`: where the run's outputs lie, by name.

    Raises:
        Misuse: no run has finished.
        UserError: the exported files differ from their manifest.
    """
    if not all(paths[name].exists() for name in NEEDED):
        raise Misuse("verdict-missing", "the exported model has no verdict yet: `millrace run` makes one")
    manifest = manifests.load(paths["manifest"])
    manifests.check(paths["repository"], manifest)
    _, raw = golden(paths["repository"], Names(manifest.name, manifest.id))
    rows = len(next(iter(raw.values())))
    with np.load(paths["answers"] / "answers.npz", allow_pickle=False) as answers:
        golden_answers = {output: answers[output][:rows].tolist() for output in answers.files}
    times = _read(paths["times"])
    host = times["host"] if times["release"] == manifest.id else {}
    statistics = paths["statistics"].read_text(encoding="utf-8")
    return Candidate(paths["repository"], manifest, _read(paths["verdict"]), golden_answers, host, statistics)


def from_champion(root: Path) -> Candidate:
    """Return the release that git and DVC hold as the champion. On this host it must only answer as it did there.

    Raises:
        UserError: its files are not here, or differ from their manifest.
    """
    folder = root / "champion"
    if _read(folder / "manifest.json") == {}:
        raise Misuse(
            "champion-missing",
            "git has no released model: run `millrace release` on the host that trains, commit, and pull here",
        )
    if not (folder / "repository").exists():
        raise Misuse(
            "champion-not-pulled", "the released model's files are not here: run `dvc pull champion/repository.dvc`"
        )
    manifest = manifests.load(folder / "manifest.json")
    manifests.check(folder / "repository", manifest)
    champion = Candidate(folder / "repository", manifest, _read(folder / "verdict.json"), _read(folder / "golden.json"))
    statistics = folder / "statistics.json"
    return replace(champion, statistics=statistics.read_text(encoding="utf-8")) if statistics.exists() else champion


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
