# TimeMachine's commands. `make help` lists them; each sets up what it needs first.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
PYTHON := $(VENV)/bin/python
# The environment is made anew when what it is made of has changed.
STAMP := $(VENV)/.ready-$(shell cat pyproject.toml requirements/dev.lock | cksum | cut -d ' ' -f 1)
PIP := $(PYTHON) -m pip install --quiet --disable-pip-version-check --root-user-action ignore
PACKAGES := timemachine node admin tests bench examples
# More arguments for pytest: make test ARGS="-k retry -x"
ARGS :=

# plyvel has wheels for Python 3.11 and 3.12 only. The first of these that really runs is taken: a
# name on the path may be a launcher for something that is not installed.
FITS := import ensurepip, sys, venv; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))
define FIND_PYTHON
for candidate in python3.12 python3.11 python3; do \
	if "$$candidate" -c '$(FITS)' 2>/dev/null; then command -v "$$candidate"; exit 0; fi; \
done; \
echo 'TimeMachine needs Python 3.11 or 3.12 with its venv module, and found neither.' >&2; \
echo 'On Debian 12: apt-get install python3 python3-venv' >&2; \
exit 1
endef

.PHONY: help setup demo run fmt check test slow sim bench docs lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP) ## make the environment in .venv, if it is not there or out of date

$(STAMP):
	@if ! $(PYTHON) -c '$(FITS)' 2>/dev/null; then \
		python=$$($(FIND_PYTHON)); \
		"$$python" -m venv --clear $(VENV); \
	fi
	@rm -f $(VENV)/.ready-*
	@echo 'Installing what requirements/dev.lock names into $(VENV) ...'
	@$(PIP) --require-hashes --requirement requirements/dev.lock
	@PYTHONWARNINGS=ignore $(PIP) --no-build-isolation --no-deps --editable .
	@touch $@

demo: setup ## three nodes, one killed and one paused while they fire: see it in a minute
	@$(PYTHON) -m node demo

run: setup ## a node on this machine, its data in .run
	@$(PYTHON) -m node dev --data .run

fmt: setup ## format the code and mend what ruff can mend
	@$(PYTHON) -m ruff check --fix-only --quiet $(PACKAGES)
	@$(PYTHON) -m ruff format $(PACKAGES)

check: setup ## formatting, lint, types, layers, Dockerfile; changes nothing
	@$(PYTHON) -m ruff format --check $(PACKAGES)
	@$(PYTHON) -m ruff check $(PACKAGES)
	@$(PYTHON) -m mypy
	@$(VENV)/bin/lint-imports --no-logo
	@$(VENV)/bin/hadolint --no-color Dockerfile

test: setup ## all tests but the slow ones
	@$(PYTHON) -m pytest -m 'not slow' $(ARGS)

slow: setup ## the slow tests
	@$(PYTHON) -m pytest -m slow $(ARGS)

sim: setup ## clusters in the simulator, a minute of fresh seeds; make sim ARGS="--seed 7" replays one
	@$(PYTHON) -m tests.sim $(ARGS)

bench: setup ## the benchmarks; bench/README.md says how to read them
	@$(PYTHON) -m bench $(ARGS)

docs: setup ## do all links resolve, is every page reachable from the README?
	@$(PYTHON) -m pytest tests/unit/test_docs_links.py

# Neither addresses nor comments: a lock holds names, versions and the hashes of every file of a
# release, so that it fits all platforms. `make lock ARGS=--upgrade` takes the newest releases.
LOCK := $(PYTHON) -m piptools compile --quiet --generate-hashes --allow-unsafe --strip-extras \
	--no-header --no-annotate --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
	--no-emit-options

lock: setup ## write requirements/*.lock for what pyproject.toml asks
	@$(LOCK) --extra node --extra s3 --extra dev --build-deps-for editable $(ARGS) \
		--output-file requirements/dev.lock pyproject.toml
	@$(LOCK) --extra node --build-deps-for wheel --constraint requirements/dev.lock \
		--output-file requirements/node.lock pyproject.toml

clean: ## remove what the commands above have made
	@rm -rf $(VENV) .run .run3 build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache \
		.pytest_cache .ruff_cache
