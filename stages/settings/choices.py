"""The modules that `params.yaml` chooses among those looked up by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stages import schema
from stages.settings import section, sections
from stages.tables import sources

# Packages with a module for each kind of target.
TARGETS = (
    "stages.networks.heads",
    "stages.trees",
    "stages.evaluation.metrics",
    "stages.evaluation.plots",
    "stages.evaluation.samples",
    "stages.evaluation.yardsticks.targets",
)


@dataclass(frozen=True)
class Parameters(section.Parameters):
    """The parameters that choose modules."""

    data: sections.Data
    schema: sections.Schema
    model: sections.Model
    train: sections.Train


def modules(parameters: Parameters) -> Mapping[str, Iterable[str]]:
    """Package -> its modules that these parameters choose."""
    declared = sections.declared(parameters.schema.features, parameters.schema.target)
    features, target = sorted({column.kind for column in declared.features}), declared.target.kind
    named = {part["name"] for part in parameters.model.encoders.values() if "name" in part}
    encoders = {schema.kind(kind).ENCODER for kind in features}
    return {
        "stages.schema.kinds": [*features, target],
        "stages.schema.views": [*features, target],
        "stages.validation.expectations": [*features, target],
        "stages.gating.perturbations": features,
        "stages.tables.sources": [sources.file(parameters.data.format)],
        "stages.networks.encoders": sorted(encoders | named),
        "stages.networks.trunks": [parameters.model.trunk.get("name", "concat")],
        **{package: [target] for package in TARGETS},
        "stages.networks.augmentations": features if parameters.train.augment else [],
    }
