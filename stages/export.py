"""Export the network as a Triton model repository that is named by its content."""

from __future__ import annotations

import stages.core.interrupts  # noqa: F401

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.triton import manifest as manifests
from stages.core import arithmetic, command
from stages.core.files import replacing, sha256
from stages.schema import MISSING, Schema
from stages.settings import params, section, sections
from stages.tables import arrays as arrays_
from stages.tables.table import Values

GOLDEN_ROWS = 8
COPIES = (  # files and folders that a release holds a copy of
    "stages/__init__.py",
    "stages/schema/__init__.py",
    "stages/schema/spelling.py",
    "stages/schema/kinds",
    "serving/triton/backends/encode.py",
    "serving/triton/backends/python/batchstrategy.so",
)


@dataclass(frozen=True)
class Parameters(section.Parameters):
    """The parameters of this stage."""

    export: sections.Export


def main(weights: Path, arrays: Path, schema: Path, table: Path, repository: Path, manifest: Path) -> None:
    """Export the network, name the result by its content, and write its manifests."""
    arithmetic.portable()
    from serving.triton import repository as layout
    from serving.triton.config import Serving
    from serving.triton.names import Names, rename
    from stages.networks import network

    settings = params.load("export", Parameters).export
    fitted = Schema.load(schema)
    onnx = to_onnx(network.load(weights, fitted), fitted)
    golden = golden_rows(fitted, arrays, table)
    serving = Serving(settings.max_batch, settings.instances, settings.threads)
    blank = Names(settings.name, manifests.BLANK)
    sources = {"weights": sha256(weights)} | arrays_.read_summary(arrays)["sha256"]
    with replacing(repository) as folder:
        layout.write(folder, blank, fitted, onnx, golden, serving, code=Path(__file__).parent.parent)
        made = manifests.describe(folder, settings.name, sources)
        rename(folder, blank, Names(settings.name, made.id))
        manifests.check(folder, made)
    with replacing(manifest) as path:
        path.write_text(made.text, encoding="utf-8")
    print(f"exported {settings.name}_{made.id}: {len(onnx):,} bytes of network")


def to_onnx(network: Any, schema: Schema) -> bytes:
    """The ONNX graph from blocks [N, *shape] as stored to the target's outputs. Only the batch axis is dynamic."""
    import logging
    import warnings

    import torch

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it logs each torchvision operator that is missing
    # the exporter's warnings to its own authors
    warnings.filterwarnings("ignore", message=".*(LeafSpec|axis name: batch|_check_is_size|_flat_weights).*")

    class Answers(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *blocks: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(self.network.predict(self.network(blocks)).values())

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
    return bytes(anonymous(exported.model_proto).SerializeToString(deterministic=True))


def anonymous(model: Any) -> Any:
    """Remove the exporter's notes, which hold paths of this machine and so differ between folders."""
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
    """A few raw test rows {column: [n]} as a request holds them, and the SHA-256 of the arrays that prepare wrote."""
    test = arrays_.open_split(arrays, "test")
    rows = test.rows[:GOLDEN_ROWS]
    raw = {}
    for column, tensor in schema.inputs().items():
        cells = [value for chunk in Values(source, column, rows) for value in chunk]
        values = [MISSING[tensor.dtype] if value is None else value for value in cells]
        raw[column] = [base64.b64encode(value).decode() for value in values] if tensor.dtype == "bytes" else values
    content = b"".join(block[:GOLDEN_ROWS].tobytes() for block in test.blocks)
    return {"rows": raw, "sha256": hashlib.sha256(content).hexdigest()}


if __name__ == "__main__":
    command.run(main)
