"""Texts: words, codes, facts, encoders that ignore padding, and equal bytes in the server's environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from stages.export import to_onnx
from stages.networks.network import Network, resolve
from stages.schema import Column, Schema
from stages.schema.kinds import category, number, text
from stages.validation.expectations import text as expectations
from tests.support.project import ROOT

TEXTS = ["Play some jazz!", "play the news", "what's the time, please", "play jazz at 7", ""] * 3
STRANGE = ["☂☂ 🎷", "x" * 1_000_000, "PLAY\n\tjazz", "Cafe\u0301 at 12", None, "", "日本語 play", "ǅ İ ß", "a_b-c's"]
FITTED = text.fit([TEXTS], text.Options())
TARGET = Column("intent", "target_class", {}, {"labels": ["a", "b"], "counts": [3, 4]})
SCHEMA = Schema((Column("said", "text", {}, FITTED),), TARGET)
SPECS = {name: {"encoders": {"text": {"name": name, "size": 16}}} for name in ("gru", "transformer", "bag")}


def network(spec):
    torch.manual_seed(0)
    return Network(SCHEMA, resolve(SCHEMA, spec)).eval()


def test_words_are_letters_digits_and_signs():
    assert text.words("What's the Time, at 12?", 99) == ["what", "'", "s", "the", "time", ",", "at", "1", "2", "?"]
    assert text.words("Cafe\u0301", 9) == text.words("Café", 9) == ["café"]
    assert text.words("a b c d", 2) == ["a", "b"]
    assert text.words("🎷 ☂", 9) == ["🎷", "☂"]


def test_words_have_codes_by_frequency_and_rare_ones_are_unknown():
    fitted = text.fit([["b a b", "b c"], ["a a", None]], text.Options())
    assert fitted == {"codes": {"a": 3, "b": 4}, "size": 5, "length": 3}
    codes = text.transform(["b new c a", None, "🎷"], fitted)
    assert codes.dtype == np.int32
    assert codes.tolist() == [[2, 4, 1, 1], [2, 0, 0, 0], [2, 1, 0, 0]]


def test_a_long_text_is_truncated_before_it_is_split():
    assert text.transform(["word " * 200_000, "x" * 5_000_000], FITTED).shape == (2, 1 + FITTED["length"])


def test_fitting_texts_without_words_is_an_error():
    with pytest.raises(ValueError, match=r"no training text has a word: take the column out of schema\.features"):
        text.fit([["", None, "  "]], text.Options())


def test_facts_of_a_text():
    facts = text.facts(["ab cd", None, "日本", "über 1"])
    assert facts["length"].tolist() == [5, 0, 2, 6]
    assert facts["words"].tolist() == [2, 0, 1, 2]
    assert facts["script"].tolist() == ["LATIN", None, "CJK", "LATIN"]
    assert {name: values.dtype for name, values in text.facts([]).items()} == {
        name: values.dtype for name, values in facts.items()
    }


@pytest.mark.parametrize("value", [None, "", "  ", float("nan")])
def test_blank_and_nan_are_missing_texts(value):
    assert text.raw(value) is None


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_padding_does_not_change_the_output(spec):
    built = network(spec)
    codes = torch.from_numpy(text.transform(["play jazz", "play the news please"], FITTED))
    assert (codes[0] == 0).any()
    encoder = built.encoders[0]
    if spec["encoders"]["text"]["name"] == "transformer":
        encoder.place.data = encoder.place.data[:, : codes.shape[1]]
    shorter = codes[:1, :3]
    if spec["encoders"]["text"]["name"] != "transformer":
        assert torch.allclose(encoder(codes)[:1], encoder(shorter), atol=1e-6)
    other = codes.clone()
    alone = encoder(codes[:1])
    with torch.no_grad():
        encoder.words.table.weight[0] += 5  # what padding would be worth
    assert torch.allclose(encoder(other)[:1], alone, atol=1e-5)


@pytest.mark.parametrize(("name", "matters"), [("gru", True), ("transformer", True), ("bag", False)])
def test_the_order_of_words_matters_unless_they_are_a_bag(name, matters):
    built = network(SPECS[name])
    one, two = (text.transform([words], FITTED) for words in ("play the news", "news the play"))
    same = torch.allclose(built([torch.from_numpy(one)]), built([torch.from_numpy(two)]), atol=1e-4)
    assert same != matters


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_exported_graph_equals_the_network(spec):
    built = network(spec)
    session = onnxruntime.InferenceSession(to_onnx(built, SCHEMA))
    (x,) = SCHEMA.encode({"said": TEXTS[:5] + STRANGE}).values()
    with torch.no_grad():
        expected = built.predict(built([torch.from_numpy(x)]))["probabilities"].numpy()
    for rows in (slice(0, 14), slice(3, 4), slice(9, 12)):
        (answered,) = session.run(None, {"said": x[rows]})
        assert np.abs(answered - expected[rows]).max() < 1e-5


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_every_weight_has_a_gradient(spec):
    built = network(spec)
    (x,) = SCHEMA.encode({"said": TEXTS[:5]}).values()
    built.head.loss(built([torch.from_numpy(x)]), torch.tensor([0, 1, 0, 1, 0])).backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in built.parameters())


def test_an_encoder_of_words_rejects_other_blocks():
    schema = Schema((Column("x", "number", {}, number.fit([[1.0, 2.0]], number.Options())),), TARGET)
    with pytest.raises(ValueError, match="the block 'number' holds no words: give it another encoder"):
        Network(schema, resolve(schema, {"encoders": {"number": {"name": "gru"}}}))


def test_the_servers_environment_gives_the_same_bytes(tmp_path):
    server = Path(os.environ.get("MILLRACE_TRITON", ROOT / ".venv-triton")) / "bin" / "python"
    if not server.exists():
        pytest.skip(f"there is no {server}")
    numbers = [1.5, None, -0.0, 1e-30, 3e38, 0.1]
    words = ["a", "ß", None, "new", "", "a"]
    schema = Schema(
        (
            SCHEMA.features[0],
            Column("n", "number", {}, number.fit([numbers], number.Options())),
            Column("w", "category", {}, category.fit([["a", "a", "ß", "ß"]], category.Options(buckets=5))),
        ),
        TARGET,
    )
    schema.dump(tmp_path / "schema.json")
    count = len(STRANGE)
    raw = {"said": STRANGE, "n": (numbers * 2)[:count], "w": (words * 2)[:count]}
    (tmp_path / "raw.json").write_text(json.dumps(raw))
    code = (
        "import hashlib, json, sys; from pathlib import Path; from stages.schema import Schema\n"
        "here = Path(sys.argv[1])\n"
        "arrays = Schema.load(here / 'schema.json').encode(json.loads((here / 'raw.json').read_text()))\n"
        "print(hashlib.sha256(b''.join(array.tobytes() for array in arrays.values())).hexdigest())"
    )
    outputs = {
        python: subprocess.run(
            [python, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        for python in (sys.executable, str(server))
    }
    assert len(set(outputs.values())) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"min_length": 5, "max_length": 4}, "min_length 5 must be between 0 and max_length 4"),
        ({"max_missing": 2}, "max_missing must be between 0 and 1, not 2"),
        ({"scripts": ("Latn",)}, "scripts: no letter's Unicode name begins with 'Latn': try LATIN, GREEK or CJK"),
        ({"regex": "["}, "regex '[' is not valid: "),
    ],
)
def test_invalid_expectations_are_an_error(options, words):
    with pytest.raises(ValueError) as caught:
        expectations.Options(**options)
    assert words in str(caught.value)
