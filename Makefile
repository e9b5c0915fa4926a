# Needs GNU make, bash, git, curl and Python 3.11 or newer with venv. All else comes from requirements/*.lock.
PYTHON ?= python3
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
LOCKED := $(VENV)/.locked
READY := $(VENV)/.ready
LOCKS := dev image build seaweedfs go mlflow

.PHONY: help setup demo test test-cluster control-plane check bench bench-growth lock clean

help: ## Show this.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 24

setup: $(READY) ## Make .venv with everything that development needs.

demo: $(READY) ## Show the main job on real input, on this machine alone.
	$(BIN)/offload demo

test: check control-plane ## Check and test everything; the first time this builds a Kubernetes API server.
	$(BIN)/python -m pytest

test-cluster: control-plane ## Test against a Kubernetes API server; K8S=1.30.14 takes another release.
	$(BIN)/python -m pytest tests/kube tests/cluster

control-plane: $(READY) ## Build the Kubernetes API server of the tests, once a machine: some minutes.
	$(BIN)/python -m tests.kube.binaries

check: $(READY) ## Format, lint, types and layers.
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: control-plane ## Measure it against what else there is, into bench/results and docs/performance.md.
	$(BIN)/python -m bench

bench-growth: $(READY) ## Measure how it grows with rows, runs and processes.
	$(BIN)/python -m bench.growth

lock: $(READY) ## Resolve the dependencies of pyproject.toml again, to their newest.
	@# The oldest Python that is supported resolves, since its pins must work for all of them.
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
	  || { echo 'make lock needs Python 3.11: make clean, then make lock PYTHON=python3.11' >&2; exit 1; }
	@# Links to files on this machine would leave hashes that nobody else can have.
	@unset PIP_FIND_LINKS; for lock in $(LOCKS); do \
	  echo "resolving requirements/$$lock.lock"; \
	  constraint='--constraint requirements/dev.lock'; \
	  case "$$lock" in dev | mlflow) constraint= ;; esac; \
	  $(BIN)/python requirements/inputs.py "$$lock" \
	    | CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/pip-compile --quiet --upgrade --generate-hashes \
	      --no-emit-index-url --no-emit-find-links --allow-unsafe --strip-extras $$constraint \
	      --output-file "requirements/$$lock.lock" -; \
	done

clean: ## Remove what make and the tools made; the data of `offload dev` in .offload stays.
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(LOCKED): requirements/dev.lock
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo 'offload needs Python 3.11 or newer with venv; $(PYTHON) is not one.' >&2; \
	  echo 'On Debian: apt-get install python3-venv. Another Python: make PYTHON=python3.12' >&2; exit 1; }
	@echo 'installing requirements/dev.lock into $(VENV), once: some minutes'
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP) install --require-hashes --requirement requirements/dev.lock
	@touch $@

$(READY): $(LOCKED) pyproject.toml
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@
