"""Send a model its warm-up row over HTTP; print the reason and exit with 1 where it does not answer properly.

    python3 probe.py MODEL [REPOSITORY] [HOST:PORT]

Triton reports good health even when a model's worker is dead or hangs. Standard library only, because this runs in the
container.
"""

import http.client
import json
import math
import re
import sys
from pathlib import Path

TIMEOUT_S = 5.0


def main(model: str, repository: str = "/models", address: str = "127.0.0.1:8000") -> str:
    """Return what is wrong with the model; "" if nothing is."""
    config = (Path(repository) / model / "config.pbtxt").read_text(encoding="utf-8")
    match = re.search(rf'"({re.escape(model)}_([0-9a-f]{{12}})_encode)"', config)
    if match is None:
        return f"{repository}/{model} names no release"
    encode, release = match.groups()
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)
    inputs = json.loads(response_to(connection, "GET", f"/v2/models/{model}"))["inputs"]
    rows = [(Path(repository) / encode / "warmup" / tensor["name"]).read_bytes() for tensor in inputs]
    described = [
        {
            "name": tensor["name"],
            "datatype": tensor["datatype"],
            "shape": [1, *tensor["shape"][1:]],
            "parameters": {"binary_data_size": len(row)},
        }
        for tensor, row in zip(inputs, rows, strict=True)
    ]
    header = json.dumps({"inputs": described}).encode()
    answer = response_to(connection, "POST", f"/v2/models/{model}/infer", header + b"".join(rows), len(header))
    outputs = {output["name"]: output["data"] for output in json.loads(answer)["outputs"]}
    codes = outputs.pop("release")  # ASCII codes; a text in releases made by earlier versions
    if (codes if isinstance(codes[0], str) else ["".join(map(chr, codes))]) != [release]:
        return f"{model} does not answer as release {release}"
    if not all(math.isfinite(value) for values in outputs.values() for value in values):
        return f"{model} answers with values that are not finite numbers"
    return ""


def response_to(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes = b"", header_length: int = 0
) -> str:
    """Send a request and return the response's text.

    `header_length`: bytes of JSON at the beginning of the body; the tensors follow.

    Raises:
        OSError: the server does not answer, or answers with an error.
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
