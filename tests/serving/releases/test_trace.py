"""A trace from an answer to the data: every link holds, an altered byte is found, and the state is restored."""

from __future__ import annotations

import contextlib
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serving.releases import git_history
from serving.releases.saved_answers import named
from serving.releases.store import Store
from serving.releases.trace import Trace, check_new, follow, restore
from serving.triton.launcher import find_server
from stages.core.errors import Misuse, UserError
from tests.support.failing import failing
from tests.support.project import Clone
from tests.support.releases import flipped

DVC = (sys.executable, "-m", "dvc")


@pytest.fixture(scope="module")
def released(finished: Clone, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which everything has run and was released. A test copies it, or undoes its changes."""
    try:
        find_server()
    except UserError as error:
        pytest.skip(str(error))
    made = finished.copy(tmp_path_factory.mktemp("released") / "project")
    (made.folder / ".output").unlink()
    assert "git alone could not restore" not in made.millrace("release")
    assert made.run("git", "status", "--porcelain") == ""
    return made


@pytest.fixture(scope="module")
def release(released: Clone) -> str:
    """The id of its release."""
    return str(Store(released.folder / "live").current("digits"))


@pytest.fixture
def other(released: Clone, tmp_path: Path) -> Clone:
    """A copy that a test may change."""
    return released.copy(tmp_path / "other")


def traced(project: Clone, release: str) -> Trace:
    return follow(project.folder, Store(project.folder / "live"), release)


def faults(project: Clone, release: str) -> list[str]:
    """List the faults of the links that do not hold."""
    links = traced(project, release).links
    return [fault for link in links for fault in [*link.broken, *link.absent, *link.copies]]


@contextlib.contextmanager
def altered(path: Path) -> Iterator[None]:
    """Flip one bit of a file until the block ends."""
    content, mode = path.read_bytes(), path.stat().st_mode
    flipped(path)
    yield
    path.write_bytes(content)
    path.chmod(mode)


def test_a_saved_answer_is_traced_through_every_link(released, release, tmp_path):
    (tmp_path / "answers.jsonl").write_text(json.dumps({"input": "7.png", "label": "7", "release": release}) + "\n")
    output = released.millrace("trace", str(tmp_path / "answers.jsonl"))
    state = git_history.head(released.folder)
    for path, md5 in state.outputs.items():
        assert f"{path}  md5 {md5}" in output
    for expected in (f"sha256 {release}", "verdict", "pass, accuracy", "accepted: 1,797 rows", "train.epochs"):
        assert expected in output
    assert f"commit {state.commit}" in output and "links hold" in output and "error:" not in output


def cached(state: git_history.State, path: str) -> Path:
    """Return DVC's object of an output, or of a file in an output."""
    for out, md5 in (state.outputs | state.added).items():
        if path == out:
            return state.object(md5)
        if path.startswith(f"{out}/"):
            return state.object(state.members(md5)[path.removeprefix(f"{out}/")])
    raise KeyError(path)


@pytest.mark.parametrize(
    "path",
    [
        "models/weights.safetensors",
        "models/repository/digits_ID_network/1/model.onnx",
        "champion/repository/digits/config.pbtxt",
        "data/table.parquet",
        "data/arrays",
        "data/arrays/train/00.npy",
        "data/builtin/digits/7/0007.png",
        "reports/metrics.json",
        "reports/validation/validation.json",
        "reports/verdict.json",
        "reports/answers/answers.npz",
    ],
)
def test_an_altered_byte_in_the_cache_is_found(released, release, path, tmp_path):
    path = path.replace("ID", release)
    kept = cached(git_history.head(released.folder), path)
    with altered(kept):
        trace = traced(released, release)
        broken = [fault for link in trace.links for fault in link.broken]
        assert any(fault.startswith(f"{path}: {kept} in DVC's cache has other bytes") for fault in broken), broken
        with failing(UserError, "trace-broken"):
            restore(trace, tmp_path / "restored")
    assert faults(released, release) == [] and not (tmp_path / "restored").exists()


@pytest.mark.parametrize(
    "path",
    [
        "champion/manifest.json",
        "champion/verdict.json",
        "champion/golden.json",
        "champion/statistics.json",
        "champion/repository.dvc",
        "champion/repository/digits_ID_network/1/model.onnx",
        "live/releases/ID/manifest.json",
        "live/releases/ID/verdict.json",
        "live/releases/ID/statistics.json",
        "live/repository/digits_ID_network/1/model.onnx",
        "live/repository/digits/config.pbtxt",
        "models/weights.safetensors",
        "data/builtin/digits/7/0007.png",
        "reports/verdict.json",
    ],
)
def test_an_altered_byte_in_a_copy_is_found(released, release, path):
    path = path.replace("ID", release)
    with altered(released.folder / path):
        messages = faults(released, release)
    assert len(messages) == 1 and path in messages[0], messages


def test_the_command_exits_with_1_for_an_altered_byte(released, release):
    with altered(released.folder / "models" / "weights.safetensors"):
        output = released.millrace("trace", release, code=1)
    assert "error: weights: models/weights.safetensors has other bytes here: `dvc checkout" in output


@pytest.mark.parametrize("path", ["champion/manifest.json", "champion/verdict.json", "stages/train.py"])
def test_a_forged_object_in_git_is_found(released, release, path):
    """The object is altered and compressed again, so that git itself reads it without an error."""
    blob = git_history.head(released.folder).blobs[path]
    file = released.folder / ".git" / "objects" / blob[:2] / blob[2:]
    content, mode = file.read_bytes(), file.stat().st_mode
    forged = bytearray(zlib.decompress(content))
    forged[-9] ^= 1
    file.chmod(0o644)
    file.write_bytes(zlib.compress(bytes(forged)))
    try:
        messages = faults(released, release)
    except UserError as error:
        messages = [str(error)]
    finally:
        file.write_bytes(content)
        file.chmod(mode)
    assert any(path in fault and blob in fault for fault in messages), messages


def test_an_altered_byte_in_git_is_found(released, release):
    blob = git_history.head(released.folder).blobs["champion/verdict.json"]
    with altered(released.folder / ".git" / "objects" / blob[:2] / blob[2:]), pytest.raises(UserError) as caught:
        faults(released, release)
    assert str(caught.value).startswith("champion/verdict.json: `git cat-file` failed") and blob in str(caught.value)


def test_absent_files_are_reported(other, release, tmp_path):
    cached(git_history.head(other.folder), "models/weights.safetensors").unlink()
    trace = traced(other, release)
    assert [link.absent for link in trace.links if link.absent] == [
        ["models/weights.safetensors is not here: `dvc fetch --all-commits`"]
    ]
    assert not trace.holds
    with pytest.raises(UserError, match="dvc fetch"):
        restore(trace, tmp_path / "restored")


def test_weights_other_than_the_manifests_are_found(other, release):
    """dvc.lock is consistent, but with other weights than those that were exported."""
    made, lock = git_history.head(other.folder).outputs, other.folder / "dvc.lock"
    lock.write_text(lock.read_text().replace(made["models/weights.safetensors"], made["reports/metrics.json"]))
    other.run("git", "commit", "-q", "--amend", "--no-edit", "--all")
    assert "models/weights.safetensors is not the source that the manifest names" in faults(other, release)


def test_uncommitted_code_and_parameters_are_found(other, release):
    for path, text in (
        ("stages/train.py", "LIMIT = 1\n"),
        ("stages/gate.py", "# a comment\n"),
        ("stages/networks/encoders/mine.py", ""),
    ):
        with (other.folder / path).open("a") as file:
            file.write(text)
    other.params(train={"epochs": 3})
    other.run("git", "add", "--all")
    other.run("git", "commit", "-q", "--amend", "--no-edit")
    messages = faults(other, release)
    assert "epochs is 3 in params.yaml, but the stages ran with 20" in "".join(messages)
    differing = [message for message in messages if "is not in git as the stages read it" in message]
    assert differing == ["stages/train.py is not in git as the stages read it: commit it as it was, or run again"]
    (other.folder / "stages/networks/encoders/mine.py").unlink()
    other.run("git", "checkout", "-q", "HEAD@{1}", "--", "stages", "params.yaml")
    other.run("git", "commit", "-qam", "as it ran")
    assert faults(other, release) == []


def test_the_state_of_a_release_is_restored(other, release, tmp_path):
    """It works although the project has changed since."""
    other.params(train={"epochs": 3})
    (other.folder / "stages" / "train.py").unlink()
    other.run("git", "commit", "-qam", "later")
    flipped(other.folder / "models" / "weights.safetensors")
    output = other.millrace("trace", release, "--restore", str(tmp_path / "restored"), code=1)
    assert "weights.safetensors has other bytes here" in output and "restored to" in output
    restored = Clone(tmp_path / "restored")
    assert "up to date" in restored.run(*DVC, "repro")
    assert restored.run("git", "status", "--porcelain") == ""
    assert "epochs: 20" in (restored.folder / "params.yaml").read_text()
    kept = restored.folder / "models" / "weights.safetensors"
    assert git_history.digest(kept, "md5") == git_history.head(restored.folder).outputs["models/weights.safetensors"]
    with failing(Misuse, "trace-folder-exists"):
        check_new(restored.folder)


def test_an_unknown_release_is_reported_with_the_existing_ones(released, release):
    output = released.millrace("trace", "0123456789ab", code=1)
    assert output == f"error: git knows of no release 0123456789ab; it knows {release}  [trace-unknown-release]\n"


def test_an_uncommitted_release_is_reported(other, release):
    other.run("git", "reset", "-q", "HEAD~1")
    with failing(UserError, "trace-unknown-release", release):
        traced(other, release)


ROWS = [{"input": "a", "release": "0123456789ab"}, {"input": "b", "release": None}, {"release": "ba9876543210"}] * 2


def test_releases_are_read_from_every_format_of_saved_answers(tmp_path):
    table = pa.Table.from_pylist(ROWS)
    pq.write_table(table, tmp_path / "a.parquet")
    pq.write_table(table.drop_columns("release"), tmp_path / "none.parquet")
    (tmp_path / "a.csv").write_text("input,release\n" + "".join(f"x,{row['release'] or ''}\n" for row in ROWS))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "a.json").write_text(json.dumps({"answers": ROWS}, indent=1))
    for name in ("a.parquet", "a.csv", "a.jsonl", "a.json"):
        assert named(str(tmp_path / name)) == ["0123456789ab", "ba9876543210"], name
    triton = {"outputs": [{"name": "release", "datatype": "BYTES", "shape": [1, 1], "data": ["0123456789ab"]}]}
    codes = [*b"0123456789ab", *b"ba9876543210"]
    coded = {"outputs": [{"name": "release", "datatype": "UINT8", "shape": [2, 12], "data": codes}]}
    assert named(json.dumps(coded)) == ["0123456789ab", "ba9876543210"]
    assert named(json.dumps(triton)) == named(json.dumps(ROWS[0])) == named("0123456789ab") == ["0123456789ab"]
    with failing(Misuse, "trace-no-release"):
        named(str(tmp_path / "none.parquet"))
    (tmp_path / "broken.json").write_text('{"release"')
    for unreadable in (str(tmp_path / "broken.json"), "{", str(tmp_path)):
        with failing(Misuse, "trace-unreadable"):
            named(unreadable)
    with failing(Misuse, "trace-no-answers"):
        named("nowhere.csv")
