# The front door. Each target sets up what it needs; the second run finds it done.
#
#   make demo    pull a real OS image from a real registry, twice, and show what happened
#   make fast    format, lint, types, and all tests that need no tools: a minute, for any user on any Linux
#   make test    everything that must hold: lint, types, C under sanitizers, fuzz, real tools
#   make bench   the figures that this project is held to, beside those that are stored, and tables (12 minutes)
#   make bench-all  kernels, then whole pulls beside all other tools, and tables of both (an hour)
#   make docs    the parts of the documentation that are made out of the code
#   make site    the documentation as a site, in build/site
#   make dist    all that a release consists of, in dist
#   make dist-check  the tests of it alone, with those that take too long for make test
#   make fuzz    the decoders and the parsers, for FUZZ_SECONDS each (default 120)
#   make torture every crash, failing call and bad server that the tests know, for hours (TORTURE: options)

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
DIST_VENV := .venv-dist
FUZZ_SECONDS ?= 120
TORTURE ?=

.PHONY: demo fast test check prebuild bench bench-all docs site fuzz torture setup setup-fast setup-dev setup-bench setup-dist dist dist-check clean

demo: setup
	@$(PY) -m bench.demo

# Files begin in this order, so that the last of them are short, and all processes end together.
SUITES := tests/c tests/release tests/product tests/peers tests/selftest tests/fuzz tests/torture bench/tests tests/contract tests/unit
PYTEST := $(PY) -m pytest -q --dist loadfile

fast: setup-fast
	@echo "== format, lint, types; tests without tools"
	@$(VENV)/bin/ruff format -q --check .
	@$(VENV)/bin/ruff check -q .
	@$(VENV)/bin/mypy & types=$$!; \
	$(PYTEST) -n auto -m "not slow" tests/unit tests/contract; tests=$$?; \
	wait $$types && exit $$tests

# A measurement wants the machine for itself: those come second, one at a time. A few that failed beside others
# are run once more by themselves, and both runs are on record: see CONTRIBUTING.md.
test: check prebuild
	@echo "== tests (minutes; the slowest are listed at the end)"
	@status=0; \
	$(PYTEST) -n auto --durations=15 --durations-min=5 -m "not alone" $(SUITES) || status=$$?; \
	if [ $$status = 1 ] && $(PY) -m tests.support.again; then \
		echo "== again, by themselves: the tests that failed above"; \
		$(PYTEST) -n 1 --lf -m "not alone" $(SUITES) && status=0; \
	fi; \
	$(PYTEST) -n 1 -m alone $(SUITES) || status=$$?; \
	exit $$status

prebuild: setup-dev
	@$(PY) -m tests.support.rig.prebuild

check: setup-dev
	@echo "== format, lint, types"
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

bench: setup-bench
	$(PY) -m bench refresh

bench-all: setup-bench
	@echo "== the core alone, from memory"
	$(PY) -m pytest -q bench/bench_tee.py --benchmark-only --benchmark-quiet
	@echo "== whole pulls"
	$(PY) -m bench
	$(PY) -m bench.report --readme README.md --summary bench/README.md
	$(PY) -m bench.plots

docs: setup-fast
	@$(PY) -m tests.support.pages

site: setup-fast
	@$(PY) -m tests.support.site

dist: setup-dist
	@PYTHONPATH=engine $(DIST_VENV)/bin/python -m release all

dist-check: prebuild
	LAYERTEE_DIST_CHECK=1 $(PYTEST) -n auto --durations=15 tests/release

fuzz: setup-dev
	$(PY) -m tests.fuzz --seconds $(FUZZ_SECONDS)

torture: prebuild
	$(PY) -m tests.torture $(TORTURE)

setup:
	@.ci/setup run "$(PYTHON)" $(VENV)

setup-fast:
	@.ci/setup fast "$(PYTHON)" $(VENV)

setup-dev:
	@.ci/setup dev "$(PYTHON)" $(VENV)

setup-bench:
	@.ci/setup bench "$(PYTHON)" $(VENV)

setup-dist:
	@.ci/setup dist "$(PYTHON)" $(DIST_VENV)

clean:
	rm -rf build dist $(VENV) $(DIST_VENV) engine/*.egg-info engine/layertee/core/*.so
