"""Timestamps: reading, encoding, the exported graph, and equal bytes in the server's environment."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from flows.intake import guess
from stages.export import to_onnx
from stages.networks.network import Network, resolve
from stages.schema import Column, Schema
from stages.schema.kinds import timestamp
from stages.validation.expectations import timestamp as expectations
from tests.support.project import ROOT

DAYS = [str(datetime(2020, 1, 1) + timedelta(days=3.1 * number)) for number in range(400)]
TARGET = Column("label", "target_class", {}, {"labels": ["a", "b"], "counts": [3, 4]})
SCHEMA = Schema(
    tuple(
        Column(name, "timestamp", {}, timestamp.fit([DAYS, [None]], timestamp.Options())) for name in ("sold", "sent")
    ),
    TARGET,
)
RAW = {"sold": [*DAYS[:4], None, "0001-01-01"], "sent": ["1700000000", None, *DAYS[-3:], "9999-12-31T23:59:59-12:00"]}


@pytest.mark.parametrize(
    "text",
    [
        "2024-02-29T18:00:00+00:00",
        "2024-02-29 18:00",
        "2024-02-29T18:00Z",
        "2024-02-29T18:00:00.999999999",
        "2024-02-29 18:00:00 +0000",
        "1709229600",
        "1709229600.0",
        1709229600,
        datetime(2024, 2, 29, 18),
    ],
)
def test_timestamps_are_read(text):
    array = timestamp.transform([timestamp.raw(text)], {})
    assert array.dtype == np.float32 and array.shape == (1, 7)
    week, year = (2 * math.pi * share for share in ((3 + 0.75) / 7, (59 + 0.75) / 366))
    expected = [-1, 0, math.sin(week), math.cos(week), math.sin(year), math.cos(year), 8825.75]
    assert array[0] == pytest.approx(expected, abs=2e-6)


def test_phases_are_of_the_local_time_and_the_trend_is_in_utc():
    here, there = timestamp.transform(["2024-02-29T18:00", "2024-02-29T18:00+06:00"], {})
    assert here[:6].tolist() == there[:6].tolist()
    assert here[6] - there[6] == 0.25


@pytest.mark.parametrize("value", [None, "", " ", math.nan])
def test_blank_and_nan_are_missing_timestamps(value):
    assert timestamp.raw(value) is None
    assert np.isnan(timestamp.transform([None], {})).all()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("soon", "'soon' is not an ISO date or timestamp, such as 2024-12-31T23:59"),
        ("31.12.2024", "is not an ISO date"),
        ("2023-02-29", "'2023-02-29' is not a time: day"),
        ("20240229", "is not an ISO date"),
        (2024, "is not an ISO date"),
        (1709229600000, "write 1709229600, seconds"),
        ("inf", "is not an ISO date"),
        ("x" * 99, "x...' is not an ISO date"),
    ],
)
def test_values_that_are_not_timestamps_are_an_error(value, words):
    with pytest.raises(ValueError) as caught:
        timestamp.raw(value)
    assert words in str(caught.value)


def test_a_timestamp_is_fitted_to_the_values_that_are_not_missing():
    fitted = SCHEMA.features[0].fitted
    days = timestamp.transform(DAYS, {})[:, 6]
    assert fitted["mean"] == pytest.approx([0] * 6 + [days.mean()]) and fitted["std"][6] == pytest.approx(days.std())
    assert timestamp.fit([["2024-01-01"]], timestamp.Options())["std"] == [1.0] * 7
    with pytest.raises(ValueError, match=r"every training value is missing: take the column out of schema\.features"):
        timestamp.fit([[None]], timestamp.Options())


@pytest.mark.slow
def test_the_exported_graph_equals_the_network():
    torch.manual_seed(0)
    built = Network(SCHEMA, resolve(SCHEMA, {})).eval()
    (x,) = SCHEMA.encode(RAW).values()
    assert x.shape == (6, 14)
    with torch.no_grad():
        expected = built.predict(built([torch.from_numpy(x)]))["probabilities"].numpy()
    session = onnxruntime.InferenceSession(to_onnx(built, SCHEMA))
    for rows in (slice(0, 6), slice(4, 5)):
        (answered,) = session.run(None, {"timestamp": x[rows]})
        assert np.abs(answered - expected[rows]).max() < 1e-5


def test_an_encoder_of_quantiles_rejects_timestamps():
    with pytest.raises(ValueError, match="the block 'timestamp' has no fitted knots for each column"):
        Network(SCHEMA, resolve(SCHEMA, {"encoders": {"timestamp": {"name": "piecewise"}}}))


def test_a_column_of_dates_is_guessed():
    assert guess.guess_feature("sold", DAYS).kind == "timestamp"
    assert (
        guess.guess_feature("stock", [str(number) for number in range(1_700_000_000, 1_700_000_300, 3)]).kind
        == "number"
    )


def test_years_are_validated():
    assert timestamp.facts(["2024-01-01", None])["year"].tolist() == pytest.approx([2024, math.nan], nan_ok=True)
    assert [kwargs["column"] for _, kwargs in expectations.expectations("sold", expectations.Options())] == [
        "sold",
        "sold.year",
    ]
    with pytest.raises(ValueError, match="min_year 3 is over max_year 2"):
        expectations.Options(min_year=3, max_year=2)
    with pytest.raises(ValueError, match="max_missing must be between 0 and 1, not 2"):
        expectations.Options(max_missing=2)


def test_the_servers_environment_gives_the_same_bytes(tmp_path):
    server = Path(os.environ.get("MILLRACE_TRITON", ROOT / ".venv-triton")) / "bin" / "python"
    if not server.exists():
        pytest.skip(f"there is no {server}")
    (tmp_path / "days.json").write_text(json.dumps([*DAYS, None, *RAW["sent"]]))
    code = (
        "import hashlib, json, sys; from stages.schema.kinds import timestamp\n"
        "array = timestamp.transform(json.load(open(sys.argv[1])), {})\n"
        "print(array.dtype, array.shape, hashlib.sha256(array.tobytes()).hexdigest())"
    )
    outputs = {
        subprocess.run(
            [python, "-c", code, str(tmp_path / "days.json")], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        for python in (sys.executable, str(server))
    }
    assert len(outputs) == 1
