"""What our client costs: single rows over gRPC, one after another, against the same by tritonclient alone."""

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
    """A picture and a row of ten numbers."""
    return [measure("digits"), measure("diabetes")]


def measure(preset: str) -> dict[str, Any]:
    """The ratio of the least medians of some rounds, the two in turn."""
    with tempfile.TemporaryDirectory() as temporary:
        quick = {"train": {"debug": "fast"}}
        folder = workspace.init(workspace.project(Path(temporary) / "project", quick, preset))
        for name in STAGES:
            workspace.stage(folder, name)
        made = manifest.load(folder / "models" / "manifest.json")
        schema = Schema.load(folder / "data" / "schema.json")
        cells = {one.name: table.column(folder / "data" / "table.parquet", one.name)[0] for one in schema.features}
        models = [made.name, f"{made.name}_{made.id}"]
        with (
            running(folder / "models" / "repository", models, drain_s=0) as endpoint,
            Client(endpoint.grpc, made.name) as client,
            tritonclient.grpc.InferenceServerClient(endpoint.grpc) as bare,
        ):
            by_hand = asking_by_hand(bare, made.name, schema, cells)
            ways: dict[Callable[[], Any], list[float]] = {by_hand: [], lambda: client.predict(cells): []}
            for _ in range(ROUNDS):
                for ask, medians in ways.items():
                    medians.append(median_ms(ask))
    bare_ms, ours_ms = (min(medians) for medians in ways.values())
    return {
        "what": f"a request of one row to `{preset}` ({len(cells)} columns) with our client, relative to tritonclient alone",
        "figure": f"{ours_ms / bare_ms:.2f}",
        "goal": "at most 1.1",
        "with": f"gRPC, {ours_ms:.2f} ms against {bare_ms:.2f} ms",
    }


def asking_by_hand(client: Any, model: str, schema: Schema, cells: dict[str, Any]) -> Callable[[], Any]:
    """A request with raw values as they are, and its outputs as arrays."""
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
    """Of some requests, after a few that are not timed."""
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
