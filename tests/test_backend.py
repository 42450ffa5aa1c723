"""The two Python parts that run inside Triton, in a real server: our onnxruntime backend, and encode."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import stages.kinds
from serving.launcher import PROJECT, Endpoint, find_server, running
from serving.repository import BATCHING
from stages.schema import Column, Schema

grpc = pytest.importorskip("tritonclient.grpc")
http = pytest.importorskip("tritonclient.http")
np_to_triton_dtype = pytest.importorskip("tritonclient.utils").np_to_triton_dtype

ID = "0123456789ab"
ENCODE = f"toy_{ID}_encode"
CONFIG_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32", "int32": "TYPE_INT32"}

# Toy kinds, as SEAM describes them: a number that travels packed, and a text. Both may be missing.
KINDS = {
    "amount": """
import numpy as np
from stages.schema import Tensor
RAW, PACKED, OPTIONAL, ENCODER = "float64", True, True, "linear"
def raw(value):
    return float("nan") if value is None else float(value)
def transform(values, fitted):
    array = np.array(values, np.float64)
    if np.isinf(array).any():
        raise ValueError("infinite")
    return array.astype(np.float32)[:, None]
def tensor(fitted):
    return Tensor("float32", (1,))
""",
    "word": """
import numpy as np
from stages.schema import Tensor
RAW, PACKED, OPTIONAL, ENCODER = "str", False, True, "embedding"
def raw(value):
    return value or None
def transform(values, fitted):
    if "crash" in values:
        raise RuntimeError("a bug")
    return np.array([-1 if value is None else len(value) for value in values], np.int32)[:, None]
def tensor(fitted):
    return Tensor("int32", (1,))
