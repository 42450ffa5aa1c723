"""The two Python parts that run inside Triton, in a real server: our ONNX backend and the encode model."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from serving.triton.launcher import PROJECT, Endpoint, find_server
from tests.support.toy_repository import (
    ENCODE,
    ID,
    SCHEMA,
    _column,
    _in_process,
    _infer_encode,
    _infer_network,
    _largest_batch,
    _png,
    _rows,
    _stubs,
    _tensor,
    _write_encode,
    _write_network,
    _x,
)

grpc = pytest.importorskip("tritonclient.grpc")
http = pytest.importorskip("tritonclient.http")
np_to_triton_dtype = pytest.importorskip("tritonclient.utils").np_to_triton_dtype


@pytest.fixture
def loaded(client: grpc.InferenceServerClient, endpoint: Endpoint, repository: Path, toy_kinds: Path) -> Any:
    """Return a function that loads a model that was written during the test."""

    def load(name: str) -> None:
        client.load_model(name, headers=endpoint.grpc_admin)

    return load


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("model", ["plain", "batching", "twice", "threads", "any_width"])
def test_the_network_gives_the_same_outputs_as_in_process(client: Any, repository: Path, model: str, rows: int) -> None:
    x = _x(rows)
    answer = _infer_network(client, model, x)
    for name, expected in _in_process(repository, model, x).items():
        np.testing.assert_allclose(answer.as_numpy(name), expected, rtol=1e-6)


def test_texts_go_in_and_out(endpoint: Endpoint) -> None:
    texts = np.array([["schön", "日本"], ["", "a\nb"], ["x" * 100_000, "z"]], object)

    def ask(module: Any, rows: np.ndarray) -> Any:
        with module.InferenceServerClient(getattr(endpoint, module.__name__.rpartition(".")[2])) as client:
            tensor = module.InferInput("s", rows.shape, "BYTES")
            tensor.set_data_from_numpy(rows)
            try:
                answer = client.infer("texts", [tensor])
            except grpc.InferenceServerException as error:
                return error
            return [[cell.decode() for cell in row] for row in answer.as_numpy("t")], answer.as_numpy("same").tolist()

    latin = np.array([[b"\xff", b"y"]], object)
    requests = [(grpc, texts), (http, texts), (grpc, latin), (grpc, texts[:1])]
    with ThreadPoolExecutor(4) as pool:
        one, two, broken, three = pool.map(ask, *zip(*requests, strict=True))
    assert one == two == (texts.tolist(), [[False], [False], [False]])
    assert three == (texts[:1].tolist(), [[False]])
    assert broken.status() == "StatusCode.INVALID_ARGUMENT" and "'s'" in broken.message()


def test_outputs_come_in_the_order_of_the_config(client: Any) -> None:
    for model, answer in (
        ("plain", _infer_network(client, "plain", _x(1))),
        ("plain", _infer_network(client, "plain", _x(1), outputs=["total", "y"])),
        (ENCODE, _infer_encode(client, _rows(1))),
    ):
        config = [output.name for output in client.get_model_metadata(model).outputs]
        assert [output.name for output in answer.get_response().outputs] == config


def test_unbatched_network(client: Any, repository: Path) -> None:
    x = _x(3)
    np.testing.assert_allclose(
        _infer_network(client, "unbatched", x).as_numpy("y"), _in_process(repository, "unbatched", x)["y"], rtol=1e-6
    )


def test_only_the_requested_outputs_are_sent(client: Any) -> None:
    answer = _infer_network(client, "plain", _x(2), outputs=["total"])
    assert [output.name for output in answer.get_response().outputs] == ["total"]


def test_requests_are_batched_and_split_again(client: Any, repository: Path) -> None:
    requests = [_x(rows, seed=rows) for rows in (1, 2, 1, 3, 1, 2, 1, 1)]
    wanted = [["y"], ["total"]] * 4

    def ask(x: np.ndarray, outputs: list[str]) -> Any:
        return _infer_network(client, "batching", x, outputs)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, requests, wanted))
    for x, (name,), answer in zip(requests, wanted, answers, strict=True):
        np.testing.assert_allclose(answer.as_numpy(name), _in_process(repository, "batching", x)[name], rtol=1e-6)
    assert _largest_batch(client, "batching") > 3


def test_a_wrong_shape_or_type_fails_only_its_request(client: Any) -> None:
    with pytest.raises(grpc.InferenceServerException, match=r"INVALID_ARGUMENT.*Expected \[-1,4\]"):
        _infer_network(client, "plain", np.zeros((1, 5), np.float32))  # Triton itself refuses what the config fixes
    with pytest.raises(grpc.InferenceServerException, match=r"INVALID_ARGUMENT.*data-type"):
        _infer_network(client, "plain", np.zeros((1, 4), np.int32))
    with pytest.raises(grpc.InferenceServerException, match="MatMul"):
        _infer_network(client, "any_width", np.zeros((1, 5), np.float32))
    for model in ("plain", "any_width"):
        _infer_network(client, model, _x(1))


def test_each_instance_has_its_own_session(endpoint: Endpoint) -> None:
    if find_server().environment is None:
        pytest.skip("this server may have the C++ backend, which has no processes")
    assert len(_stubs(endpoint, "twice")) == 2
    assert len(_stubs(endpoint, "plain")) == 1


def test_the_config_sets_the_number_of_threads(endpoint: Endpoint) -> None:
    if find_server().environment is None:
        pytest.skip("this server may have the C++ backend, whose threads are the server's")
    (one,), (three,) = _stubs(endpoint, "plain"), _stubs(endpoint, "threads")
    assert three.num_threads() - one.num_threads() == 2  # the calling thread counts


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (('"total"', '"sum"'), "output 'sum'.*'total'"),
        (("TYPE_FP32 dims: [ 4 ]", "TYPE_INT32 dims: [ 4 ]"), "input 'x'.*TYPE_INT32"),
        (("dims: [ 3 ]", "dims: [ 2 ]"), "output 'y'.*2"),
    ],
)
def test_a_config_that_differs_from_the_graph_is_rejected(
    loaded: Any, repository: Path, change: tuple, complaint: str
) -> None:
    if find_server().environment is None:
        pytest.skip("the C++ backend words it otherwise")
    name = f"unlike_{hashlib.sha256(complaint.encode()).hexdigest()[:8]}"
    _write_network(repository, name)
    config = repository / name / "config.pbtxt"
    config.write_text(config.read_text().replace(*change))
    with pytest.raises(grpc.InferenceServerException, match=f"(?s){complaint}"):
        loaded(name)


def test_weights_in_another_file_are_rejected(loaded: Any, repository: Path) -> None:
    if find_server().environment is None:
        pytest.skip("the C++ backend takes them")
    _write_network(repository, "external")
    path = repository / "external" / "1" / "model.onnx"
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(grpc.InferenceServerException, match="External data"):
        loaded("external")


@pytest.mark.parametrize("module", [grpc, http])
@pytest.mark.parametrize("rows", [1, 3])
def test_encode_gives_the_same_outputs_as_in_process(endpoint: Endpoint, module: Any, rows: int) -> None:
    raw = _rows(rows)
    with module.InferenceServerClient(getattr(endpoint, module.__name__.rpartition(".")[2])) as client:
        answer = _infer_encode(client, raw, module)
        for name, expected in SCHEMA.encode(raw).items():
            array = answer.as_numpy(name)
            assert array.dtype == expected.dtype
            np.testing.assert_array_equal(array, expected)
        assert [bytes(release).decode() for release in answer.as_numpy("release")] == [ID] * rows


def test_every_row_has_its_own_answer_id(client: Any) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda rows: _infer_encode(client, _rows(rows)), [1, 2, 3, 4] * 20))
    ids = [row.tobytes() for answer in answers for row in answer.as_numpy("answer_id")]
    assert len(set(ids)) == len(ids) == 200 and {len(one) for one in ids} == {16}


def test_requesting_classes_of_any_output_does_not_end_the_server(endpoint: Endpoint, client: Any) -> None:
    columns = [_column(grpc, *each) for each in _rows(2).items()]
    for model, inputs in (("plain", [_tensor(grpc, "x", _x(2))]), (ENCODE, columns)):
        for output in client.get_model_metadata(model).outputs:
            for count in (1, 1000):
                wanted = [grpc.InferRequestedOutput(output.name, class_count=count)]
                assert client.infer(model, inputs, outputs=wanted).as_numpy(output.name).shape[0] == 2
    assert endpoint.process.poll() is None


def test_a_picture_in_json_is_base64(endpoint: Endpoint) -> None:
    picture = _png(0)
    plain, wrapped = base64.b64encode(picture).decode(), base64.encodebytes(picture).decode()
    data = [plain, wrapped, f"data:image/png;base64,{plain}"]
    expected = SCHEMA.encode({"photo": [picture]})["photo"].ravel().tolist()
    photo = {"name": "photo", "datatype": "BYTES", "shape": [3, 1], "data": data}
    weight = {"name": "weight", "datatype": "FP64", "shape": [3, 1], "data": [1, 2, 3]}
    body = json.dumps({"inputs": [photo, weight], "outputs": [{"name": "photo"}]}).encode()
    request = urllib.request.Request(f"http://{endpoint.http}/v2/models/{ENCODE}/infer", body)
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert json.load(answer)["outputs"][0]["data"] == expected * 3


@pytest.mark.parametrize("text", ["aGVsbG8h", "hello", "AAAA" + "\n" * 1_000_000 + "!"])
def test_base64_of_something_else_is_an_error_of_its_column(client: Any, text: str) -> None:
    with pytest.raises(grpc.InferenceServerException, match=r"INVALID_ARGUMENT.*photo: not a picture"):
        _infer_encode(client, _rows(1) | {"photo": [text]})


def test_absent_optional_columns_are_missing(client: Any) -> None:
    raw = {"photo": _rows(2)["photo"]}
    answer = _infer_encode(client, raw)
    assert np.isnan(answer.as_numpy("amount")).all()
    assert answer.as_numpy("note").tolist() == [[-1], [-1]]


def test_only_the_bad_request_of_a_batch_fails(client: Any) -> None:
    good, absent = _rows(2), {"photo": _rows(1)["photo"], "weight": [2.5]}
    broken = _rows(3) | {"photo": [_png(0), b"no picture", _png(1)]}
    infinite = _rows(1) | {"weight": [float("inf")]}
    no_text = _rows(2) | {"note": ["text", b"\xff\xfe"]}
    bug = _rows(1) | {"note": ["crash"]}
    requests = [good, broken, absent, infinite, good, no_text, bug, absent]

    def ask(raw: dict[str, list[Any]]) -> Any:
        try:
            return _infer_encode(client, raw)
        except grpc.InferenceServerException as error:
            return error

    with ThreadPoolExecutor(len(requests)) as pool:
        answers = list(pool.map(ask, requests))
    assert _largest_batch(client, ENCODE) > 3  # they did meet
    for raw, answer in zip(requests, answers, strict=True):
        if raw in (good, absent):
            for name, expected in SCHEMA.encode(raw).items():
                np.testing.assert_array_equal(answer.as_numpy(name), expected)
    codes = {index: answers[index].status() for index in (1, 3, 5, 6)}
    invalid, internal = "StatusCode.INVALID_ARGUMENT", "StatusCode.INTERNAL"
    assert codes == {1: invalid, 3: invalid, 5: invalid, 6: internal}
    for index, words in {1: "row 1: photo: not a picture", 3: "weight: ", 5: "row 1: note: not UTF-8"}.items():
        assert words in str(answers[index])
    assert "RuntimeError: a bug" in str(answers[6])


def test_a_model_with_other_golden_arrays_is_not_loaded(loaded: Any, repository: Path, toy_kinds: Path) -> None:
    name = f"golden_{ID}_encode"
    _write_encode(repository, name, toy_kinds)
    golden = repository / name / "1" / "golden.json"
    golden.write_text(re.sub(r'"sha256": "\w{4}', '"sha256": "0000', golden.read_text()))
    with pytest.raises(grpc.InferenceServerException, match=r"golden rows.*numpy 1.*Pillow"):
        loaded(name)


def test_a_missing_pillow_is_reported_with_its_version(loaded: Any, repository: Path, toy_kinds: Path) -> None:
    name = f"pillow_{ID}_encode"
    _write_encode(repository, name, toy_kinds)
    kind = repository / name / "1" / "stages/schema/kinds/image.py"
    kind.write_text(kind.read_text(encoding="utf-8").replace("from PIL", "from no_such_PIL"), encoding="utf-8")
    with pytest.raises(grpc.InferenceServerException, match=f"pip install pillow=={_pin('requirements.lock')}"):
        loaded(name)


def test_a_model_name_without_a_release_is_not_loaded(loaded: Any, repository: Path, toy_kinds: Path) -> None:
    _write_encode(repository, "nameless_encode", toy_kinds)
    with pytest.raises(grpc.InferenceServerException, match="12 hex digits"):
        loaded("nameless_encode")


def test_the_same_pillow_is_pinned_everywhere() -> None:
    source = (PROJECT / "serving/triton/backends/encode.py").read_text(encoding="utf-8")
    container = (PROJECT / "serving/deploy/Containerfile").read_text(encoding="utf-8")
    pins = {_pin("requirements.lock"), _pin("serving/triton/runtime/requirements.lock")}
    pins |= set(re.findall(r'PILLOW = "(.*?)"', source)) | set(re.findall(r"pillow==(\S+)", container))
    assert len(pins) == 1


def test_serving_writes_nothing_into_the_repository(endpoint: Endpoint, client: Any, repository: Path) -> None:
    _infer_encode(client, _rows(1))
    version = repository / ENCODE / "1"
    written = [str(path.relative_to(version)) for path in version.rglob("*") if path.suffix == ".pyc"]
    assert not written
    assert [path.name for path in version.rglob("__pycache__")] == ["__pycache__"]  # the empty file


def _pin(lock: str) -> str:
    match = re.search(r"^pillow==(\S+)", (PROJECT / lock).read_text(encoding="utf-8"), re.MULTILINE)
    assert match, f"{lock} pins no pillow"
    return match.group(1)
