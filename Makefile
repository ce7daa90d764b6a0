# Needs python3 (3.11 or newer) and make, nothing else.
# Another interpreter: make install PYTHON=python3.12 VENV=.venv-312

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
PYTEST_ARGS ?=
BENCH_ARGS ?=
MUTANTS_ARGS ?=
DEMO_ARGS ?=
DIST ?= dist

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BASE_STAMP := $(VENV)/.installed-base

.DEFAULT_GOAL := help
.PHONY: help install test test-slow mutants lint format demo bench build clean distclean

help:  ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile
	@echo "Variables: PYTHON=$(PYTHON) VENV=$(VENV) JOBS=$(JOBS) PYTEST_ARGS, DEMO_ARGS, BENCH_ARGS, MUTANTS_ARGS, DIST"

install: $(STAMP)  ## Create the virtual environment and install jaxrl into it, editable

# Runs again when pyproject.toml has changed. uv is used for speed where it works, else pip. What only
# runs the library needs no tools of development.
$(STAMP): WHAT := .[dev]
$(BASE_STAMP): WHAT := .
$(STAMP) $(BASE_STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "jaxrl needs Python 3.11 or newer, and '$(PYTHON)' is not: try make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing jaxrl into $(VENV) ..."
	@if uv --version >/dev/null 2>&1 && uv pip install --quiet --python $(BIN)/python --editable '$(WHAT)'; then :; \
	  else $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '$(WHAT)'; fi
	@touch $@ $(BASE_STAMP)

test: $(STAMP)  ## Run all tests but the slow ones (JOBS processes; PYTEST_ARGS="-k name" to choose)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(PYTEST_ARGS)

test-slow: $(STAMP)  ## Run the tests in which agents learn (minutes)
	$(BIN)/python -m pytest -m "slow and not gpu" --timeout 1800 $(PYTEST_ARGS)

mutants: $(STAMP)  ## Check that the tests notice known defects, put into copies of the code
	PYTHONPATH=tests $(BIN)/python -m mutants.run --jobs $(JOBS) $(MUTANTS_ARGS)

lint: $(STAMP)  ## Check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## Format the code and apply the safe fixes
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

demo: $(BASE_STAMP)  ## Train PPO on CartPole and draw its learning curve (under 2 minutes)
	@run=runs/demo-$$(date +%Y%m%d-%H%M%S); \
	$(BIN)/jaxrl train ppo gymnax/CartPole-v1 --run-dir "$$run" $(DEMO_ARGS) && \
	if test -f "$$run/learning_curve.png"; then echo "Learning curve: $$run/learning_curve.png"; \
	else echo "No learning curve was written in $$run" >&2; exit 1; fi

bench: $(STAMP)  ## Measure training speed, compile time and memory (BENCH_ARGS="P1 --rounds 3")
	$(BIN)/python -m benchmarks.throughput $(BENCH_ARGS)

build: $(STAMP)  ## Build the source distribution and the wheel into DIST
	$(BIN)/python -m build $$(uv --version >/dev/null 2>&1 && echo --installer uv) --outdir $(DIST) .

clean:  ## Remove caches and build outputs; runs and environments stay
	rm -rf dist build .pytest_cache .ruff_cache .mypy_cache
	find jaxrl envs tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean  ## clean, and remove the virtual environment
	rm -rf $(VENV)
