"""Modules that are found by a name: of a kind, a target, a format or a network."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Container
from typing import TypeVar, cast

Part = TypeVar("Part")


class NoModule(ValueError):
    """No file has this name."""


def load_module(name: str, protocol: Callable[..., Part], optional: Container[str] = ()) -> Part:
    """Import a module and check that it has all that its package's protocol declares.

    Write `name` as an f-string, "stages.PACKAGE.{...}": the imports of a file are read from its source.

    Args:
        name: its dotted name.
        protocol: a Protocol, whose attributes and methods the module must have.
        optional: those that it may lack.

    Raises:
        NoModule: its file is missing.
        ValueError: it lacks a part.
    """
    file = name.replace(".", "/") + ".py"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise NoModule(f"{file} is missing: see the other files there") from None
    parts = [*getattr(protocol, "__annotations__", {}), *(part for part in vars(protocol) if not part.startswith("_"))]
    if lacking := [part for part in dict.fromkeys(parts) if not hasattr(module, part) and part not in optional]:
        raise ValueError(f"{file} lacks {', '.join(lacking)}: see what the other files there have")
    return cast(Part, module)
