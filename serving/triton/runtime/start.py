"""Start a server with a key that no other user can read, and end all its processes together.

    python3 -I -S start.py [--parent=PID] KEY_FILE [NAME=VALUE ...] COMMAND ...

The launcher and the container start the server through this script. `{key}` in COMMAND stands for the key. Every user
can read the command line of a process, but only its owner can read its environment. So the command line contains
`{key}`, the environment contains the real arguments, and the two are swapped on the new process's stack before its
first instruction. Where tracing is forbidden, nothing is started, unless MILLRACE_VISIBLE_KEY=1 allows a key that all
users of the machine can read.

This process stays as the server's guard. It reaps the server's orphaned workers, which PID 1 may never do: a worker
lives until its dead parent is reaped. With --parent it ends when that process does. Standard library only and outside
any package, so that it starts in 30 ms and runs in the server's container.
"""

import ctypes
import os
import platform
import signal
import sys
from pathlib import Path

KEY = "{key}"
ALLOWED = "MILLRACE_VISIBLE_KEY"
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
PTRACE_PEEKDATA, PTRACE_POKEDATA, PTRACE_CONT, PTRACE_DETACH = 2, 5, 7, 17
PTRACE_GETREGSET, PTRACE_SEIZE = 0x4204, 0x4206
TRACE_EXEC, KILL_ON_EXIT = 1 << 4, 1 << 20  # options
EXECUTED = signal.SIGTRAP | 4 << 8
NT_PRSTATUS = 1
STACK_POINTER = {"x86_64": 19, "aarch64": 31}  # its index among the registers
WORD = 8

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long] * 4


class Visible(Exception):
    """Other users of this machine could read the key."""


class UserError(SystemExit):
    """Like that of stages.core.errors, which the container does not have: one line, and exit code 1."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(f"error: {sentence}  [{code}]")


def main(arguments: "list[str]") -> int:
    """Run the command until it ends, and return its exit code."""
    parent = int(arguments.pop(0).partition("=")[2]) if arguments[0].startswith("--parent=") else 0
    key = Path(arguments.pop(0)).read_text(encoding="utf-8").strip()
    if not key:
        raise UserError("key-empty", "the key file is empty: write a key into it")
    environment = dict(os.environ)
    while "=" in arguments[0]:
        name, _, value = arguments.pop(0).partition("=")
        environment[name] = value
    if parent:
        _end_with(parent)
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    os.umask(0o077)  # the server's shared memory contains the callers' requests
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        server = started(arguments, environment, key)
    except Visible as error:
        raise UserError(
            "key-visible", f"other users could read the administration key ({error}). {ALLOWED}=1 allows that"
        ) from None
    signal.signal(signal.SIGTERM, lambda *_: os.kill(server, signal.SIGTERM))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    ended, status = os.wait()
    while ended != server:
        ended, status = os.wait()
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def started(command: "list[str]", environment: "dict[str, str]", key: str) -> int:
    """Start `command` with the key in place of every `{key}`, and return its process id.

    Raises:
        Visible: other users could read the key, and MILLRACE_VISIBLE_KEY does not allow that.
    """
    try:
        return _hidden(command, environment, key)
    except OSError as error:
        if os.environ.get(ALLOWED) != "1":
            raise Visible(error.strerror) from error
    guard, server = os.getpid(), os.fork()
    if server == 0:
        _execute([argument.replace(KEY, key) for argument in command], environment, guard)
    return server


def _hidden(command: "list[str]", environment: "dict[str, str]", key: str) -> int:
    """Start `command` with a hidden key, and return its process id.

    Raises:
        OSError: this process may not trace another, or the command is a script.
    """
    hidden = [index for index, argument in enumerate(command) if KEY in argument]
    real = [command[index].replace(KEY, key).partition("=") for index in hidden]
    traced, go = os.pipe()
    guard, server = os.getpid(), os.fork()
    if server == 0:
        os.close(go)
        if not os.read(traced, 1):
            os._exit(127)
        _execute(command, {**{name: value for name, _, value in real}, **environment}, guard)
    os.close(traced)
    try:
        _trace(PTRACE_SEIZE, server, 0, TRACE_EXEC | KILL_ON_EXIT)
        os.write(go, b"1")
        _wait_executed(server)
        _swap(server, len(command), hidden)
        _trace(PTRACE_DETACH, server)
    except OSError:
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
        raise
    finally:
        os.close(go)
    return server


def _end_with(parent: int) -> None:
    """End the server and this process when the parent ends, and remove the shared memory, which nobody else may find.

    The launcher's folder, whose name is the prefix of that memory, may disappear together with the parent.
    """
    prefix = Path.cwd().name

    def end(*_: object) -> None:
        for region in Path("/dev/shm").glob(f"{prefix}?*"):
            if prefix and region.is_file():
                region.unlink(missing_ok=True)
        os.killpg(0, signal.SIGKILL)

    signal.signal(signal.SIGHUP, end)
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGHUP)
    if os.getppid() != parent:
        raise UserError("triton-orphaned", "the starting process has ended: start it again")


def _execute(command: "list[str]", environment: "dict[str, str]", guard: int) -> None:
    """Replace the new process by the server."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guard:
        os._exit(127)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    try:
        os.execvpe(command[0], command, environment)
    except OSError as error:
        fault = f"{command[0]} does not run: {error.strerror}: check the path and its rights"
        print(UserError("triton-not-executable", fault), file=sys.stderr, flush=True)
    os._exit(127)


def _wait_executed(server: int) -> None:
    """Wait for the new program's first instruction. Signals that arrive earlier are passed on."""
    while True:
        _, status = os.waitpid(server, 0)
        if not os.WIFSTOPPED(status):
            os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))
        if status >> 8 == EXECUTED:
            return
        _trace(PTRACE_CONT, server, 0, 0 if status >> 16 else os.WSTOPSIG(status))


def _swap(server: int, count: int, hidden: "list[int]") -> None:
    """Swap the arguments at the indices `hidden` with as many strings at the beginning of the environment.

    The stack contains argc, argv[0] ... argv[argc - 1], NULL, envp[0] ...
    """
    stack = _stack_pointer(server)
    if _trace(PTRACE_PEEKDATA, server, stack) != count:
        raise OSError(0, "the command is a script, which would pass the key on")
    arguments = stack + WORD
    environment = arguments + WORD * (count + 1)
    for place, index in enumerate(hidden):
        shown, real = arguments + WORD * index, environment + WORD * place
        values = _trace(PTRACE_PEEKDATA, server, shown), _trace(PTRACE_PEEKDATA, server, real)
        _trace(PTRACE_POKEDATA, server, shown, values[1])
        _trace(PTRACE_POKEDATA, server, real, values[0])


def _stack_pointer(server: int) -> int:
    if platform.machine() not in STACK_POINTER:
        raise OSError(0, f"{platform.machine()} is not supported")
    registers = (ctypes.c_ulong * 64)()
    place = (ctypes.c_ulong * 2)(ctypes.addressof(registers), ctypes.sizeof(registers))
    _trace(PTRACE_GETREGSET, server, NT_PRSTATUS, ctypes.addressof(place))
    return registers[STACK_POINTER[platform.machine()]]


def _trace(request: int, process: int, address: int = 0, data: int = 0) -> int:
    """Call ptrace(2).

    Raises:
        OSError: the kernel refuses the request.
    """
    ctypes.set_errno(0)
    result: int = _libc.ptrace(request, process, address, data)
    if ctypes.get_errno():
        raise OSError(ctypes.get_errno(), f"ptrace: {os.strerror(ctypes.get_errno())}")
    return result


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
