"""Evidence to judge, and a folder in which the gate stage runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from stages import gate
from stages.evaluation.yardsticks import Yardsticks
from stages.gating.evidence import Estimate, Evidence, Policy
from stages.gating.verdict import judge
from stages.schema import Column, Schema
from stages.settings import params
from stages.tables.arrays import create_split
from tests.support.project import ROOT

MEASURED = {"accuracy": 0.97, "f1_macro": 0.96, "calibration_error": 0.02, "recall[3]": 0.9, "recall[8]": 0.7}
BOUNDS = {"accuracy": {"min": 0.95, "max": None}, "calibration_error": {"min": None, "max": 0.1}}
CHECKS = [
    {"name": "batches of 64", "holds": True, "max_delta": 1e-7},
    {"name": "counted", "holds": True, "max_delta": None},
]
CHANGES = [
    {"key": "image", "name": "flip", "what": "flip of image"},
    {"key": "image", "name": "shift", "what": "shift of image by 0.1"},
]
NO_CHAMPION = {"champion": None, "state": "none", "outcome": "no champion yet"}
ANSWERS = {"champion": "ba9876543210", "state": "answers", "outcome": "ba9876543210 answered 400 test samples"}
MARGINS = {"accuracy": 0.02}
COLUMNS = {
    "_source": ["a/0", "b/1", "a/1", "b/3", "b/4", "c/d/2"],
    "label": ["no", "x", "no", "/yes", "x", "/yes"],
    "image.brightness": [1.0, 9.0, 2.0, 2.0, 9.0, 50.0],
    "image.width": [8, 9, 8, 8, 9, 16],
    "hospital": ["Ulm", None, "Bonn", "Ulm", None, None],
    "age": ["30", "1", "40", "50", "1", "?"],
}
TEST_ROWS = np.array([0, 2, 3, 5])


def at_least(bound, metric="accuracy"):
    return {metric: {"min": bound, "max": None}}


def verdict(
    measured=MEASURED,
    bounds=BOUNDS,
    checks=CHECKS,
    p99_ms=5.0,
    p99_bound_ms=100.0,
    champion=NO_CHAMPION,
    differences=None,
    margins=MARGINS,
    level=0.05,
    controls=(),
    approval=(),
):
    estimates = {name: Estimate(value) for name, value in measured.items()}
    evidence = Evidence("0123456789ab", estimates, checks, p99_ms, champion, differences or {}, controls=controls)
    return judge(evidence, Policy(bounds, margins, level, p99_bound_ms, approval))


def reasons(verdict):
    """The reason of each criterion that fails, by name. Checks that each has one, and that the verdict fits."""
    failed = {criterion["name"]: criterion["reason"] for criterion in verdict["criteria"] if not criterion["holds"]}
    assert verdict["verdict"] == ("refuse" if failed else "pass")
    assert all(failed.values())
    return failed


def make_stage(folder: Path):
    """Write the gate stage's inputs, of four test rows with two classes, and return a function that runs it.

    Runs in `folder`, which must be the working directory. The third of the four predictions is wrong.
    """
    for file in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / file, folder)
    thresholds = {"accuracy": {"min": 0.7}, "recall[no]": {"min": 0.9}, "recall[/yes]": {"min": 0.1}}
    robustness = {"image": {"flip": {"max_changed": 0.0}, "shift": {"by": 0.1, "max_changed": 0.5}}}
    section = {"thresholds": thresholds, "p99_ms": 100.0, "slices": {}, "robustness": robustness}
    section["yardsticks"] = {"above_constant": False, "margin": 0.0}  # four rows show no gain
    params.edit({"gate": section, "schema": {"keep": ["hospital", "age"]}})
    answers, challenge, arrays = Path("answers"), Path("challenge"), Path("arrays")
    profile, released, before = Path("new.json"), Path("old.json"), Path("before.json")
    times, schema, table, written = Path("times.json"), Path("schema.json"), Path("table.parquet"), Path("verdict.json")
    for path in (profile, released, before):
        path.write_text("{}")
    Schema((), Column("opinion", "target_class", {}, {"labels": ["no", "/yes"], "counts": [2, 2]})).dump(schema)
    create_split(arrays / "test", TEST_ROWS, np.array([0, 0, 1, 1]), [])
    parquet.write_table(pa.table(COLUMNS), table)
    answers.mkdir()
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]], np.float32)
    np.savez(answers / "answers.npz", probabilities=probabilities)
    (answers / "parity.json").write_text(json.dumps({"release": "0123456789ab", "samples": 4, "checks": CHECKS}))
    shuffled = {"name": "labels shuffled", "what": "a model", "expected": "threshold", "inapplicable": ""}
    slow = {"name": "slow", "what": "a model", "expected": "latency", "inapplicable": "", "evidence": {"p99_ms": 201.0}}
    (answers / "controls.json").write_text(json.dumps({"controls": [shuffled | {"evidence": {}}]}))
    np.savez(answers / "controls.npz", **{"labels shuffled": probabilities[:, ::-1]})
    (answers / "changed.json").write_text(json.dumps({"changes": CHANGES}))
    np.savez(answers / "changed.npz", probabilities=np.array([probabilities, probabilities[::-1]]))
    simple, beside = {"constant": np.full((4, 2), 0.5, np.float32), "linear": probabilities}, Path("yardsticks.npz")
    Yardsticks(simple, "linear").save(beside)
    challenge.mkdir()
    (challenge / "challenge.json").write_text(json.dumps(NO_CHAMPION))
    np.savez(challenge / "answers.npz")

    def run(p99_ms, ratios=None, **edits):
        """Run the stage with a p99, latency ratios to the champion and edits of `gate`; return the verdict's bytes."""
        params.edit({"gate": edits})
        champion = None if ratios is None else {"bytes": 1000, "ratios": ratios}
        timed = {"one_client": {"p99_ms": p99_ms}, "slow": slow, "bytes": 1500, "champion": champion}
        times.write_text(json.dumps(timed))
        gate.main(answers, challenge, times, profile, released, arrays, schema, table, before, written, beside)
        return written.read_bytes()

    return run
