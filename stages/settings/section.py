"""The bases of every section of `params.yaml`, and of the sections that a stage uses."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
SomeSection = TypeVar("SomeSection", bound="Section")


class Section(BaseModel):
    """A strict and frozen part of `params.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Explain why a key that `listed` has removed cannot be read."""
            if name in type(self).model_fields:
                key = f"{type(self).__name__.lower()}.{name}"
                raise AttributeError(f"dvc.yaml does not list {key} under the params of this stage")
            return super().__getattr__(name)


@dataclass(frozen=True)
class Parameters:
    """The sections that a stage uses, each with only the keys that `dvc.yaml` lists for it."""

    def values(self) -> dict[str, Any]:
        """Key -> value of all these parameters."""
        return {f"{name}.{key}": value for name, section in vars(self).items() for key, value in vars(section).items()}


def listed(section: SomeSection, keys: Collection[str]) -> SomeSection:
    """A copy of a section with only these keys."""
    kept = section.model_copy()
    for name in vars(section).keys() - set(keys):
        del vars(kept)[name]
    return kept
