# Two commands: `make run` and `make test`. Both make .venv when it is missing and install when setup.cfg has changed.
# The first one that runs and is new enough: a name on the PATH may be a shim of nothing.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: run test install clean
run: $(VENV)/.installed
	$(BIN)/huren serve --demo $(ARGS)

install: $(VENV)/.installed

test: $(VENV)/.installed-test
	@status=0; for check in "ruff check ." "mypy" "python -m pytest $(ARGS)"; do \
		echo "$(BIN)/$$check"; $(BIN)/$$check || status=1; done; exit $$status

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Huren needs Python 3.11 or newer: install it, or name it: make PYTHON=…" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { echo "python3-venv is missing: apt-get install python3-venv" >&2; rm -rf $(VENV); exit 1; }

$(VENV)/.installed: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[postgres,s3]'
	touch $@

$(VENV)/.installed-test: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[postgres,s3,test]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build *.egg-info