""",
}
FITTED = {"height": 8, "width": 6, "channels": 1, "mean": [1.0], "std": [1.0]}
SCHEMA = Schema(
    (
        Column("photo", "image", {}, FITTED),
        Column("größe in m²", "amount"),
        Column("weight", "amount"),
        Column("note", "word"),
    ),
    Column("label", "target_class", {}, {"labels": ["a", "b"], "counts": [1, 1]}),
)


@pytest.fixture(scope="module")
def toy_kinds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("kinds")
    for name, text in KINDS.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    stages.kinds.__path__.append(str(folder))
    yield folder
    stages.kinds.__path__.remove(str(folder))
    for name in KINDS:
        sys.modules.pop(f"stages.kinds.{name}", None)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, toy_kinds: Path) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    _write_network(folder, "plain")
    _write_network(folder, "batching", more="dynamic_batching { max_queue_delay_microseconds: 30000 }")
    _write_network(folder, "twice", instances=2)
    _write_network(folder, "threads", threads=3)
    _write_network(folder, "unbatched", max_batch=0)
    _write_network(folder, "any_width", dims=-1)
    _write_texts(folder)
    _write_encode(folder, ENCODE, toy_kinds)
    return folder


@pytest.fixture(scope="module")
def endpoint(a_server: None, repository: Path) -> Iterator[Endpoint]:
    with running(repository, sorted(path.name for path in repository.iterdir()), drain_s=0) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def client(endpoint: Endpoint) -> Iterator[grpc.InferenceServerClient]:
    with grpc.InferenceServerClient(endpoint.grpc) as client:
        yield client


@pytest.fixture
def loaded(client: grpc.InferenceServerClient, endpoint: Endpoint, repository: Path, toy_kinds: Path) -> Any:
    """Load a model written during a test; a refusal says why."""

    def load(name: str) -> None:
        client.load_model(name, headers=endpoint.grpc_admin)

    return load


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("model", ["plain", "batching", "twice", "threads", "any_width"])
def test_network_answers_as_in_process(client: Any, repository: Path, model: str, rows: int) -> None:
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


def test_only_the_wanted_outputs_travel(client: Any) -> None:
    answer = _infer_network(client, "plain", _x(2), outputs=["total"])
    assert [output.name for output in answer.get_response().outputs] == ["total"]


def test_requests_are_batched_and_cut_apart(client: Any, repository: Path) -> None:
    requests = [_x(rows, seed=rows) for rows in (1, 2, 1, 3, 1, 2, 1, 1)]
    wanted = [["y"], ["total"]] * 4

    def ask(x: np.ndarray, outputs: list[str]) -> Any:
        return _infer_network(client, "batching", x, outputs)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, requests, wanted))
    for x, (name,), answer in zip(requests, wanted, answers, strict=True):
        np.testing.assert_allclose(answer.as_numpy(name), _in_process(repository, "batching", x)[name], rtol=1e-6)
    assert _largest_batch(client, "batching") > 3


def test_a_wrong_shape_or_type_is_an_error_of_its_request(client: Any) -> None:
    with pytest.raises(grpc.InferenceServerException, match=r"INVALID_ARGUMENT.*Expected \[-1,4\]"):
        _infer_network(client, "plain", np.zeros((1, 5), np.float32))  # Triton itself refuses what the config fixes
    with pytest.raises(grpc.InferenceServerException, match=r"INVALID_ARGUMENT.*data-type"):
        _infer_network(client, "plain", np.zeros((1, 4), np.int32))
    with pytest.raises(grpc.InferenceServerException, match="MatMul"):
        _infer_network(client, "any_width", np.zeros((1, 5), np.float32))
    for model in ("plain", "any_width"):
        _infer_network(client, model, _x(1))


def test_each_instance_is_a_session_of_its_own(endpoint: Endpoint) -> None:
    if find_server().environment is None:
        pytest.skip("this server may have the C++ backend, which has no processes")
    assert len(_stubs(endpoint, "twice")) == 2
    assert len(_stubs(endpoint, "plain")) == 1


def test_threads_are_those_of_the_config(endpoint: Endpoint) -> None:
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
def test_a_config_unlike_the_graph_is_refused(loaded: Any, repository: Path, change: tuple, complaint: str) -> None:
    if find_server().environment is None:
        pytest.skip("the C++ backend words it otherwise")
    name = f"unlike_{hashlib.sha256(complaint.encode()).hexdigest()[:8]}"
    _write_network(repository, name)
    config = repository / name / "config.pbtxt"
    config.write_text(config.read_text().replace(*change))
    with pytest.raises(grpc.InferenceServerException, match=f"(?s){complaint}"):
        loaded(name)


def test_weights_in_another_file_are_refused(loaded: Any, repository: Path) -> None:
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
def test_encode_answers_as_in_process(endpoint: Endpoint, module: Any, rows: int) -> None:
    raw = _rows(rows)
    with module.InferenceServerClient(getattr(endpoint, module.__name__.rpartition(".")[2])) as client:
        answer = _infer_encode(client, raw, module)
        for name, expected in SCHEMA.encode(raw).items():
            array = answer.as_numpy(name)
            assert array.dtype == expected.dtype
            np.testing.assert_array_equal(array, expected)
        assert [bytes(release).decode() for release in answer.as_numpy("release")] == [ID] * rows


def test_every_row_has_an_answer_id_of_its_own(client: Any) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda rows: _infer_encode(client, _rows(rows)), [1, 2, 3, 4] * 20))
    ids = [row.tobytes() for answer in answers for row in answer.as_numpy("answer_id")]
    assert len(set(ids)) == len(ids) == 200 and {len(one) for one in ids} == {16}


def test_no_output_ends_the_server_when_its_classes_are_asked_for(endpoint: Endpoint, client: Any) -> None:
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
def test_base64_of_no_picture_is_a_fault_of_its_column(client: Any, text: str) -> None:
    with pytest.raises(grpc.InferenceServerException, match=r"INVALID_ARGUMENT.*photo: not a picture"):
        _infer_encode(client, _rows(1) | {"photo": [text]})


def test_absent_optional_columns_are_missing(client: Any) -> None:
    raw = {"photo": _rows(2)["photo"]}
    answer = _infer_encode(client, raw)
    assert np.isnan(answer.as_numpy("amount")).all()
    assert answer.as_numpy("note").tolist() == [[-1], [-1]]


def test_only_the_guilty_request_fails(client: Any) -> None:
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


def test_other_golden_arrays_refuse_the_load(loaded: Any, repository: Path, toy_kinds: Path) -> None:
    name = f"golden_{ID}_encode"
    _write_encode(repository, name, toy_kinds)
    golden = repository / name / "1" / "golden.json"
    golden.write_text(re.sub(r'"sha256": "\w{4}', '"sha256": "0000', golden.read_text()))
    with pytest.raises(grpc.InferenceServerException, match=r"golden rows.*numpy 1.*Pillow"):
        loaded(name)


def test_absent_pillow_names_the_pin(loaded: Any, repository: Path, toy_kinds: Path) -> None:
    name = f"pillow_{ID}_encode"
    _write_encode(repository, name, toy_kinds)
    kind = repository / name / "1" / "stages" / "kinds" / "image.py"
    kind.write_text(kind.read_text(encoding="utf-8").replace("from PIL", "from no_such_PIL"), encoding="utf-8")
    with pytest.raises(grpc.InferenceServerException, match=f"pip install pillow=={_pin('requirements.lock')}"):
        loaded(name)


def test_a_name_without_release_refuses_the_load(loaded: Any, repository: Path, toy_kinds: Path) -> None:
    _write_encode(repository, "nameless_encode", toy_kinds)
    with pytest.raises(grpc.InferenceServerException, match="12 hex digits"):
        loaded("nameless_encode")


def test_one_pillow_everywhere() -> None:
    source = (PROJECT / "serving" / "encode.py").read_text(encoding="utf-8")
    container = (PROJECT / "serving" / "runtime" / "Containerfile").read_text(encoding="utf-8")
    pins = {_pin("requirements.lock"), _pin("serving/runtime/requirements.lock")}
    pins |= set(re.findall(r'PILLOW = "(.*?)"', source)) | set(re.findall(r"pillow==(\S+)", container))
    assert len(pins) == 1


def test_serving_writes_nothing_into_the_repository(endpoint: Endpoint, client: Any, repository: Path) -> None:
    _infer_encode(client, _rows(1))
    version = repository / ENCODE / "1"
    written = [str(path.relative_to(version)) for path in version.rglob("*") if path.suffix == ".pyc"]
    assert not written
    assert [path.name for path in version.rglob("__pycache__")] == ["__pycache__"]  # the empty file


def _write_network(
    repository: Path,
    name: str,
    *,
    more: str = "",
    instances: int = 1,
    threads: int = 1,
    max_batch: int = 64,
    dims: int = 4,
) -> None:
    """x float32 [N, 4] -> y float32 [N, 3] and total float32 [N, 1]."""
    weights = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["y"]),
            helper.make_node("ReduceSum", ["y", "axis"], ["total"], keepdims=1),
        ],
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4 if dims > 0 else "W"])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3]),
            helper.make_tensor_value_info("total", TensorProto.FLOAT, ["N", 1]),
        ],
        [
            numpy_helper.from_array(weights, "w"),
            helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
        ],
    )
    version = repository / name / "1"
    version.mkdir(parents=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, version / "model.onnx")
    batch = "" if max_batch else "-1, "
    (repository / name / "config.pbtxt").write_text(
        f'name: "{name}" backend: "onnxruntime" max_batch_size: {max_batch} {more}\n'
        f"instance_group {{ count: {instances} kind: KIND_CPU }}\n"  # without it Triton makes two of this backend
        f'input {{ name: "x" data_type: TYPE_FP32 dims: [ {batch}{dims} ] }}\n'
        f'output {{ name: "y" data_type: TYPE_FP32 dims: [ {batch}3 ] }}\n'
        f'output {{ name: "total" data_type: TYPE_FP32 dims: [ {batch}1 ] }}\n'
        f'parameters {{ key: "intra_op_thread_count" value {{ string_value: "{threads}" }} }}\n'
        'parameters { key: "inter_op_thread_count" value { string_value: "1" } }\n'
    )


def _write_texts(repository: Path) -> None:
    """s texts [N, 2] -> t, the same, and same bool [N, 1], whether both of a row are equal."""
    graph = helper.make_graph(
        [
            helper.make_node("Identity", ["s"], ["t"]),
            helper.make_node("Split", ["s"], ["a", "b"], axis=1, num_outputs=2),
            helper.make_node("Equal", ["a", "b"], ["same"]),
        ],
        "texts",
        [helper.make_tensor_value_info("s", TensorProto.STRING, ["N", 2])],
        [
            helper.make_tensor_value_info("t", TensorProto.STRING, ["N", 2]),
            helper.make_tensor_value_info("same", TensorProto.BOOL, ["N", 1]),
        ],
    )
    version = repository / "texts" / "1"
    version.mkdir(parents=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    onnx.save(model, version / "model.onnx")
    (repository / "texts" / "config.pbtxt").write_text(
        'name: "texts" backend: "onnxruntime" max_batch_size: 64\n'
        'input { name: "s" data_type: TYPE_STRING dims: [ 2 ] }\n'
        'output { name: "t" data_type: TYPE_STRING dims: [ 2 ] }\n'
        'output { name: "same" data_type: TYPE_BOOL dims: [ 1 ] }\n'
        "instance_group { count: 1 kind: KIND_CPU }\n"
        "dynamic_batching { max_queue_delay_microseconds: 30000 }\n"
    )


def _write_encode(repository: Path, name: str, toy_kinds: Path) -> None:
    version = repository / name / "1"
    (version / "stages" / "kinds").mkdir(parents=True)
    shutil.copyfile(PROJECT / "serving" / "encode.py", version / "model.py")
    shutil.copyfile(PROJECT / BATCHING, version / BATCHING.name)
    for path in ("stages/__init__.py", "stages/schema.py", "stages/kinds/__init__.py", "stages/kinds/image.py"):
        shutil.copyfile(PROJECT / path, version / path)
    for kind in KINDS:
        shutil.copyfile(toy_kinds / f"{kind}.py", version / "stages" / "kinds" / f"{kind}.py")
    (version / "__pycache__").touch()
    SCHEMA.dump(version / "schema.json")
    rows = _rows(4)
    digest = hashlib.sha256(b"".join(array.tobytes() for array in SCHEMA.encode(rows).values())).hexdigest()
    encoded = {**rows, "photo": [base64.b64encode(value).decode() for value in rows["photo"]]}
    golden = json.dumps({"rows": encoded, "sha256": digest}, ensure_ascii=False)
    (version / "golden.json").write_text(golden, encoding="utf-8")
    inputs = [
        f'input {{ name: "{column}" data_type: {"TYPE_FP64" if tensor.dtype == "float64" else "TYPE_STRING"}'
        f" dims: [ 1 ] optional: {str(tensor.optional).lower()} }}"
        for column, tensor in SCHEMA.inputs().items()
    ]
    outputs = [
        f'output {{ name: "{block.name}" data_type: {CONFIG_TYPES[block.tensor.dtype]}'
        f" dims: {list(block.tensor.shape)} }}"
        for block in SCHEMA.blocks()
    ]
    text = [
        f'name: "{name}" backend: "python" max_batch_size: 64',
        *inputs,
        *outputs,
        'output { name: "release" data_type: TYPE_UINT8 dims: [ 12 ] }',
        'output { name: "answer_id" data_type: TYPE_UINT8 dims: [ 16 ] }',
        "dynamic_batching { max_queue_delay_microseconds: 30000 }",
    ]
    (repository / name / "config.pbtxt").write_text("\n".join(text), encoding="utf-8")


def _rows(count: int) -> dict[str, list[Any]]:
    return {
        "photo": [_png(seed) for seed in range(count)],
        "größe in m²": [float("nan") if row == 1 else row / 3 for row in range(count)],
        "weight": [-1e-3 * row for row in range(count)],
        "note": ["", "schön", "a", "日本"][:count],
    }


def _png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 6), dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()


def _x(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 4)).astype(np.float32)


def _in_process(repository: Path, model: str, x: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(repository / model / "1" / "model.onnx")
    return dict(zip(["y", "total"], session.run(["y", "total"], {"x": x}), strict=True))


def _infer_network(client: Any, model: str, x: np.ndarray, outputs: list[str] | None = None) -> Any:
    wanted = [grpc.InferRequestedOutput(name) for name in outputs] if outputs else None
    return client.infer(model, [_tensor(grpc, "x", x)], outputs=wanted)


def _infer_encode(client: Any, raw: dict[str, list[Any]], module: Any = grpc) -> Any:
    return client.infer(ENCODE, [_column(module, *each) for each in raw.items()])


def _column(module: Any, name: str, values: list[Any]) -> Any:
    number = SCHEMA.inputs()[name].dtype == "float64"
    cells = [value.encode() if isinstance(value, str) else value for value in values]
    return _tensor(module, name, np.array(cells, np.float64 if number else np.object_)[:, None])


def _tensor(module: Any, name: str, array: np.ndarray) -> Any:
    tensor = module.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array)
    return tensor


def _largest_batch(client: Any, model: str) -> int:
    return max(int(batch.batch_size) for batch in client.get_inference_statistics(model).model_stats[0].batch_stats)


def _stubs(endpoint: Endpoint, model: str) -> list[psutil.Process]:
    processes = psutil.Process(endpoint.process.pid).children(recursive=True)
    return [process for process in processes if f"/{model}/1/" in " ".join(process.cmdline()[:2])]


def _pin(lock: str) -> str:
    match = re.search(r"^pillow==(\S+)", (PROJECT / lock).read_text(encoding="utf-8"), re.MULTILINE)
    assert match, f"{lock} pins no pillow"
    return match.group(1)
