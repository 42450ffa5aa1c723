"""Controls: candidates that are bad on purpose, made from the exported network. A gate must refuse each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from serving.triton.names import Names
from serving.triton.repository import add_network
from stages.gating.evidence import LATENCY, PARITY, THRESHOLD
from stages.schema import Schema, target_kind

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

    Tail = Callable[[str, str], list[NodeProto]]  # an output's name and a new one -> how the new is made of it

ROWS = 512  # of the test split; enough to detect a bad model
SLOWEST_MS = 10_000.0  # no latency bound is larger
WAS = "before:"  # begins the name of an output before it is spoiled


@dataclass(frozen=True)
class Control:
    """A bad candidate: `what` it is, and the kind of criterion that is `expected` to refuse it.

    `spoil` changes the network; the server delays its requests by `delay_ms`. `inapplicable`: why it cannot be made;
    empty if it can.
    """

    name: str
    what: str
    expected: str
    spoil: Callable[[ModelProto], None] = lambda network: None
    delay_ms: float = 0.0
    inapplicable: str = ""

    def described(self) -> dict[str, str]:
        """The control as JSON, for the gate."""
        return {name: getattr(self, name) for name in ("name", "what", "expected", "inapplicable")}


def wrong(schema: Schema, reference: Mapping[str, np.ndarray], largest: int) -> list[Control]:
    """The controls with wrong answers. `reference`: the right outputs [N, *shape]; `largest`: rows of a full batch."""
    target = target_kind(schema.target.kind)
    turned = {output: partial(_turn, *change) for output, change in target.spoiled(schema.target.fitted).items()}
    constant = {
        output: partial(_answer_constant, reference[output].mean(0, keepdims=True)) for output in schema.outputs()
    }
    first = dict.fromkeys(schema.outputs(), _repeat_first)
    inapplicable = "" if largest > 1 else "no request holds more than one row"
    return [
        Control(target.SPOILED, f"a model with its {target.SPOILED}", THRESHOLD, partial(end, tails=turned)),
        Control("noise for weights", "a model with noise for its weights", THRESHOLD, make_noise),
        Control("one answer", "a model that gives all rows the same answer", THRESHOLD, partial(end, tails=constant)),
        Control(
            "one row repeated",
            "a model that gives every row of a batch the answer to its first",
            PARITY,
            partial(end, tails=first),
            inapplicable=inapplicable,
        ),
    ]


def slow(p99_ms: float) -> Control:
    """The control with the right answers that takes twice the latency bound."""
    delay_ms = min(2 * p99_ms, SLOWEST_MS)
    return Control("slow", f"a model that takes {delay_ms:g} ms to answer", LATENCY, delay_ms=delay_ms)


def add(controls: Sequence[Control], repository: Path, names: Names) -> list[str]:
    """Add the controls that can be made to a release's repository; return the names of their models."""
    import onnx

    exported = repository / names.network / "1" / "model.onnx"
    models = []
    for control in (control for control in controls if not control.inapplicable):
        network = onnx.load(exported)
        control.spoil(network)
        content = network.SerializeToString(deterministic=True)
        models.append(add_network(repository, names, control.name, content, control.delay_ms))
    return models


def some_rows(samples: int) -> np.ndarray:
    """The samples that controls answer, int64 [n], ascending: evenly spread, since a table may be sorted."""
    return np.unique(np.linspace(0, samples - 1, min(samples, ROWS)).astype(np.int64))


def make_noise(network: ModelProto) -> None:
    """Shuffle the values of every weight matrix: noise of the same scale."""
    from onnx import numpy_helper

    draw = np.random.default_rng(0)
    for tensor in network.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim > 1 and np.issubdtype(values.dtype, np.floating):
            noise = draw.permutation(values.ravel()).reshape(values.shape)
            tensor.CopyFrom(numpy_helper.from_array(noise, tensor.name))


def end(network: ModelProto, tails: Mapping[str, Tail]) -> None:
    """Replace each of these outputs by a change of it."""
    from onnx import compose

    keep = dict.fromkeys(
        [f"rename_{part}" for part in ("nodes", "edges", "inputs", "initializers", "value_infos", "functions")], False
    )
    compose.add_prefix(network, WAS, inplace=True, **keep)
    for output in network.graph.output:
        output.name = output.name.removeprefix(WAS)
        network.graph.node.extend(tails[output.name](WAS + output.name, output.name))


def _turn(order: list[int], factor: float, offset: float, before: str, after: str) -> list[NodeProto]:
    return [
        _constant(f"{after}:order", np.array(order, np.int64)),
        _constant(f"{after}:factor", np.array(factor, np.float32)),
        _constant(f"{after}:offset", np.array(offset, np.float32)),
        _node("Gather", [before, f"{after}:order"], f"{after}:ordered", axis=-1),
        _node("Mul", [f"{after}:ordered", f"{after}:factor"], f"{after}:scaled"),
        _node("Add", [f"{after}:scaled", f"{after}:offset"], after),
    ]


def _answer_constant(answer: np.ndarray, before: str, after: str) -> list[NodeProto]:
    return [_constant(f"{after}:one", answer), *_for_all_rows(before, after)]


def _repeat_first(before: str, after: str) -> list[NodeProto]:
    first = _constant(f"{after}:first", np.array([0], np.int64))
    return [first, _node("Gather", [before, f"{after}:first"], f"{after}:one", axis=0), *_for_all_rows(before, after)]


def _for_all_rows(before: str, after: str) -> list[NodeProto]:
    return [
        _node("Shape", [before], f"{after}:shape"),
        _node("Expand", [f"{after}:one", f"{after}:shape"], after),
    ]


def _node(operator: str, inputs: list[str], output: str, **attributes: Any) -> NodeProto:
    from onnx import helper

    return helper.make_node(operator, inputs, [output], **attributes)


def _constant(name: str, value: np.ndarray) -> NodeProto:
    from onnx import numpy_helper

    return _node("Constant", [], name, value=numpy_helper.from_array(value))
