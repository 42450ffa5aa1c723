"""`params.yaml`, parsed once, and edited with its comments kept. A stage is given only what `dvc.yaml` lists for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import CommentMark, MarkedYAMLError
from ruamel.yaml.tokens import CommentToken

from stages.core import lockfile
from stages.core.command import replacing
from stages.core.errors import Misuse
from stages.core.words import nearest
from stages.settings.sections import Params, explain

SHORT = 3  # so many plain values stand in one line


def parse(path: Path = Path("params.yaml")) -> Params:
    """Read and check the whole file.

    Raises:
        Misuse: names the key at fault and, for an unknown one, the nearest that exists.
    """
    try:
        tree = _yaml(path)
    except MarkedYAMLError as error:
        lockfile.check_conflicts(path.parent)
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise Misuse(f"{path}, line {line}: {error.problem}") from error
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise Misuse(f"{path} cannot be read: {error}") from error
    if not isinstance(tree, dict):
        what = "is empty" if tree is None else "holds no sections"
        raise Misuse(f"{path} {what}: `git checkout {path}` restores it")
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        raise Misuse(f"{path}: " + "; ".join(explain(fault) for fault in error.errors())) from error


def load(stage: str, path: Path = Path("params.yaml"), graph: Path = Path("dvc.yaml")) -> Listed:
    """The parameters that `dvc.yaml` lists under `stage`, and no others."""
    listed = _yaml(graph)["stages"][stage].get("params", [])
    return Listed(parse(path), stage, tuple(listed))


class Listed:
    """A view of the parameters that refuses what is not listed, so that no value acts unseen by DVC."""

    def __init__(self, section: Any, stage: str, listed: tuple[str, ...], prefix: str = "") -> None:
        self._section, self._stage, self._listed, self._prefix = section, stage, listed, prefix

    def __getattr__(self, name: str) -> Any:
        key = f"{self._prefix}{name}"
        if any(key == entry or key.startswith(f"{entry}.") for entry in self._listed):
            return _get(self._section, name)
        if any(entry.startswith(f"{key}.") for entry in self._listed):
            return Listed(_get(self._section, name), self._stage, self._listed, f"{key}.")
        raise AttributeError(f"dvc.yaml does not list {key!r} under the params of {self._stage!r}")


def paths(graph: Path = Path("dvc.yaml")) -> dict[str, str]:
    """Where `dvc.yaml` says that everything lies.

    Raises:
        Misuse: it cannot be read.
    """
    try:
        return dict(_yaml(graph)["vars"][0]["paths"])
    except (YAMLError, LookupError, TypeError) as error:
        lockfile.check_conflicts(graph.parent)
        line = (
            f", line {error.problem_mark.line + 1}" if isinstance(error, MarkedYAMLError) and error.problem_mark else ""
        )
        raise Misuse(f"{graph}{line} cannot be read: `git checkout {graph}` restores it") from error


def stages(graph: Path = Path("dvc.yaml")) -> list[str]:
    """The names of the stages, in the order of `dvc.yaml`."""
    return list(_yaml(graph)["stages"])


def preset(name: str) -> dict[str, Any]:
    """A preset's values, section by section, as `edit` takes them.

    Raises:
        Misuse: no preset of this name.
    """
    folder = Path(__file__).parent / "presets"
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise Misuse(f"there is no preset {name!r}{nearest(name, known)}")
    return dict(_yaml(folder / f"{name}.yaml"))


def edit(changes: dict[str, Any], path: Path = Path("params.yaml")) -> None:
    """Replace the leaves that `changes` names, section by section; everything else keeps its place."""
    with _edited(path) as tree:
        for section, keys in changes.items():
            for key, value in keys.items():
                tree[section][key] = _in_lines(value)
                _blanks_last(tree[section], key)


def merge(changes: dict[str, Any], path: Path = Path("params.yaml")) -> None:
    """As `edit`, but a mapping that is there keeps its other keys, however deep. A new innermost one takes a line."""
    with _edited(path) as tree:
        _merge(tree, changes)


def _merge(tree: Any, changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        below = tree.get(key)
        if not (isinstance(value, dict) and isinstance(below, dict)):
            tree[key] = _in_line(value)
            continue
        grows = not below and any(isinstance(one, dict) for one in value.values())
        _merge(below, value)
        if grows:  # {} becomes a line for each key; a blank line after it stays after all of them
            below.fa.set_block_style()
            _blanks_last(tree, key)


def _blanks_last(tree: Any, key: str) -> None:
    """A blank line after a key's comment comes to stand after all of its value."""
    comment = tree.ca.items.get(key, [None] * 3)[2]
    last = tree[key]
    if not (comment and comment.value.endswith("\n\n") and _is_block(last)):
        return
    while _is_block(last[list(last)[-1]]):
        last = last[list(last)[-1]]
    comment.value = comment.value.rstrip("\n") + "\n"
    last.ca.items[list(last)[-1]] = [None, None, CommentToken("\n\n", CommentMark(0), None), None]


def _is_block(value: Any) -> bool:
    return isinstance(value, CommentedMap) and bool(value) and not value.fa.flow_style()


def _in_lines(value: Any) -> Any:
    """A mapping with a line for each key, unless it is a short one of plain values."""
    if not isinstance(value, dict) or (
        len(value) <= SHORT and not any(isinstance(one, dict) for one in value.values())
    ):
        return _in_line(value)
    return CommentedMap({key: _in_lines(one) for key, one in value.items()})


def _in_line(value: Any) -> Any:
    if not isinstance(value, (dict, list)):
        return value
    written: Any = CommentedMap(value) if isinstance(value, dict) else CommentedSeq(value)
    written.fa.set_flow_style()
    return written


@contextmanager
def _edited(path: Path) -> Iterator[Any]:
    """The file's tree to change, written when the block ends well."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 120
    yaml.representer.add_representer(type(None), lambda to, _: to.represent_scalar("tag:yaml.org,2002:null", "null"))
    tree = yaml.load(path.read_text(encoding="utf-8"))
    yield tree
    with replacing(path) as whole, whole.open("w", encoding="utf-8") as file:
        yaml.dump(tree, file)


def values(listed: Listed) -> dict[str, Any]:
    """Everything that a stage is given, by key, as plain JSON values."""

    def value(key: str) -> Any:
        section = listed._section
        for name in key.split("."):
            section = _get(section, name)
        return section

    return {key: value(key) for key in listed._listed}


def accepted(stage: str, path: Path = Path("params.yaml"), graph: Path = Path("dvc.yaml"), root: Path = Path()) -> bool:
    """Whether a stage has ended well with just the values that `params.yaml` has for it now."""
    tree = _yaml(path)
    recorded = lockfile.stages(root).get(stage, {}).get("params", {}).get(path.name)
    keys = _yaml(graph)["stages"][stage]["params"]
    return bool(recorded == {key: reduce(getitem, key.split("."), tree) for key in keys})


def _get(section: Any, name: str) -> Any:
    for field in (name, f"{name}_"):
        if field in type(section).model_fields:
            return getattr(section, field)
    raise AttributeError(name)


def _yaml(path: Path) -> Any:
    """As DVC reads it: YAML 1.2, where 1e-3 is a number."""
    return YAML(typ="safe").load(Path(path).read_text(encoding="utf-8"))
