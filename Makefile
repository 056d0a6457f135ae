# make demo   the whole path on built-in input        make test    every test
# make faults the tests of what goes wrong alone      make lint    ruff, mypy, import-linter
# make bench  the benchmarks, one after the other
# make install  only set up .venv
# make clean  remove .venv and all that is generated  (make test ARGS="-k journal" passes arguments on)
#
# Each installs what it needs into .venv, at the versions of .ci/pins.txt, once: the second time it starts at once.

PYTHON ?= python3
VENV := .venv
ARGS ?=

PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint .ci/pins.txt
BENCHMARKS := $(sort $(wildcard benchmarks/*.py))

.DEFAULT_GOAL := demo
.PHONY: install demo test faults lint bench clean

install: $(VENV)/.runs

demo: $(VENV)/.runs
	$(VENV)/bin/mostool demo --out mostool-demo $(ARGS)

test: $(VENV)/.tests
	$(VENV)/bin/python -m pytest $(ARGS)

faults: $(VENV)/.tests
	$(VENV)/bin/python -m pytest -m fault $(ARGS)

lint: $(VENV)/.tests
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(VENV)/.runs
	@set -e; for script in $(BENCHMARKS); do echo "== $$script"; $(VENV)/bin/python $$script $(ARGS); done

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build mostool-demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# -- setting up --------------------------------------------------------------------------------------------------------
# torch goes first and by its exact version, so that an index or folder of CPU builds, where pip is set up with one, is
# used; the ordinary Linux package of the same version brings gigabytes of CUDA libraries, which work as well.
# hatchling builds mostool itself: it is installed here, pinned, rather than fetched into a throw-away environment.

$(VENV)/.python:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "mostool needs Python 3.11 or newer, and there is no '$(PYTHON)' here; try make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "mostool needs Python 3.11 or newer, this is $$($(PYTHON) --version 2>&1); try make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make virtual environments; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.runs: $(VENV)/.python pyproject.toml .ci/pins.txt
	@echo "installing mostool into $(VENV), once: 1 of 2, torch (minutes where its CUDA libraries come along)"
	$(PIP) torch==2.13.0
	@echo "2 of 2, everything else"
	$(PIP) hatchling
	$(PIP) --no-build-isolation --editable '.[all]'
	@touch $@

$(VENV)/.tests: $(VENV)/.runs
	@echo "installing the test tools into $(VENV)"
	$(PIP) --no-build-isolation --editable '.[test]'
	@touch $@
