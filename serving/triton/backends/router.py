"""Triton's Python backend that a public name leads to while a release is on trial beside the live one.

A share of the requests is put to both at once, every other one to the live release alone. What is found is shown among
the server's metrics, as millrace_canary_*.
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

AT_ONCE = 128  # requests to the releases under way; Python's own few threads would make one wait for another
RECENT = 1000  # pairs that quantiles are taken of
EVERY_S = 0.2  # between two looks at quantiles


# How messages begin that do not blame the question: encode's, of a bug, with the exception's name; Triton's own.
_INTERNAL = re.compile(r"\w*(Error|Exception)\b|Stub process|Failed to process|Request for unknown model|.*not ready")


class TritonPythonModel:
    """Raw columns in, answers of one of two releases out."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read `canary.json`: the two releases, the share, and what decides whether answers agree."""
        self._how = json.loads((HERE / "canary.json").read_text(encoding="utf-8"))
        self._agree = target_kind(self._how["target"]["kind"]).agree
        self._outputs = [output["name"] for output in json.loads(args["model_config"])["output"]]
        self._of_new = [*self._how["outputs"], *self._how["identifiers"]]
        self._due = 0.0  # the share of a request that is still to be put to both
        self._figures = Figures(self._how)
        self._threads = ThreadPoolExecutor(AT_ONCE)

    async def execute(self, requests: list[Any]) -> list[Any]:
        """One response per request; a bad one fails alone. Those for the live release alone go there together."""
        asyncio.get_running_loop().set_default_executor(self._threads)
        asking: dict[tuple[int, ...], Any] = {}
        together: dict[tuple[str, ...], list[int]] = {}
        for number, request in enumerate(requests):
            if request.request_id() == self._how["rehearsal"] or self._chosen(request):
                asking[(number,)] = self._both(request)
            else:  # of one batch are those that leave out the same columns
                together.setdefault(tuple(tensor.name() for tensor in request.inputs()), []).append(number)
        for numbers in together.values():
            asking[tuple(numbers)] = self._live([requests[number] for number in numbers])
        told = zip(asking, await asyncio.gather(*asking.values()), strict=True)
        self._figures.show()
        found = {number: one for numbers, responses in told for number, one in zip(numbers, responses, strict=True)}
        return [found[number] for number in range(len(requests))]

    async def _live(self, requests: list[Any]) -> list[Any]:
        """Their rows in one request; if that fails, each on its own."""
        if len(requests) == 1:
            wanted = list(requests[0].requested_output_names())
            return [_passed(await self._ask("live", requests[0].inputs(), wanted))]
        sent = [[tensor.as_numpy() for tensor in request.inputs()] for request in requests]
        names = [tensor.name() for tensor in requests[0].inputs()]
        joined = [pb_utils.Tensor(name, np.concatenate(arrays)) for name, *arrays in zip(names, *sent, strict=True)]
        response = await self._ask("live", joined, self._outputs)
        if response.has_error():
            return [one for request in requests for one in await self._live([request])]
        arrays = {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
        responses, start = [], 0
        for request, (first, *_) in zip(requests, sent, strict=True):
            rows = slice(start, start + len(first))
            wanted = request.requested_output_names()
            tensors = [pb_utils.Tensor(name, arrays[name][rows]) for name in self._outputs if name in wanted]
            responses.append(pb_utils.InferenceResponse(tensors))
            start += len(first)
        return responses

    async def _both(self, request: Any) -> list[Any]:
        """The answer of one of the two, which are asked at once."""
        rehearsing = request.request_id() == self._how["rehearsal"]
        (live, live_s), (new, new_s) = await asyncio.gather(
            self._timed(self._ask("live", request.inputs(), self._outputs)),
            self._timed(asyncio.wait_for(self._ask("new", request.inputs(), self._of_new), self._how["late_s"])),
        )
        if new is not None and not new.has_error():
            new = self._in_live_form(new)
        if live.has_error():  # an error of both is the question's own
            return [_passed(live if new is None or new.has_error() or self._how["shadow"] else new)]
        disagreement = self._disagreement(live, new)
        if rehearsing:
            return [_passed(live if disagreement is None else new)]
        if disagreement is None:
            self._figures.failed()
            return [_passed(live)]
        self._figures.paired(live_s, new_s, disagreement)
        return [_passed(live if self._how["shadow"] else new)]

    def _in_live_form(self, response: Any) -> Any:
        """The new release's response with the live one's outputs: one of the two may give `release` as text."""
        if set(self._of_new) == set(self._outputs):
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
        """The share of rows that are answered otherwise; None where the new release has no proper answer."""
        if new is None or new.has_error():
            return None
        try:
            answered, tried = self._arrays(live), self._arrays(new)
            if not all(np.isfinite(array).all() for array in tried.values()):
                return None
            return 1 - float(np.mean(self._agree(answered, tried, self._how["target"]["fitted"])))
        except (KeyError, ValueError, IndexError):  # not of the form that it should have
            return None

    def _chosen(self, request: Any) -> bool:
        """Whether a request is one of the share: exactly, by carrying what is left over to the next."""
        if request.request_id() == self._how["probe"] or self._figures.failures > self._how["failures"]:
            return False
        self._due += self._how["share"]
        if self._due < 1 - 1e-9:
            return False
        self._due -= 1
        return True

    async def _ask(self, which: str, inputs: list[Any], outputs: list[str]) -> Any:
        asked = pb_utils.InferenceRequest(model_name=self._how[which], requested_output_names=outputs, inputs=inputs)
        return await asked.async_exec()

    async def _timed(self, asking: Any) -> tuple[Any, float]:
        """A response, or None if it is late, and the seconds that it took."""
        began = time.perf_counter()
        try:
            response = await asking
        except TimeoutError:
            response = None
        return response, time.perf_counter() - began

    def _arrays(self, response: Any) -> dict[str, np.ndarray]:
        tensors = {tensor.name(): tensor for tensor in response.output_tensors()}
        return {name: tensors[name].as_numpy() for name in self._how["outputs"]}


class Figures:
    """What the trial has shown so far, as metrics of the server. A failure is a pair, too."""

    def __init__(self, how: dict[str, Any]) -> None:
        labels = {"model": how["public"], "live": how["live"], "new": how["new"], "begun": how["begun"]}
        self._families: list[Any] = []
        self._metrics: dict[str, Any] = {}
        for name, text in (
            ("pairs", "Requests that both releases were asked"),
            ("failures", "Those that the new one failed, or answered late"),
            ("disagreements", "Those that it answered otherwise; of one with several rows, their share"),
        ):
            self._add(name, text, pb_utils.MetricFamily.COUNTER, labels)
        for which in ("live", "new"):
            for part in ("p50", "p99"):
                text = f"Seconds of the last pairs that the {which} release took, a quantile"
                self._add(f"{which}_{part}_s", text, pb_utils.MetricFamily.GAUGE, labels)
        self._recent: deque[tuple[float, float]] = deque(maxlen=RECENT)
        self._shown_s = 0.0
        self.failures = 0

    def failed(self) -> None:
        """The new release did not answer, and the live one did."""
        self.failures += 1
        self._metrics["pairs"].increment(1)
        self._metrics["failures"].increment(1)

    def paired(self, live_s: float, new_s: float, disagreement: float) -> None:
        """Both have answered."""
        self._recent.append((live_s, new_s))
        self._metrics["pairs"].increment(1)
        if disagreement:
            self._metrics["disagreements"].increment(disagreement)

    def show(self) -> None:
        """Take the quantiles anew, now and then."""
        now = time.monotonic()
        if self._recent and now - self._shown_s > EVERY_S:
            self._shown_s = now
            for which, taken_s in zip(("live", "new"), zip(*self._recent, strict=True), strict=True):
                for part, quantile in (("p50", 50), ("p99", 99)):
                    self._metrics[f"{which}_{part}_s"].set(float(np.percentile(taken_s, quantile)))

    def _add(self, name: str, text: str, kind: Any, labels: dict[str, str]) -> None:
        family = pb_utils.MetricFamily(name=f"millrace_canary_{name}", description=text, kind=kind)
        self._families.append(family)  # it must outlive its metrics
        self._metrics[name] = family.Metric(labels=labels)


def _passed(response: Any) -> Any:
    """A release's response as its callers know it: to a router, Triton 2.51 calls every error INTERNAL."""
    if not response.has_error():
        return pb_utils.InferenceResponse(response.output_tensors())
    said = re.sub(r"^(in ensemble '[^']*', )+", "", response.error().message())
    code = pb_utils.TritonError.INTERNAL if _INTERNAL.match(said) else pb_utils.TritonError.INVALID_ARG
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(said, code))
