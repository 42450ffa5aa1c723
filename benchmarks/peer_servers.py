"""The same release served by FastAPI, by LitServe, and in process; runs in the peers' environment.

    python peer_servers.py fastapi|litserve|inprocess REPOSITORY NAME_ID SETTINGS

SETTINGS is JSON. A POST to `/network` takes the bytes of one row's array and returns its probabilities as bytes; one to
`/picture` takes an encoded image and returns class and probabilities as JSON.
"""

import contextlib
import json
import multiprocessing
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import litserve
import numpy as np
import onnxruntime
import orjson
import uvicorn
from fastapi import Body, Depends, FastAPI, Request, Response

from stages.schema import Schema


class Release:
    """The network and the schema of an exported release."""

    def __init__(self, repository: str, release: str, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        network = Path(repository, f"{release}_network", "1")
        self.session = onnxruntime.InferenceSession(network / "model.onnx", options)
        self.schema = Schema.load(Path(repository, f"{release}_encode", "1", "schema.json"))
        self.labels = (network / "probabilities.labels.txt").read_text(encoding="utf-8").splitlines()
        (self.block,) = self.schema.blocks()
        (self.column,) = self.schema.inputs()

    def answers(self, path: str, bodies: list[bytes]) -> list[bytes]:
        """The bodies of N requests to `path` -> the bodies of N responses."""
        if path == "/network":
            shape = self.block.tensor.shape
            rows = np.frombuffer(b"".join(bodies), self.block.tensor.dtype).reshape(len(bodies), *shape)
            return [row.tobytes() for row in self.probabilities(rows)]
        rows = self.schema.encode({self.column: bodies})[self.block.name]  # the code that the server's `encode` runs
        probabilities_NxC = self.probabilities(rows)
        return [
            orjson.dumps({"label": self.labels[best], "probabilities": row}, option=orjson.OPT_SERIALIZE_NUMPY)
            for best, row in zip(probabilities_NxC.argmax(1).tolist(), probabilities_NxC, strict=True)
        ]

    def probabilities(self, rows: np.ndarray) -> np.ndarray:
        """Arrays [N, *shape] -> [N, C]."""
        return self.session.run(["probabilities"], {self.block.name: rows})[0]


async def sent(request: Request) -> bytes:
    """The raw body."""
    return await request.body()


def fastapi_app(release: Release, threadpool: bool) -> FastAPI:
    """Endpoints on the event loop, or plain functions in FastAPI's thread pool."""
    app = FastAPI()

    async def answer(request: Request) -> Response:
        return Response(release.answers(request.url.path, [await request.body()])[0])

    def answer_in_pool(request: Request, body: Annotated[bytes, Depends(sent)]) -> Response:
        return Response(release.answers(request.url.path, [body])[0])

    for path in ("/network", "/picture"):
        app.post(path)(answer_in_pool if threadpool else answer)
    return app


def serve_fastapi(repository: str, name: str, port: int, workers: int, threads: int, threadpool: bool) -> None:
    """Uvicorn with uvloop and httptools; each worker has a session, and the kernel distributes the connections."""

    def work(listening: socket.socket) -> None:
        app = fastapi_app(Release(repository, name, threads), threadpool)
        config = uvicorn.Config(app, loop="uvloop", http="httptools", log_level="warning", access_log=False)
        uvicorn.Server(config).run([listening])

    first, *others = [socket.create_server(("127.0.0.1", port), reuse_port=True, backlog=512) for _ in range(workers)]
    for other in others:
        multiprocessing.get_context("fork").Process(target=work, args=(other,), daemon=True).start()
    work(first)


class Api(litserve.LitAPI):
    """Serves one path in batches of up to 64."""

    def __init__(self, repository: str, name: str, path: str, threads: int, wait_ms: float) -> None:
        super().__init__(max_batch_size=64, batch_timeout=wait_ms / 1000, api_path=path)
        self.made_of = (repository, name, threads)

    def setup(self, device: str) -> None:
        """Load the model."""
        self.release = Release(*self.made_of)

    def decode_request(self, request: Annotated[bytes, Body(media_type="application/octet-stream")]) -> bytes:
        """Pass the request's bytes on."""
        return request

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """Pass a list of requests on."""
        return inputs

    def predict(self, x: list[bytes]) -> list[bytes]:
        """Predict a list of requests."""
        return self.release.answers(self.api_path, x)

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        """Pass the list of answers on."""
        return output

    def encode_response(self, output: bytes) -> Response:
        """Send the answer's bytes."""
        return Response(output)


def serve_litserve(
    repository: str, name: str, port: int, path: str, workers: int, api_servers: int, threads: int, wait_ms: float
) -> None:
    """Serve batches with `workers`, behind `api_servers`."""
    api = Api(repository, name, path, threads, wait_ms)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=workers, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=port,
        num_api_servers=api_servers,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )


def work_in_process(
    repository: str, name: str, path: str, body: str, callers: int, threads: int, seconds: float
) -> None:
    """Predict one row after another in a thread for each caller; print the same JSON as wrk."""
    release, content = Release(repository, name, threads), Path(body).read_bytes()
    release.answers(path, [content])
    ends = time.perf_counter() + seconds

    def work(_: int) -> list[float]:
        taken_s = []
        while (began := time.perf_counter()) < ends:
            release.answers(path, [content])
            taken_s.append(time.perf_counter() - began)
        return taken_s

    with ThreadPoolExecutor(callers) as pool:
        taken_ms = 1000 * np.array([each for one in pool.map(work, range(callers)) for each in one])
    p50_ms, p99_ms = np.percentile(taken_ms, (50, 99))
    measured = {"requests_per_s": len(taken_ms) / seconds, "p50_ms": p50_ms, "p99_ms": p99_ms, "failed": 0}
    print(json.dumps(measured))


if __name__ == "__main__":
    kind, repository, name, settings = sys.argv[1:]
    run = {"fastapi": serve_fastapi, "litserve": serve_litserve, "inprocess": work_in_process}[kind]
    with contextlib.suppress(KeyboardInterrupt):
        run(repository, name, **json.loads(settings))
