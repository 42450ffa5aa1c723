"""The key of a server's administration is hidden from all other users of the machine."""

from __future__ import annotations

import json
import os
import secrets
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from tritonclient.utils import InferenceServerException

from serving.releases.store import Store
from serving.triton.launcher import running
from serving.triton.wire import connected
from tests.support.project import ROOT
from tests.support.toy_model import write_model

START = [sys.executable, "-I", "-S", str(ROOT / "serving/triton/runtime/start.py")]
PYTHON = str(Path(sys.executable).resolve())
NOBODY = 65534

# As another user, reads what it can of every process until its standard input is closed, and prints what it has seen.
WATCH = f"""
import glob, json, os, select, sys
key = sys.stdin.readline().strip().encode()
os.setgroups([]), os.setgid({NOBODY}), os.setuid({NOBODY})
seen = {{"key": [], "server": 0}}
print("watching", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    for path in glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/proc/[0-9]*/environ"):
        try:
            with open(path, "rb") as file:
                held = file.read()
        except OSError:
            continue
        seen["key"] += [path] if key in held else []
        seen["server"] += b"tritonserver\\0--model-repository=" in held
print(json.dumps(seen))
"""

# Runs its arguments where the kernel forbids tracing (system call 101 of x86-64), as a strict container does.
FORBIDDEN = """
import ctypes, os, struct, sys
rules = [(0x20, 0, 0, 0), (0x15, 0, 1, 101), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
program = b"".join(struct.pack("<HBBI", *rule) for rule in rules)
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("rules", ctypes.c_char_p)]
prctl = ctypes.CDLL(None).prctl
assert prctl(38, 1, 0, 0, 0) == 0 and prctl(22, 2, ctypes.byref(Filter(len(rules), program)), 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""


@contextmanager
def watched(key: str) -> Iterator[dict[str, Any]]:
    """Yield a dict that receives what another user's process sees while the block lasts."""
    if os.getuid() != 0:
        pytest.skip("only root can start a process of another user")
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", WATCH], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin and process.stdout
    seen: dict[str, Any] = {}
    try:
        print(key, file=process.stdin, flush=True)
        assert process.stdout.readline() == "watching\n"
        yield seen
    finally:
        seen |= json.loads(process.communicate()[0])


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    write_model(folder, "first", 0)
    return folder


def test_no_other_user_sees_the_key(a_server, repository, tmp_path):
    key, log = secrets.token_hex(16), tmp_path / "triton.log"
    with watched(key) as seen, running(repository, ["first"], admin_key=key, log=log, drain_s=0) as endpoint:
        processes = psutil.Process(endpoint.process.pid).children(recursive=True)
        holders = [each.name() for each in processes if key in json.dumps(each.environ())]
        assert holders == ["tritonserver"]  # and no worker, which runs the code of the models
        assert not any(key in " ".join(each.cmdline()) for each in processes)
        with connected(endpoint.grpc) as client:
            assert client.get_model_repository_index(headers=endpoint.grpc_admin).models
            with pytest.raises(InferenceServerException) as error:
                client.get_model_repository_index(headers=dict.fromkeys(endpoint.grpc_admin, "x"))
        assert key not in str(error.value) + repr(endpoint) + log.read_text()
    assert seen["key"] == []
    assert seen["server"] > 0


def test_only_the_owner_can_read_the_key_file(tmp_path):
    before = os.umask(0)
    try:
        store = Store(tmp_path / "live")
        assert len(store.key) == 32
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "live" / "key").stat().st_mode) == 0o600


def started(
    *command: str, key: str = "s3cret", before: tuple[str, ...] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, *START, "/dev/stdin", *command],
        input=key,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )


SHOW = (
    "import json, os, sys; own = lambda name: open(f'/proc/self/{name}').read().split(chr(0));"
    "print(json.dumps({'given': sys.argv[1:], 'shown': own('cmdline'), 'variables': dict(os.environ)}))"
)


@pytest.mark.parametrize("arguments", [["--a=1:{key}"], ["--a=x={key}", "--b", "--c={key}-{key}"], ["--plain"], []])
def test_the_command_gets_the_key_and_its_command_line_does_not_show_it(arguments):
    result = json.loads(started("EXTRA=a=b", PYTHON, "-I", "-c", SHOW, *arguments).stdout)
    assert result["given"] == [argument.replace("{key}", "s3cret") for argument in arguments]
    assert result["shown"][: len(arguments) + 4] == [PYTHON, "-I", "-c", SHOW, *arguments]
    assert "s3cret" not in json.dumps(result["variables"]) and result["variables"]["EXTRA"] == "a=b"


def test_files_of_the_server_are_private(tmp_path):
    code = f"open({str(tmp_path / 'made')!r}, 'w')"
    assert started(PYTHON, "-c", code).returncode == 0
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o600


@pytest.mark.parametrize(("code", "ends"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 15)", 143)])
def test_the_exit_code_is_that_of_the_command(code, ends):
    assert started(PYTHON, "-c", code, "{key}=").returncode == ends


def test_sigterm_is_passed_on():
    code = "import signal, sys; print('begun', flush=True); signal.sigwait([15]); sys.exit(5)"
    code = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [15]);" + code
    process = subprocess.Popen(
        [*START, "/dev/stdin", PYTHON, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin and process.stdout
    with process.stdin:
        process.stdin.write("s3cret")
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 5
    process.stdout.close()


def test_a_script_does_not_get_the_key(tmp_path):
    """Its interpreter's command line would show the key, and so would those of its children."""
    script = tmp_path / "server"
    script.write_text("#!/bin/sh\necho $@\n")
    script.chmod(0o755)
    result = started(str(script), "--a={key}")
    assert result.returncode == 1 and "MILLRACE_VISIBLE_KEY" in result.stderr and not result.stdout
    assert started(str(script), "--a={key}", MILLRACE_VISIBLE_KEY="1").stdout == "--a=s3cret\n"


def test_nothing_starts_where_the_key_cannot_be_hidden():
    before = (PYTHON, "-I", "-c", FORBIDDEN)
    command = (PYTHON, "-I", "-c", SHOW, "--a={key}")
    result = started(*command, before=before)
    assert result.returncode == 1 and "MILLRACE_VISIBLE_KEY" in result.stderr and not result.stdout
    assert len(result.stderr.splitlines()) == 1
    allowed = json.loads(started(*command, before=before, MILLRACE_VISIBLE_KEY="1").stdout)
    assert allowed["given"] == ["--a=s3cret"] and "--a=s3cret" in allowed["shown"]


def test_the_launcher_reports_why_the_key_cannot_be_hidden(a_server, repository):
    code = (
        "from pathlib import Path; from serving.triton.launcher import running\n"
        f"with running(Path({str(repository)!r}), ['first'], drain_s=0): pass"
    )
    result = subprocess.run(
        [PYTHON, "-I", "-c", FORBIDDEN, sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1 and "UserError" in result.stderr and "MILLRACE_VISIBLE_KEY" in result.stderr


def test_nothing_starts_without_a_key(tmp_path):
    result = started(PYTHON, "-c", "print(1)", key="\n")
    assert result.returncode == 1 and result.stderr.startswith("error: ") and not result.stdout
