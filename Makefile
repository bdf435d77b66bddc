# The front door. Each target sets up what it needs; the second run finds it done.
#
#   make demo    pull a real OS image from a real registry, twice, and show what happened
#   make test    everything that must hold: lint, types, C under sanitizers, fuzz, real tools
#   make bench   kernels, then whole pulls beside other tools, and tables of both (an hour)
#   make fuzz    the decoders, for FUZZ_SECONDS each (default 600)

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
FUZZ_SECONDS ?= 600

.PHONY: demo test check bench fuzz setup setup-dev setup-bench clean

demo: setup
	@$(PY) -m bench.demo

test: check
	@echo "== tests (minutes; the slowest are listed at the end)"
	$(PY) -m pytest -q --durations=10 --durations-min=5 tests

check: setup-dev
	@echo "== format, lint, types"
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

bench: setup-bench
	@echo "== the core alone, from memory"
	$(PY) -m pytest -q bench/bench_tee.py --benchmark-only --benchmark-quiet
	@echo "== whole pulls"
	$(PY) -m bench
	$(PY) -m bench.report --readme README.md
	$(PY) -m bench.plots

fuzz: setup-dev
	LAYERTEE_FUZZ_SECONDS=$(FUZZ_SECONDS) $(PY) -m pytest -q tests/c/test_fuzz.py

setup:
	@.ci/setup run "$(PYTHON)" $(VENV)

setup-dev:
	@.ci/setup dev "$(PYTHON)" $(VENV)

setup-bench:
	@.ci/setup bench "$(PYTHON)" $(VENV)

clean:
	rm -rf build dist $(VENV) engine/*.egg-info engine/layertee/core/*.so
