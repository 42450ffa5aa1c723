"""The Triton model that a public name leads to while a new release is on trial next to the live one.

It sends a share of the requests to both releases at once and all others to the live release alone. What the trial
measures is published among the server's metrics as millrace_canary_*.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).absolute().parent
sys.path.insert(0, str(HERE))  # Triton appends this folder, so an installed `stages` would win
sys.dont_write_bytecode = True  # a file written into the repository makes Triton reload the model

import numpy as np  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402

from stages.schema import target_kind  # noqa: E402

AT_ONCE = 128  # concurrent requests to the releases; asyncio's few default threads would make some wait
RECENT = 1000  # the quantiles are of this many last pairs
EVERY_S = 0.2  # between two updates of the quantiles


# How the messages of internal errors begin: with the exception's name, from `encode`, or in Triton's own words.
_INTERNAL = re.compile(r"\w*(Error|Exception)\b|Stub process|Failed to process|Request for unknown model|.*not ready")


class TritonPythonModel:
    """Answers raw columns with the predictions of one of two releases."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read `canary.json`: the two releases, the share, and the target, which decides whether predictions agree."""
        self._settings = json.loads((HERE / "canary.json").read_text(encoding="utf-8"))
        self._agree = target_kind(self._settings["target"]["kind"]).agree
        self._outputs = [output["name"] for output in json.loads(args["model_config"])["output"]]
        self._new_outputs = [*self._settings["outputs"], *self._settings["identifiers"]]
        self._due = 0.0  # the share of a request that is left over from earlier ones
        self._figures = Figures(self._settings)
        self._threads = ThreadPoolExecutor(AT_ONCE)

    async def execute(self, requests: list[Any]) -> list[Any]:
        """Return one response per request; a bad request fails alone.

        Requests for the live release alone are sent to it together, where they have the same columns.
        """
        asyncio.get_running_loop().set_default_executor(self._threads)
        calls: dict[tuple[int, ...], Any] = {}  # the numbers of the requests -> a call that answers them
        same_columns: dict[tuple[str, ...], list[int]] = {}
        for number, request in enumerate(requests):
            if request.request_id() == self._settings["rehearsal"] or self._chosen(request):
                calls[(number,)] = self._both(request)
            else:
                same_columns.setdefault(tuple(tensor.name() for tensor in request.inputs()), []).append(number)
        for numbers in same_columns.values():
            calls[tuple(numbers)] = self._live([requests[number] for number in numbers])
        results = zip(calls, await asyncio.gather(*calls.values()), strict=True)
        self._figures.publish()
        by_number = {
            number: response for numbers, some in results for number, response in zip(numbers, some, strict=True)
        }
        return [by_number[number] for number in range(len(requests))]

    async def _live(self, requests: list[Any]) -> list[Any]:
        """Send the rows of several requests to the live release in one request; if it fails, each one on its own."""
        if len(requests) == 1:
            wanted = list(requests[0].requested_output_names())
            return [_passed_on(await self._ask("live", requests[0].inputs(), wanted))]
        columns = [[tensor.as_numpy() for tensor in request.inputs()] for request in requests]
        names = [tensor.name() for tensor in requests[0].inputs()]
        joined = [pb_utils.Tensor(name, np.concatenate(arrays)) for name, *arrays in zip(names, *columns, strict=True)]
        response = await self._ask("live", joined, self._outputs)
        if response.has_error():
            return [response for request in requests for response in await self._live([request])]
        arrays = {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
        responses, start = [], 0
        for request, (first, *_) in zip(requests, columns, strict=True):
            rows = slice(start, start + len(first))
            wanted = request.requested_output_names()
            tensors = [pb_utils.Tensor(name, arrays[name][rows]) for name in self._outputs if name in wanted]
            responses.append(pb_utils.InferenceResponse(tensors))
            start += len(first)
        return responses

    async def _both(self, request: Any) -> list[Any]:
        """Send a request to both releases at once, record how they compare, and return the response of one."""
        rehearsal = request.request_id() == self._settings["rehearsal"]
        new_call = asyncio.wait_for(self._ask("new", request.inputs(), self._new_outputs), self._settings["late_s"])
        (live, live_s), (new, new_s) = await asyncio.gather(
            self._timed(self._ask("live", request.inputs(), self._outputs)), self._timed(new_call)
        )
        if new is not None and not new.has_error():
            new = self._in_live_form(new)
        if live.has_error():  # where both fail, the request is at fault
            return [_passed_on(live if new is None or new.has_error() or self._settings["shadow"] else new)]
        disagreement = self._disagreement(live, new)
        if rehearsal:
            return [_passed_on(live if disagreement is None else new)]
        if disagreement is None:
            self._figures.add_failure()
            return [_passed_on(live)]
        self._figures.add_pair(live_s, new_s, disagreement)
        return [_passed_on(live if self._settings["shadow"] else new)]

    def _in_live_form(self, response: Any) -> Any:
        """Return the new release's response with the live one's outputs: one of them may give `release` as text."""
        if set(self._new_outputs) == set(self._outputs):
            return response
        tensors = {tensor.name(): tensor for tensor in response.output_tensors()}
        release = tensors.pop("release").as_numpy()
        if "answer_id" in self._outputs:
            release = np.array([list(row[0]) for row in release], np.uint8)
            answer_ids = np.frombuffer(os.urandom(16 * len(release)), np.uint8).reshape(-1, 16)
            tensors["answer_id"] = pb_utils.Tensor("answer_id", answer_ids)
        else:
            del tensors["answer_id"]
            release = np.array([[row.tobytes()] for row in release], np.object_)
        tensors["release"] = pb_utils.Tensor("release", release)
        return pb_utils.InferenceResponse([tensors[name] for name in self._outputs])

    def _disagreement(self, live: Any, new: Any) -> float | None:
        """Return the share of rows whose predictions differ; None where the new release's response is invalid."""
        if new is None or new.has_error():
            return None
        try:
            live_arrays, new_arrays = self._arrays(live), self._arrays(new)
            if not all(np.isfinite(array).all() for array in new_arrays.values()):
                return None
            return 1 - float(np.mean(self._agree(live_arrays, new_arrays, self._settings["target"]["fitted"])))
        except (KeyError, ValueError, IndexError):  # an output is missing or has the wrong shape
            return None

    def _chosen(self, request: Any) -> bool:
        """Whether a request is one of the share. The share is exact: what is left over is added to the next request."""
        if request.request_id() == self._settings["probe"] or self._figures.failures > self._settings["failures"]:
            return False
        self._due += self._settings["share"]
        if self._due < 1 - 1e-9:
            return False
        self._due -= 1
        return True

    async def _ask(self, which: str, inputs: list[Any], outputs: list[str]) -> Any:
        request = pb_utils.InferenceRequest(
            model_name=self._settings[which], requested_output_names=outputs, inputs=inputs
        )
        return await request.async_exec()

    async def _timed(self, call: Any) -> tuple[Any, float]:
        """Return a call's response, None if it is late, and the seconds that it took."""
        start = time.perf_counter()
        try:
            response = await call
        except TimeoutError:
            response = None
        return response, time.perf_counter() - start

    def _arrays(self, response: Any) -> dict[str, np.ndarray]:
        tensors = {tensor.name(): tensor for tensor in response.output_tensors()}
        return {name: tensors[name].as_numpy() for name in self._settings["outputs"]}


class Figures:
    """The trial's figures so far, published as metrics of the server. A failure counts as a pair, too."""

    def __init__(self, settings: dict[str, Any]) -> None:
        labels = {"model": settings["public"]} | {name: settings[name] for name in ("live", "new", "begun")}
        self._families: list[Any] = []
        self._metrics: dict[str, Any] = {}
        for name, text in (
            ("pairs", "Requests that were sent to both releases"),
            ("failures", "Pairs in which the new release failed or was late"),
            ("disagreements", "Pairs in which the predictions differ; for several rows the share of them"),
        ):
            self._add(name, text, pb_utils.MetricFamily.COUNTER, labels)
        for which in ("live", "new"):
            for part in ("p50", "p99"):
                text = f"Quantile of the seconds that the {which} release took in the last pairs"
                self._add(f"{which}_{part}_s", text, pb_utils.MetricFamily.GAUGE, labels)
        self._recent: deque[tuple[float, float]] = deque(maxlen=RECENT)
        self._published_s = 0.0
        self.failures = 0

    def add_failure(self) -> None:
        """Count a pair in which the live release answered and the new one did not."""
        self.failures += 1
        self._metrics["pairs"].increment(1)
        self._metrics["failures"].increment(1)

    def add_pair(self, live_s: float, new_s: float, disagreement: float) -> None:
        """Count a pair in which both releases answered."""
        self._recent.append((live_s, new_s))
        self._metrics["pairs"].increment(1)
        if disagreement:
            self._metrics["disagreements"].increment(disagreement)

    def publish(self) -> None:
        """Update the quantiles, at most every EVERY_S."""
        now = time.monotonic()
        if self._recent and now - self._published_s > EVERY_S:
            self._published_s = now
            for which, seconds in zip(("live", "new"), zip(*self._recent, strict=True), strict=True):
                for part, quantile in (("p50", 50), ("p99", 99)):
                    self._metrics[f"{which}_{part}_s"].set(float(np.percentile(seconds, quantile)))

    def _add(self, name: str, text: str, kind: Any, labels: dict[str, str]) -> None:
        family = pb_utils.MetricFamily(name=f"millrace_canary_{name}", description=text, kind=kind)
        self._families.append(family)  # it must outlive its metrics
        self._metrics[name] = family.Metric(labels=labels)


def _passed_on(response: Any) -> Any:
    """Return a release's response as callers get it without a router. Triton 2.51 gives a router only INTERNAL errors.

    So the error's code is restored from its message.
    """
    if not response.has_error():
        return pb_utils.InferenceResponse(response.output_tensors())
    message = re.sub(r"^(in ensemble '[^']*', )+", "", response.error().message())
    code = pb_utils.TritonError.INTERNAL if _INTERNAL.match(message) else pb_utils.TritonError.INVALID_ARG
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
