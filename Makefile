# What a person types. Everything is made in .venv; nothing else of the machine is touched, but for the Debian packages
# that the tests use (`make debian`), which are installed only where that is allowed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A worker for each core; tests/conftest.py says who runs what.
PYTEST := $(BIN)/pytest -n auto --maxprocesses 4
export OMP_NUM_THREADS ?= 1

.PHONY: run test check bench bench-drift bench-accuracy debian format clean
.DEFAULT_GOAL := run

run: $(VENV)/installed  ## the product with a demo: Dagster on 3000, the sidecar on 8080
	@exec $(BIN)/sentinel up --demo

test: $(VENV)/developed debian  ## every test but the slow soaks
	$(PYTEST) -m "not slow"

check: $(VENV)/developed debian  ## lint, format, types, import contract, doc examples, every test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST)

bench: $(VENV)/developed  ## speed beside the peers, as ratios
	$(BIN)/python -m benchmarks

bench-drift: $(VENV)/developed  ## false incidents in simulated years; BENCH_DRIFT="--quick" or "--generator module:function"
	$(BIN)/python -m benchmarks.drift $(BENCH_DRIFT)

bench-accuracy: $(VENV)/peers/installed  ## the default model beside peers on real series; BENCH_ACCURACY="--full", …
	$(VENV)/peers/bin/python -m benchmarks.accuracy $(BENCH_ACCURACY)

format: $(VENV)/developed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Sentinel needs Python 3.11 or newer; this is $$($(PYTHON) --version). Try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { echo "Python's venv module is missing. On Debian or Ubuntu: apt-get install python3-venv"; rm -rf $(VENV); exit 1; }

$(VENV)/installed: $(VENV)/bin/pip pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/developed: $(VENV)/bin/pip pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/installed

# In an environment of their own, as they bring a pandas and decide which numpy there may be.
$(VENV)/peers/installed: $(VENV)/bin/pip pyproject.toml
	@$(PYTHON) -m venv $(VENV)/peers
	$(VENV)/peers/bin/pip install --quiet --disable-pip-version-check --editable '.[peers]'
	@touch $@

# Debian starts a package's service when it is installed; policy-rc.d keeps a test machine from running a second
# Prometheus and a PostgreSQL of nobody.
debian:
	@missing=""; \
	command -v prometheus >/dev/null && command -v promtool >/dev/null || missing="$$missing prometheus"; \
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || missing="$$missing postgresql"; \
	for program in prometheus-alertmanager chromium strace; do \
	  command -v $$program >/dev/null || missing="$$missing $$program"; \
	done; \
	command -v vmalert >/dev/null || missing="$$missing victoria-metrics"; \
	[ -z "$$missing" ] && exit 0; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  echo "installing$$missing for the tests"; \
	  [ -e /usr/sbin/policy-rc.d ] || { printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d; ours=yes; }; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; status=$$?; \
	  [ -z "$$ours" ] || rm -f /usr/sbin/policy-rc.d; \
	  [ "$$status" != 0 ] || exit 0; \
	fi; \
	if [ -n "$$CI" ]; then echo "CI needs$$missing and cannot install them"; exit 1; fi; \
	echo "not installed:$$missing; the tests that need them are skipped (apt-get install$$missing)"
