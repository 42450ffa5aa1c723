"""One table with a picture, numbers, a category and a text, through the whole pipeline."""

from __future__ import annotations

import csv
import json
import random
import sys

import numpy as np
import pytest

from serving.triton.launcher import find_server
from stages.core.errors import UserError
from tests.support.line import release, serving
from tests.support.project import clone

pytestmark = pytest.mark.slow

SIGHT = {"0": "round", "1": "thin", "7": "slanted"}
ROBUSTNESS = {
    "image": {"flip": {"max_changed": 1.0}},
    "remark": {"case": {"max_changed": 0.0}, "blanks": {"max_changed": 0.0}, "typos": {"by": 1.0, "max_changed": 1.0}},
    "category": {"missing": {"by": 0.5, "max_changed": 1.0}},
    "slant": {"noise": {"by": 0.5, "max_changed": 1.0}, "missing": {"by": 1.0, "max_changed": 1.0}},
}
SENTENCES = ["It looks {} to me.", "somewhat {}, I would say", "{}!", "A figure that is {}; written by hand."]


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    """A clone after a run on three digits, each with a sentence about its look."""
    try:
        find_server()
    except UserError as error:
        pytest.skip(str(error))
    made = clone(tmp_path_factory.mktemp("mixture") / "clone")
    made.run(sys.executable, "-m", "stages.fetch")
    chance, folder = random.Random(0), made.folder / "data/raw/mixed"
    folder.mkdir(parents=True)
    rows = []
    for label, word in SIGHT.items():
        (made.folder / "data/builtin/digits" / label).rename(folder / label)
        for path in sorted((folder / label).iterdir()):
            remark = chance.choice(SENTENCES).format(word) if chance.random() < 0.8 else ""
            pen = chance.choice(["ink", "pencil", ""])
            rows.append([f"{label}/{path.name}", remark, pen, chance.gauss(float(label), 4), "?", label])
    chance.shuffle(rows)
    rows[3][0] = "gone.png"
    rows[4][0] = "../../../params.yaml"
    rows[5][3] = "1,5"
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["picture", "remark", "pen", "slant", "empty", "digit"])
        writer.writerows(rows)
    features = {"picture": "image", "remark": "text", "pen": "category", "slant": "number"}
    made.params(
        data={"path": "data/raw/mixed", "format": "csv"},
        schema={"features": features, "target": {"digit": "class"}},
        model={
            "encoders": {"image": {"width": 8}, "text": {"size": 16}, "number": {"size": 4}, "category": {"size": 4}},
            "trunk": {"name": "residual", "width": 32, "depth": 1},
        },
        train={"epochs": 6, "batch_size": 32, "learning_rate": 0.005, "augment": {"image": {"shift": 0.1}}},
        measure={"requests": 20},
        gate={"thresholds": {"accuracy": {"min": 0.9}}, "slices": {}, "p99_ms": 1000.0, "robustness": ROBUSTNESS},
    )
    output = made.millrace("run")
    assert "pass: release" in output
    return made


def test_faulty_rows_are_named_with_their_column(line):
    rejects = (line.folder / "data/rejects.csv").read_text()
    assert rejects == (
        "source,reason\n"
        "table.csv row 5,cannot be read: No such file or directory\n"
        "table.csv row 6,../../../params.yaml lies outside the table's folder\n"
        "table.csv row 7,\"slant: '1,5' is not a number: write 1.5\"\n"
    )


def test_the_release_holds_the_code_of_its_kinds_only(line):
    names = {path.name for path in (line.folder / "models/repository").glob("*_encode/1/stages/schema/kinds/*.py")}
    assert names == {"__init__.py", "image.py", "text.py", "category.py", "number.py"}
    schema = json.loads((line.folder / "data/schema.json").read_text())
    assert [column["kind"] for column in schema["features"]] == ["image", "text", "category", "number"]


def test_every_perturbation_was_served(line):
    reports = line.folder / "reports"
    before, changed = (np.load(reports / "answers" / f"{name}.npz")["probabilities"] for name in ("answers", "changed"))
    described = json.loads((reports / "answers" / "changed.json").read_text())["changes"]
    assert [each["what"] for each in described] == [
        *("flip of image", "case of remark", "blanks of remark", "typos of remark by 1", "missing of category by 0.5"),
        *("noise of slant by 0.5", "missing of slant by 1"),
    ]
    moved = np.abs(changed - before).max((1, 2))
    assert moved[[1, 2]].max() < 1e-5 < moved[[0, 3, 4, 5, 6]].min()
    judged = json.loads((reports / "verdict.json").read_text())["criteria"]
    values = {each["name"]: each["value"] for each in judged if each["about"] == "robustness"}
    shares = (changed.argmax(2) != before.argmax(1)).mean(1)
    assert list(values.values()) == pytest.approx(shares.round(6)) and values["flip of image"] > 0


def test_tritons_client_sends_raw_values(line):
    import tritonclient.http as triton

    picture = min((line.folder / "data/raw/mixed/7").iterdir()).read_bytes()
    cells = {"picture": picture, "remark": b"that is slanted", "pen": b"chalk", "slant": 9.5}
    inputs = []
    for name, value in cells.items():
        number = isinstance(value, float)
        inputs.append(triton.InferInput(name, [1, 1], "FP64" if number else "BYTES"))
        inputs[-1].set_data_from_numpy(np.array([[value]], np.float64 if number else object))
    with serving(line) as address:
        client = triton.InferenceServerClient(address["http"])
        wanted = [triton.InferRequestedOutput("probabilities", class_count=1), triton.InferRequestedOutput("release")]
        answer = client.infer("digits", inputs, outputs=wanted)
        some = client.infer("digits", inputs[:1], outputs=wanted)  # all others may be missing
        client.close()
    assert answer.as_numpy("probabilities")[0, 0].decode().endswith(":7")
    assert bytes(answer.as_numpy("release")[0]).decode() == release(line)
    assert bytes(some.as_numpy("release")[0]).decode() == release(line)
