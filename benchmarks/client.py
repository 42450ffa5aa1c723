"""The overhead of our client: single rows over gRPC, one after another, relative to tritonclient alone."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc

from benchmarks import workspace
from serving.client import Client
from serving.triton import manifest
from serving.triton.launcher import running
from stages.schema import Schema
from stages.tables import table

STAGES = ("fetch", "ingest", "validate", "prepare", "train", "export")
ROUNDS, REQUESTS = 9, 300


def main() -> list[dict[str, Any]]:
    """An image, and a row of ten numbers."""
    return [measure("digits"), measure("diabetes")]


def measure(preset: str) -> dict[str, Any]:
    """The ratio of the minimal medians over several rounds, both in turn."""
    with tempfile.TemporaryDirectory() as temporary:
        quick = {"train": {"debug": "fast"}}
        folder = workspace.init(workspace.project(Path(temporary) / "project", quick, preset))
        for name in STAGES:
            workspace.stage(folder, name)
        exported = manifest.load(folder / "models" / "manifest.json")
        schema = Schema.load(folder / "data" / "schema.json")
        cells = {
            column.name: table.column(folder / "data" / "table.parquet", column.name)[0] for column in schema.features
        }
        models = [exported.name, f"{exported.name}_{exported.id}"]
        with (
            running(folder / "models" / "repository", models, drain_s=0) as endpoint,
            Client(endpoint.grpc, exported.name) as client,
            tritonclient.grpc.InferenceServerClient(endpoint.grpc) as bare,
        ):
            by_hand = tritonclient_request(bare, exported.name, schema, cells)
            medians_ms: dict[Callable[[], Any], list[float]] = {by_hand: [], lambda: client.predict(cells): []}
            for _ in range(ROUNDS):
                for ask, medians in medians_ms.items():
                    medians.append(median_ms(ask))
    bare_ms, ours_ms = (min(medians) for medians in medians_ms.values())
    return {
        "what": f"a request of one row to `{preset}` ({len(cells)} columns) "
        "with our client, relative to tritonclient alone",
        "figure": f"{ours_ms / bare_ms:.2f}",
        "goal": "at most 1.1",
        "with": f"gRPC, {ours_ms:.2f} ms against {bare_ms:.2f} ms",
    }


def tritonclient_request(client: Any, model: str, schema: Schema, cells: dict[str, Any]) -> Callable[[], Any]:
    """A function that sends one row with tritonclient and returns the outputs as arrays."""
    outputs = [*schema.outputs(), "release"]
    types = {name: "FP64" if tensor.dtype == "float64" else "BYTES" for name, tensor in schema.inputs().items()}

    def ask() -> dict[str, np.ndarray]:
        inputs = []
        for name, value in cells.items():
            inputs.append(tritonclient.grpc.InferInput(name, [1, 1], types[name]))
            inputs[-1].set_data_from_numpy(np.array([[value]], np.float64 if types[name] == "FP64" else np.object_))
        result = client.infer(model, inputs)
        return {name: result.as_numpy(name) for name in outputs}

    return ask


def median_ms(ask: Callable[[], Any]) -> float:
    """The median latency of some requests, after a few for warm-up."""
    taken = []
    for i in range(REQUESTS + 20):
        began = time.perf_counter()
        ask()
        if i >= 20:
            taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


if __name__ == "__main__":
    for result in main():
        print(json.dumps(result))
