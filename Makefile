# `make run` and `make test` set up a fresh machine first; later the setup takes no time.
.PHONY: run test check lint client bench batching setup environments clean
.DEFAULT_GOAL := run
.ONESHELL:
.SHELLFLAGS := -ec

export DVC_NO_ANALYTICS := 1

# The run ends together with make, even if make is killed.
TIED := $(shell setpriv --pdeathsig KILL true 2>/dev/null && echo setpriv --pdeathsig KILL)
# On a terminal, pip shows the progress of its downloads (hundreds of megabytes).
INSTALL := -m pip install $(shell [ -t 2 ] || echo -qq) --disable-pip-version-check
# Only one setup runs at a time; a second one waits, then finds everything done.
ALONE := $(shell command -v flock >/dev/null && echo flock .setup.lock)

run: setup
	@$(TIED) .venv/bin/millrace run

test: setup lint
	@.venv/bin/python -m pytest

# Lint, types and the fast tests.
check: setup lint
	@.venv/bin/python -m pytest -n2 -m "not slow and not triton"

lint: setup
	@.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/deptry .

setup:
	@$(ALONE) $(MAKE) --no-print-directory -s environments

environments: .venv/complete .venv-triton/complete

# Where no server is installed (on systems other than Linux, or with MILLRACE_TRITON set), any Python 3.11 or 3.12 works.
.venv/installed: requirements.lock
	python=$$(python3 serving/triton/runtime/check.py) || \
	  { [ "$$(uname)" = Linux ] && [ -z "$$MILLRACE_TRITON" ] && exit 1; python=$$(command -v python3.12 || command -v python3.11); } || exit 1
	echo "making .venv with $$python: a minute or two"
	"$$python" -m venv --clear .venv
	.venv/bin/python $(INSTALL) -r requirements.lock
	touch $@

.venv/complete: .venv/installed pyproject.toml flows/entry/millrace.sh
	.venv/bin/python $(INSTALL) --no-deps --no-build-isolation -e .
	install -m 755 flows/entry/millrace.sh .venv/bin/millrace
	touch $@

.venv-triton/complete: serving/triton/runtime/requirements.lock
	if python=$$(python3 serving/triton/runtime/check.py); then \
	  echo "making .venv-triton, the server's own environment"; \
	  "$$python" -m venv --clear .venv-triton && .venv-triton/bin/python $(INSTALL) -r $<; \
	else mkdir -p .venv-triton; fi
	touch $@

client: setup
	@.venv/bin/python -m serving.client.wheel.build dist

bench: setup
	@.venv/bin/python -m benchmarks

# Needed only after a change to the C file. The result is in git, because not every machine has a compiler.
batching:
	cd serving/triton/backends/python
	source=$$(sha256sum batchstrategy.c | cut -d ' ' -f 1)
	cc -Os -Wall -Wextra -Wno-unused-parameter -shared -fPIC -nostdlib -fvisibility=hidden -fno-stack-protector \
	  -fcf-protection=none -fno-asynchronous-unwind-tables -Wl,--build-id=none,-z,noseparate-code,--hash-style=gnu -s \
	  -DSOURCE="\"$$source\"" -o batchstrategy.so batchstrategy.c

clean:
	rm -rf .venv .venv-triton .scratch .setup.lock
