"""Print a Python interpreter that can run the Triton server from PyPI, or print what this machine lacks and exit 1.

Standard library only, and Python 3.6 syntax: it runs before there is any environment.
"""

import os
import platform
import subprocess
import sys

GLIBC = (2, 35)
VERSIONS = ("3.12", "3.11")  # numpy 1 has no wheels for newer ones

# Runs in a candidate interpreter. Prints its version and its path, then a line for each thing that it lacks.
PROBE = """
import os, subprocess, sys, sysconfig
version = "%d.%d" % sys.version_info[:2]
print(version)
print(sys.executable)
if version not in sys.argv[1:]:
    print("is Python " + version)
    sys.exit()
library = "libpython%s.so.1.0" % version
found = os.path.isfile(os.path.join(sysconfig.get_config_var("LIBDIR") or "", library))
if not found and sys.base_prefix == "/usr":
    # Only for the system's own Python: the standard library of another build does not fit the system's libpython.
    try:
        found = library.encode() in subprocess.check_output(["/sbin/ldconfig", "-p"])
    except (OSError, subprocess.CalledProcessError):
        pass
if not found:
    print("has no " + library)
try:
    import ensurepip, venv
except ImportError:
    print("has no venv")
"""


def platform_fault() -> str:
    """Return what is wrong with the machine itself; "" if nothing is."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"this is {platform.system()} {platform.machine()}"
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
    except (ValueError, OSError):
        return "this Linux has no glibc"
    if tuple(int(part) for part in version.split(".")[:2]) < GLIBC:
        return f"this is {name} {version}"
    return ""


def candidates() -> "list[str]":
    """Return this interpreter, then every python3.12 and python3.11 on PATH."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    paths = [os.path.join(folder, "python" + version) for version in VERSIONS for folder in folders]
    return [sys.executable, *(path for path in paths if os.access(path, os.X_OK))]


def probe(python: str) -> "list[str]":
    """Run PROBE in an interpreter and return its lines; none where it does not run, such as an idle pyenv shim."""
    command = [python, "-I", "-c", PROBE, *VERSIONS]
    try:
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return result.stdout.decode().splitlines() if result.returncode == 0 else []


def main() -> int:
    """Return 0 and print the path, or return 1 and print the remedy on standard error."""
    fault = platform_fault()
    if fault:
        remedy = "Everything up to export runs here; beyond it, set MILLRACE_TRITON=/path/to/tritonserver"
        need = "Linux x86-64 with glibc {}.{} or newer".format(*GLIBC)
        print(f"the Triton server from PyPI needs {need}, and {fault}. {remedy}", file=sys.stderr)
        return 1
    rejected, suggested = [], VERSIONS[-1]
    for candidate in candidates():
        lines = probe(candidate)
        if not lines:
            continue
        version, path, *lacks = lines
        if not lacks:
            print(path)
            return 0
        rejected.append(f"{path} {' and '.join(lacks)}")
        suggested = version if version in VERSIONS else suggested
    reasons = "; ".join(dict.fromkeys(rejected)) or "None was found on PATH"
    remedy = f"apt install python{suggested} python{suggested}-venv libpython{suggested}"
    print(
        f"the Triton server from PyPI needs Python 3.11 or 3.12 with its shared libpython and venv. {reasons}."
        f" On Debian or Ubuntu: {remedy}",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
