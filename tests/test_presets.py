"""The presets that run offline: to a passing verdict, and to answers for raw values as the network gives them."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from conftest import clone
from test_line import release, serving

from serving.launcher import find_server
from stages import table
from stages.errors import UserError
from stages.schema import Schema

ROWS = 1000


@pytest.fixture(scope="module", params=["breast-cancer", "diabetes"])
def line(request, tmp_path_factory):
    """A clone after `millrace run --preset`, with the name."""
    try:
        find_server()
    except UserError as error:
        pytest.skip(str(error))
    made = clone(tmp_path_factory.mktemp("preset") / "clone")
    made.params(measure={"requests": 20})
    said = made.millrace("run", "--preset", request.param)
    assert "pass: release" in said
    assert "boosted trees on the same rows: " in said
    return request.param, made


def raw_rows(made, schema):
    """Rows of the table, drawn again and again, with cells that are missing or that no training row has."""
    chance = random.Random(0)
    path = made.folder / "data/table.parquet"
    columns = {column.name: table.column(path, column.name).tolist() for column in schema.features}
    strange = {"number": [None, 0.0, -1e6, 1e9], "category": [None, "unheard of", "ß ☂"]}
    kinds = {column.name: column.kind for column in schema.features}
    count = len(next(iter(columns.values())))
    rows = [chance.randrange(count) for _ in range(ROWS)]
    return {
        name: [chance.choice(strange[kinds[name]]) if chance.random() < 0.1 else values[i] for i in rows]
        for name, values in columns.items()
    }


def test_raw_rows_are_answered_as_the_network_answers_them(line):
    import torch

    from serving import client as clients
    from stages.networks import network

    name, made = line
    schema = Schema.load(made.folder / "data/schema.json")
    raw = raw_rows(made, schema)
    net = network.load(made.folder / "models/weights.safetensors", schema)
    with torch.no_grad():
        expected = net.answer(net([torch.from_numpy(array) for array in schema.encode(raw).values()]))
    with serving(made) as address, clients.connected(address["grpc"]) as client:
        parts = []
        for first in range(0, ROWS, 50):
            cells = {column: values[first : first + 50] for column, values in raw.items()}
            parts.append(clients.ask(client, name, schema, cells))
        some = {column: [None] for column in list(raw)[:3]}
        unsent = clients.ask(client, name, schema, {column: raw[column][:1] for column in list(raw)[3:]})
        blank = clients.ask(client, name, schema, {column: raw[column][:1] for column in list(raw)[3:]} | some)
    for output, tensor in schema.outputs().items():
        served = np.concatenate([part[output] for part in parts])
        limit = 1e-5 * max(tensor.scale, float(np.abs(expected[output].numpy()).max()))
        assert np.abs(served - expected[output].numpy()).max() <= limit
        assert np.array_equal(unsent[output], blank[output])  # a column that is not sent is a missing one


def test_people_ask_with_json_and_with_a_file(line):
    name, made = line
    target = json.loads((made.folder / "data/schema.json").read_text())["target"]["name"]
    header, *lines = (made.folder / "data/builtin" / name / "table.csv").read_text().splitlines()[:4]
    names = header.split(",")
    row = dict(zip(names, lines[0].split(","), strict=True))
    row.pop(target)
    asked = made.folder / "ask.csv"
    asked.write_text("\n".join([header, *lines, "," * (len(names) - 1)]) + "\n")
    with serving(made) as address:
        said = made.millrace("predict", json.dumps(row), str(asked), "--server", address["grpc"])
        wrong = made.millrace("predict", "3", "--server", address["grpc"], code=1)
        misspelt = made.millrace("predict", '{"nonsense": 3}', "--server", address["grpc"], code=1)
    answers = [json.loads(line) for line in said.splitlines()]
    assert len(answers) == 5
    assert {answer["release"] for answer in answers} == {release(made)}
    assert {key: value for key, value in answers[0].items() if key != "input"} == {
        key: value for key, value in answers[1].items() if key != "input"
    }
    assert answers[4]["input"] == f"{asked} row 5"
    assert f"this model takes {len(names) - 1} columns: give '{{" in wrong
    assert "unknown column 'nonsense': this model takes " in misspelt
