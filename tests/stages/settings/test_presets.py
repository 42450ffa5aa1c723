"""The presets: those for built-in data pass the gate, and served predictions equal the network's.

Adult, California housing and CLINC150 are trained for a few batches on part of their data, and skipped without it.
"""

from __future__ import annotations

import itertools
import json
import random

import numpy as np
import pandas as pd
import pytest

from serving.client import Client
from serving.client.model_info import Served, flat
from serving.triton import parity
from serving.triton.launcher import find_server, running
from stages.core.errors import UserError
from stages.schema import Schema, target_kind
from stages.settings import params
from stages.tables import table
from tests.support.line import release, serving
from tests.support.project import clone
from tests.support.real_data import DATA

pytestmark = pytest.mark.slow

ROWS = 1000


@pytest.fixture(scope="module", params=["breast-cancer", "diabetes"])
def line(request, tmp_path_factory):
    """The name of a preset, and a clone after `millrace run --preset`."""
    try:
        find_server()
    except UserError as error:
        pytest.skip(str(error))
    made = clone(tmp_path_factory.mktemp("preset") / "clone")
    made.params(measure={"requests": 20})
    output = made.millrace("run", "--preset", request.param)
    assert "pass: release" in output
    assert "boosted trees on the same rows: " in output
    return request.param, made


def part(name, folder):
    """A few thousand rows of a data set, in files of the original form."""
    if not (DATA / name).exists():
        pytest.skip(f"{DATA / name} is not there; MILLRACE_DATA names the folder that holds it")
    folder.mkdir(parents=True)
    for path in (DATA / name).iterdir():
        if path.suffix == ".csv":
            with path.open() as whole, (folder / path.name).open("w") as some:
                some.writelines(itertools.islice(whole, 4000))
        elif path.suffix == ".json":
            lists = json.loads(path.read_text())
            intents = sorted({intent for _, intent in lists["train"]})[:20]
            some = {split: [row for row in rows if row[1] in intents] for split, rows in lists.items()}
            (folder / path.name).write_text(json.dumps(some))


@pytest.fixture(scope="module", params=["adult", "california-housing", "clinc150"])
def learner(request, tmp_path_factory):
    """The name of a preset, and a clone that has exported a network after a few batches on part of the data."""
    try:
        find_server()
    except UserError as error:
        pytest.skip(str(error))
    made = clone(tmp_path_factory.mktemp("preset") / "clone")
    part(request.param, made.folder / "data/raw" / request.param)
    made.params(**params.preset(request.param))
    made.params(train={"debug": "fast"})
    made.run("dvc", "repro", "export")
    return request.param, made


def raw_rows(made, schema):
    """Random rows of the table, some with cells that are missing or that no training row has."""
    chance = random.Random(0)
    path = made.folder / "data/table.parquet"
    columns = {column.name: table.column(path, column.name).tolist() for column in schema.features}
    strange = {
        "number": [None, 0.0, -1e6, 1e9],
        "category": [None, "unheard of", "ß ☂"],
        "text": [None, "unheard of things", "☂?!", "word " * 500],
    }
    kinds = {column.name: column.kind for column in schema.features}
    count = len(next(iter(columns.values())))
    rows = [chance.randrange(count) for _ in range(ROWS)]
    return {
        name: [chance.choice(strange[kinds[name]]) if chance.random() < 0.1 else values[i] for i in rows]
        for name, values in columns.items()
    }


def test_every_control_is_refused_for_the_expected_reason(line):
    _, made = line
    controls = json.loads((made.folder / "reports/verdict.json").read_text())["controls"]
    spoiled = target_kind(Schema.load(made.folder / "data/schema.json").target.kind).SPOILED
    refused = [spoiled, "noise for weights", "one answer", "one row repeated", "slow"]
    assert {each["name"]: each["outcome"] for each in controls} == {
        **dict.fromkeys([*refused, "the constant answer"], "refused"),
        "itself": "no difference",
    }


