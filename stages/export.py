"""Write the network as a content-named model repository that any Triton loads."""

from __future__ import annotations

import stages.core.interrupts  # noqa: F401

import base64
import hashlib
from pathlib import Path
from typing import Any

from serving.triton import manifest
from stages.core import arithmetic, command
from stages.schema import MISSING, Schema
from stages.settings import params
from stages.tables import arrays as arrays_
from stages.tables import table

GOLDEN_ROWS = 8


COPIES = (
    "stages/__init__.py",
    "stages/schema/__init__.py",
    "stages/schema/kinds",
    "serving/triton/backends/encode.py",
    "serving/triton/backends/python/batchstrategy.so",
)


def main(weights: Path, arrays: Path, schema: Path, source: Path, repository: Path, described: Path) -> None:
    """Export the network, name the result by its own content, and write its manifest."""
    arithmetic.portable()
    from serving.triton import repository as layout
    from serving.triton.config import Serving
    from serving.triton.names import Names, rename
    from stages.networks import network

    said = params.load("export").export
    fitted = Schema.load(schema)
    onnx = to_onnx(network.load(weights, fitted), fitted)
    golden = golden_rows(fitted, arrays, source)
    serving = Serving(said.max_batch, said.instances, said.threads)
    blank = Names(said.name, manifest.BLANK)
    sources = {"weights": table.sha256(weights)} | arrays_.read_summary(arrays)["sha256"]
    with command.replacing(repository) as folder:
        layout.write(folder, blank, fitted, onnx, golden, serving, code=Path(__file__).parent.parent)
        made = manifest.describe(folder, said.name, sources)
        rename(folder, blank, Names(said.name, made.id))
        manifest.check(folder, made)
    with command.replacing(described) as whole:
        whole.write_text(made.text, encoding="utf-8")
    print(f"exported {said.name}_{made.id}: {len(onnx):,} bytes of network")


def to_onnx(network: Any, schema: Schema) -> bytes:
    """Blocks [N, *shape] as stored -> exactly the target's outputs; only the batch axis is dynamic."""
    import logging
    import warnings

    import torch

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it notes each torchvision operator that is not there
    # of the exporter to its own authors
    warnings.filterwarnings("ignore", message=".*(LeafSpec|axis name: batch|_check_is_size|_flat_weights).*")

    class Answers(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *blocks: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(self.network.answer(self.network(blocks)).values())

    blocks = schema.blocks()
    example = tuple(torch.zeros(2, *block.tensor.shape, dtype=getattr(torch, block.tensor.dtype)) for block in blocks)
    batch = torch.export.Dim("batch", min=1)
    exported = torch.onnx.export(
        Answers().eval(),
        example,
        input_names=[block.name for block in blocks],
        output_names=list(schema.outputs()),
        dynamic_shapes=(tuple({0: batch} for _ in blocks),),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    assert exported is not None
    return anonymous(exported.model_proto).SerializeToString(deterministic=True)


def anonymous(model: Any) -> Any:
    """Without the exporter's notes, which hold this machine's paths and would differ between folders."""
    for part in (model.graph, *model.functions):
        for holder in (part, *part.node, *getattr(part, "input", ()), *getattr(part, "output", ()), *part.value_info):
            if hasattr(holder, "metadata_props"):
                del holder.metadata_props[:]
            if hasattr(holder, "doc_string"):
                holder.doc_string = ""
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
    del model.metadata_props[:]
    model.doc_string = ""
    return model


def golden_rows(schema: Schema, arrays: Path, source: Path) -> dict[str, Any]:
    """A few raw test rows {column: [n]} as they travel, and the SHA-256 of the arrays that prepare made of them."""
    test = arrays_.open_split(arrays, "test")
    rows = test.rows[:GOLDEN_ROWS]
    raw = {}
    for column, tensor in schema.inputs().items():
        cells = [value for chunk in table.Values(source, column, rows) for value in chunk]
        values = [MISSING[tensor.dtype] if value is None else value for value in cells]
        raw[column] = [base64.b64encode(value).decode() for value in values] if tensor.dtype == "bytes" else values
    made = b"".join(block[:GOLDEN_ROWS].tobytes() for block in test.blocks)
    return {"rows": raw, "sha256": hashlib.sha256(made).hexdigest()}


if __name__ == "__main__":
    command.run(main)
