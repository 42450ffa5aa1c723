"""`millrace predict` against a real Triton with an untrained network."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.support.project import ROOT, environment
from tests.support.toy_client import LABELS, MAX_BATCH, OLD, Toy


def predict(toy: Toy, folder: Path, *arguments: str, code: int = 0) -> tuple[list[dict[str, Any]], str]:
    """Run `millrace predict --model toy` outside of any project; return its answers and its standard error."""
    command = [sys.executable, "-m", "flows.cli", "predict", "--server", toy.endpoint.grpc, "--model", "toy"]
    result = subprocess.run([*command, *arguments], cwd=folder, env=environment(ROOT), capture_output=True, text=True)
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()], result.stderr


TABLE = [
    {"town": "Ulm", "amount": "3"},
    {"town": "?", "amount": ""},
    {"town": "Bonn", "amount": "many"},
    {"town": "unheard of", "amount": "NA"},
]


def test_tables_in_every_format_get_the_same_answers(toy: Toy, tmp_path: Path) -> None:
    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "town", "amount"])
        writer.writeheader()
        writer.writerows({"id": i, **row} for i, row in enumerate(TABLE))
    stored = [{"town": "Ulm", "amount": 3.0}, {}, None, {"town": "unheard of"}]
    sent = [row if row is not None else {"town": "Bonn", "amount": "many"} for row in stored]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sent))
    answers, output = predict(toy, tmp_path, "t.csv", "t.jsonl", "--probabilities", code=1)
    assert [answer["input"] for answer in answers[:3]] == ["t.csv row 2", "t.csv row 3", "t.csv row 5"]
    assert "error: t.csv row 4: amount: 'many' is not a number" in output
    assert "error: t.jsonl row 3: amount: 'many' is not a number" in output
    assert "t.csv has no remark: missing in every row" in output
    expected = toy.expected([row for row in stored if row is not None] * 2)
    served = np.array([[answer["probabilities"][label] for label in LABELS[OLD]] for answer in answers])
    assert np.abs(served - expected).max() <= 1e-5


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_answers_are_written_row_by_row(toy: Toy, tmp_path: Path, ending: str) -> None:
    amounts = [*range(5 * MAX_BATCH), "x", *range(3)]
    (tmp_path / "t.csv").write_text("\n".join(["amount", *map(str, amounts)]) + "\n")
    printed, _ = predict(toy, tmp_path, "t.csv", "--output", f"out.{ending}", code=1)
    assert printed == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"out.{ending}", "t.csv"]
    if ending == "parquet":
        written = pq.read_table(tmp_path / "out.parquet").to_pylist()
    elif ending == "csv":
        with (tmp_path / "out.csv").open(newline="") as file:
            written = [{name: cell or None for name, cell in row.items()} for row in csv.DictReader(file)]
    else:
        written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["input"] for row in written] == [f"t.csv row {number}" for number in range(2, len(amounts) + 2)]
    faulty = [row for row in written if row.get("error")]
    assert [(row["input"], row["error"]) for row in faulty] == [("t.csv row 42", "amount: 'x' is not a number")]
    expected = toy.expected([{"amount": None if amount == "x" else float(amount)} for amount in amounts])
    for row, probabilities in zip(written, expected, strict=True):
        if not row.get("error"):
            assert row["release"] == OLD
            assert row["label"] == LABELS[OLD][probabilities.argmax()]
            assert abs(float(row["probability"]) - probabilities.max()) <= 1e-5


def test_a_projects_options_describe_how_tables_are_written(toy: Toy, fresh: Any) -> None:
    """Without a header row, with other delimiters and missing values, with and without the target's column."""
    options = {"columns": ["town", "amount", "answer"], "delimiter": ";", "missing": ["-"], "replace": {"B.": "Bonn"}}
    options |= {"decimal": ",", "thousands": "."}
    features = {"town": "category", "amount": "number"}
    fresh.params(
        data={"format": "csv", "options": options},
        schema={"features": features, "target": {"answer": "class"}},
        gate={"slices": {}},
    )
    (fresh.folder / "with.csv").write_text("B.;1.003,5;yes\n-;-;no\n")
    (fresh.folder / "without.csv").write_text("B.;1003,5\n-;-\n")
    (fresh.folder / "headed.csv").write_text("amount;town\n1.003,5;B.\n-;-\n")
    values = ["with.csv", "without.csv", "headed.csv", '{"town": "Bonn", "amount": 1003.5}', "{}"]
    output = fresh.millrace("predict", "--server", toy.endpoint.grpc, "--model", "toy", *values)
    answers = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert len(answers) == 8
    probabilities = [answer["probability"] for answer in answers]
    assert probabilities[0::2] == pytest.approx([probabilities[0]] * 4, abs=1e-6)
    assert probabilities[1::2] == pytest.approx([probabilities[1]] * 4, abs=1e-6)
    assert abs(probabilities[0] - probabilities[1]) > 1e-5


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{"], 1, "error: {: is not JSON"),
        (['{"ammount": 1}'], 1, "unknown column 'ammount': did you mean 'amount'?"),
        ([""], 2, "an input is empty"),
        (["gone.csv"], 1, "gone.csv cannot be read: there is no such file"),
        (["misspelt.csv"], 1, "misspelt.csv has no column 'amount': rename 'ammount', if it is that column"),
        (["other.csv"], 1, "other.csv has none of the model's columns: amount, town, remark"),
        (["empty.csv"], 1, "empty.csv: there is no row to predict"),
        (["broken.jsonl"], 1, "broken.jsonl cannot be read: its first row is not JSON"),
        (["3"], 1, 'this model takes 3 columns: give \'{"amount": ..., '),
        (["{}", "--output", "out.txt"], 2, "--output out.txt must end in .csv, .parquet, .jsonl"),
        (["{}", "--output", "nowhere/out.csv"], 2, "[predict-no-folder]"),
        (["{}", "--server", "nonsense"], 2, "'nonsense' is not the address of a server"),
        (["{}", "--model", "tyo"], 1, "unknown model: 'tyo'"),
        (["{}", "--server", "127.0.0.1:9"], 1, "no model answers at 127.0.0.1:9 by gRPC"),
        (["{}", "--model", ""], 2, "name the model with --model"),
    ],
)
def test_mistakes_are_reported_in_one_line(
    toy: Toy, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    (tmp_path / "misspelt.csv").write_text("ammount,town\n1,Ulm\n")
    (tmp_path / "other.csv").write_text("x,y\n1,2\n")
    (tmp_path / "empty.csv").write_text("amount,town,remark\n")
    (tmp_path / "broken.jsonl").write_text("{\n")
    answers, output = predict(toy, tmp_path, *arguments, code=code)
    assert answers == []
    assert words in output
    assert not (tmp_path / "out.txt").exists()


def test_an_input_is_not_overwritten(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("amount\n1\n")
    _, message = predict(toy, tmp_path, "t.csv", "--output", "./t.csv", code=2)
    assert "is one of the inputs" in message
    assert (tmp_path / "t.csv").read_text() == "amount\n1\n"


def test_words_that_the_model_does_not_know_are_counted_and_warned_of(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("amount,town\n1,Ulm\n2,ulm\n3,ulm\n4,\n5,Bonn\n6,Aix\n")
    answers, output = predict(toy, tmp_path, "t.csv")
    assert [answer.get("unknown_words") for answer in answers] == [None, *[{"town": 1}] * 2, None, None, {"town": 1}]
    assert "warning: town: the model knows none of 'ulm' (2), 'Aix' (1): 3 of 5 words (60%) are unknown to it" in output
    (tmp_path / "known.csv").write_text("amount,town\n1,Ulm\n2,Bonn\n")
    _, output = predict(toy, tmp_path, "known.csv", "--output", "out.csv")
    assert "town" not in output