def test_noise_on_numbers_is_served_and_changes_predictions_little(line):
    name, made = line
    judged = json.loads((made.folder / "reports/verdict.json").read_text())["criteria"]
    found = {each["name"]: each["value"] for each in judged if each["about"] == "robustness"}
    moved = {"breast-cancer": [], "diabetes": [": moved"]}[name]
    noise = f"noise of number by {0.05 if name == 'breast-cancer' else 0.1}"
    assert list(found) == [noise, *(noise + end for end in moved)]
    changed, own = (np.load(made.folder / f"reports/answers/{file}.npz") for file in ("changed", "answers"))
    assert all((changed[output][0] != own[output]).any(1).mean() > 0.9 for output in own)
    assert all(0.01 < found[noise + end] < 0.1 for end in moved)


def test_served_predictions_for_raw_rows_equal_the_networks(line):
    answered_alike(*line)


def test_served_predictions_of_large_presets_equal_the_networks(learner):
    answered_alike(*learner)


def answered_alike(name, made):
    """1,000 rows as dictionaries, a data frame and a CSV file, by the client, against the network."""
    import torch

    from stages.networks import network

    schema = Schema.load(made.folder / "data/schema.json")
    raw = raw_rows(made, schema)
    net = network.load(made.folder / "models/weights.safetensors", schema)
    with torch.no_grad():
        outputs = net.predict(net([torch.from_numpy(array) for array in schema.encode(raw).values()]))
    outputs = {output: array.numpy() for output, array in outputs.items()}
    expected = flattened(Served(schema, 1, f"{name}_{release(made)}").answers(outputs, probabilities=True))
    rows = [dict(zip(raw, cells, strict=True)) for cells in zip(*raw.values(), strict=True)]
    sent = [{column: value for column, value in row.items() if value is not None} for row in rows]
    frame = pd.DataFrame(raw)
    frame.to_csv(made.folder / "rows.csv", index=False)
    models = [name, f"{name}_{release(made)}"]
    with (
        running(made.folder / "models/repository", models, drain_s=0) as endpoint,
        Client(endpoint.grpc, name) as client,
    ):
        for inputs in (rows, sent, frame, made.folder / "rows.csv"):
            served = flattened(client.predict(inputs, probabilities=True))
            assert list(served.columns) == [*expected.columns, "answer_id"]
            assert served["answer_id"].is_unique
            assert set(served["release"]) == {release(made)}
            for output, tensor in schema.outputs().items():
                limit = parity.TOLERANCE * max(tensor.scale, float(np.abs(outputs[output]).max()))
                if tensor.labels:
                    each = served[[f"{output}[{label}]" for label in tensor.labels]].to_numpy()
                    assert parity.same_best(each, outputs[output])
            numbers = expected.select_dtypes("number").columns
            assert np.abs(served[numbers] - expected[numbers]).max(axis=None) <= limit


def flattened(answers):
    """Predictions as a frame of plain cells."""
    return answers if isinstance(answers, pd.DataFrame) else pd.DataFrame([flat(answer) for answer in answers])


def test_predict_takes_json_and_files(line):
    name, made = line
    target = json.loads((made.folder / "data/schema.json").read_text())["target"]["name"]
    header, *lines = (made.folder / "data/builtin" / name / "table.csv").read_text().splitlines()[:4]
    names = header.split(",")
    row = dict(zip(names, lines[0].split(","), strict=True))
    row.pop(target)
    path = made.folder / "ask.csv"
    path.write_text("\n".join([header, *lines, "," * (len(names) - 1)]) + "\n")
    with serving(made) as address:
        output = made.millrace("predict", json.dumps(row), str(path), "--server", address["grpc"])
        wrong = made.millrace("predict", "3", "--server", address["grpc"], code=1)
        misspelt = made.millrace("predict", '{"nonsense": 3}', "--server", address["grpc"], code=1)
    answers = [json.loads(line) for line in output.splitlines()]
    assert len(answers) == 5
    assert {answer["release"] for answer in answers} == {release(made)}
    own = {"input", "answer_id"}
    assert {key: value for key, value in answers[0].items() if key not in own} == {
        key: value for key, value in answers[1].items() if key not in own
    }
    assert answers[4]["input"] == f"{path} row 5"
    assert f"this model takes {len(names) - 1} columns: give '{{" in wrong
    assert "unknown column 'nonsense': this model takes " in misspelt
