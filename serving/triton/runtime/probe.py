"""Send a model the row that it is warmed up with, over HTTP; exit with 1 and say why if it does not answer.

    python3 probe.py MODEL [REPOSITORY] [HOST:PORT]

Triton's own health is good when a model's worker is dead or hangs. Standard library only: it runs in the container.
"""

import http.client
import json
import math
import re
import sys
from pathlib import Path

TIMEOUT_S = 5.0


def main(model: str, repository: str = "/models", address: str = "127.0.0.1:8000") -> str:
    """What is wrong; empty if nothing is."""
    config = (Path(repository) / model / "config.pbtxt").read_text(encoding="utf-8")
    found = re.search(rf'"({re.escape(model)}_([0-9a-f]{{12}})_encode)"', config)
    if found is None:
        return f"{repository}/{model} names no release"
    encode, release = found.groups()
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)
    inputs = json.loads(asked(connection, "GET", f"/v2/models/{model}"))["inputs"]
    rows = [(Path(repository) / encode / "warmup" / each["name"]).read_bytes() for each in inputs]
    described = [
        {
            "name": each["name"],
            "datatype": each["datatype"],
            "shape": [1, *each["shape"][1:]],
            "parameters": {"binary_data_size": len(row)},
        }
        for each, row in zip(inputs, rows, strict=True)
    ]
    header = json.dumps({"inputs": described}).encode()
    answer = asked(connection, "POST", f"/v2/models/{model}/infer", header + b"".join(rows), len(header))
    outputs = {output["name"]: output["data"] for output in json.loads(answer)["outputs"]}
    given = outputs.pop("release")  # a text in releases made by earlier versions, else ASCII codes
    if (given if isinstance(given[0], str) else ["".join(map(chr, given))]) != [release]:
        return f"{model} does not answer as release {release}"
    if not all(math.isfinite(value) for values in outputs.values() for value in values):
        return f"{model} answers with something else than numbers"
    return ""


def asked(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes = b"", header_length: int = 0
) -> str:
    """What the server answers. `header_length`: bytes of JSON that the body begins with; the tensors follow.

    Raises:
        OSError: it does not answer, or answers with an error.
    """
    connection.request(method, path, body, {"Inference-Header-Content-Length": str(header_length)} if body else {})
    response = connection.getresponse()
    text = response.read().decode()
    if response.status != 200:
        raise OSError(f"{path}: {response.status} {text}")
    return text


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]) or 0)
    except (OSError, http.client.HTTPException) as error:
        sys.exit(str(error) or repr(error))
