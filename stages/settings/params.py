"""Parse `params.yaml`, and edit it with its comments kept. A stage sees only what `dvc.yaml` lists for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import CommentMark, MarkedYAMLError, YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString
from ruamel.yaml.tokens import CommentToken

from stages.core import lockfile
from stages.core.errors import Misuse
from stages.core.files import replacing
from stages.core.words import nearest
from stages.settings.section import Parameters, listed
from stages.settings.sections import Params, explain

Stage = TypeVar("Stage", bound=Parameters)

MARKS = re.compile(r"[?:\x85\u2028\u2029]")  # that YAML reads in another way within {} or []
SHORT = 3  # values that are written in one line
CHOSEN = "chosen: "  # begins the reason of a value in its comment
COLUMN = 31  # of comments


def parse(path: Path = Path("params.yaml")) -> Params:
    """Read and check the whole file.

    Raises:
        Misuse: a key is wrong; the message names it and, for an unknown key, the nearest one.
    """
    try:
        tree = _yaml(path)
    except MarkedYAMLError as error:
        lockfile.check_conflicts(path.parent)
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise Misuse("params-not-yaml", f"{path}, line {line}: {error.problem}") from error
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise Misuse("params-unreadable", f"{path} cannot be read: {error}") from error
    if not isinstance(tree, dict):
        what = "is empty" if tree is None else "has no sections"
        raise Misuse("params-empty", f"{path} {what}: `git checkout {path}` restores it")
    try:
        return TypeAdapter(Params).validate_python(tree)
    except ValidationError as error:
        first, *others = map(explain, error.errors())
        raise Misuse(first.code, f"{path}: " + "; ".join(map(str, (first, *others)))) from error


def load(stage: str, kind: type[Stage], path: Path = Path("params.yaml"), graph: Path = Path("dvc.yaml")) -> Stage:
    """The parameters of a stage. The whole file is checked, but only what `dvc.yaml` lists can be read."""
    keys = [key.split(".") for key in _yaml(graph)["stages"][stage].get("params", [])]
    whole = parse(path)
    return kind(
        **{
            field.name: listed(getattr(whole, field.name), [key for section, key in keys if section == field.name])
            for field in fields(kind)
        }
    )


def paths(graph: Path = Path("dvc.yaml")) -> dict[str, str]:
    """The paths of data, models and reports in `dvc.yaml`, by name.

    Raises:
        Misuse: `dvc.yaml` cannot be read.
    """
    try:
        return dict(_yaml(graph)["vars"][0]["paths"])
    except (YAMLError, LookupError, TypeError) as error:
        lockfile.check_conflicts(graph.parent)
        line = (
            f", line {error.problem_mark.line + 1}" if isinstance(error, MarkedYAMLError) and error.problem_mark else ""
        )
        raise Misuse(
            "dvc-yaml-unreadable", f"{graph}{line} cannot be read: `git checkout {graph}` restores it"
        ) from error


def stages(graph: Path = Path("dvc.yaml")) -> list[str]:
    """The names of the stages, in the order of `dvc.yaml`."""
    return list(_yaml(graph)["stages"])


def preset(name: str) -> dict[str, Any]:
    """A preset's values, section by section, as `edit` takes them.

    Raises:
        Misuse: there is no preset of this name.
    """
    folder = Path(__file__).parent / "presets"
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise Misuse("params-unknown-preset", f"there is no preset {name!r}{nearest(name, known)}")
    return dict(_yaml(folder / f"{name}.yaml"))


def edit(changes: dict[str, Any], path: Path = Path("params.yaml")) -> None:
    """Replace the values in `changes`, {section: {key: value}}; keep the rest of the file as it is."""
    with _edited(path) as tree:
        for section, keys in changes.items():
            for key, value in keys.items():
                _comment(tree[section], key, "")
                blank_after = _last_comment(tree[section], key).endswith("\n\n")
                tree[section][key] = _in_lines(value)
                _blanks_last(tree[section], key)
                if blank_after:
                    _set_comment(*_last(tree[section], key), _last_comment(tree[section], key).rstrip("\n"), "\n\n")


def merge(changes: dict[str, Any], path: Path = Path("params.yaml")) -> None:
    """Like `edit`, but keep the other keys of existing mappings at any depth. A new innermost mapping is one line."""
    with _edited(path) as tree:
        _merge(tree, changes)


def annotate(reasons: dict[str, dict[str, str]], path: Path = Path("params.yaml")) -> None:
    """Write why values were chosen, {section: {key: reason}}, behind the comments of their keys; `edit` removes it."""
    with _edited(path) as tree:
        for section, texts in reasons.items():
            for key, reason in texts.items():
                _comment(tree[section], key, reason)


def _comment(tree: Any, key: str, reason: str) -> None:
    """Set the reason in the comment of a key, or of the first key of a mapping below it; "" removes it."""
    while _is_block(tree.get(key)):
        tree, key = tree[key], next(iter(tree[key]))
    old = tree.ca.items.get(key, [None] * 3)[2]
    if old is None and not reason:
        return
    text, after = (old.value.rstrip("\n"), old.value[len(old.value.rstrip("\n")) :]) if old else ("", "\n")
    kept = text.removeprefix("#").partition(CHOSEN)[0].rstrip("; ")
    words = "; ".join(filter(None, [kept.strip(), reason and CHOSEN + reason]))
    _set_comment(tree, key, f"# {words}" if words else "", after)


def _set_comment(tree: Any, key: str, text: str, after: str) -> None:
    old = tree.ca.items.get(key, [None] * 3)[2]
    mark = CommentMark(old.start_mark.column if old else COLUMN)
    tree.ca.items[key] = [None, None, CommentToken(text + after, mark, None), None]


def _last(tree: Any, key: str) -> tuple[Any, str]:
    """The mapping and the key of the last line of a value."""
    while _is_block(tree.get(key)):
        tree, key = tree[key], list(tree[key])[-1]
    return tree, key


def _last_comment(tree: Any, key: str) -> str:
    tree, key = _last(tree, key)
    comment = tree.ca.items.get(key, [None] * 3)[2]
    return comment.value if comment else ""


def _merge(tree: Any, changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        below = tree.get(key)
        if not (isinstance(value, dict) and isinstance(below, dict)):
            tree[key if key in tree else _quoted(key)] = _in_line(value)
            continue
        grows = not below and any(isinstance(inner, dict) for inner in value.values())
        _merge(below, value)
        if grows:  # {} becomes a line for each key
            cast(CommentedMap, below).fa.set_block_style()
            _blanks_last(tree, key)


def _blanks_last(tree: Any, key: str) -> None:
    """Move the blank line after a key's comment behind the key's value."""
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
    """A mapping with a line for each key, or in one line if it is short and flat."""
    if not isinstance(value, dict) or (
        len(value) <= SHORT and not any(isinstance(inner, dict) for inner in value.values())
    ):
        return _in_line(value)
    return CommentedMap({_quoted(key): _in_lines(inner) for key, inner in value.items()})


def _in_line(value: Any) -> Any:
    if not isinstance(value, (dict, list)):
        return _quoted(value)
    written: Any = (
        CommentedMap({_quoted(key): _in_line(inner) for key, inner in value.items()})
        if isinstance(value, dict)
        else CommentedSeq(map(_in_line, value))
    )
    written.fa.set_flow_style()
    return written


def _quoted(value: Any) -> Any:
    """A text in double quotes if YAML could take one of its marks for its own: `paid?`, `area:m2`."""
    return DoubleQuotedScalarString(value) if isinstance(value, str) and MARKS.search(value) else value


@contextmanager
def _edited(path: Path) -> Iterator[Any]:
    """Yield the file's tree to change; write it if the block raises nothing and it can be read back."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 120
    yaml.representer.add_representer(type(None), lambda to, _: to.represent_scalar("tag:yaml.org,2002:null", "null"))
    tree = yaml.load(path.read_text(encoding="utf-8"))
    yield tree
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        yaml.dump(tree, file)
        file.flush()
        _yaml(partial)


def accepted(stage: str, path: Path = Path("params.yaml"), graph: Path = Path("dvc.yaml"), root: Path = Path()) -> bool:
    """Whether the last recorded run of a stage had the values that `params.yaml` has now."""
    tree = _yaml(path)
    recorded = lockfile.stages(root).get(stage, {}).get("params", {}).get(path.name)
    keys = _yaml(graph)["stages"][stage]["params"]
    return bool(recorded == {key: reduce(getitem, key.split("."), tree) for key in keys})


def _yaml(path: Path) -> Any:
    """Parse YAML as DVC does: version 1.2, in which 1e-3 is a number."""
    return YAML(typ="safe").load(Path(path).read_text(encoding="utf-8"))
