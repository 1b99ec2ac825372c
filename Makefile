# make demo    a per-layer report from the shipped model pair, offline after set-up
# make test    the test suite (under ten minutes on two cores)
# make check   packaging, types, style, docs, notebooks, browser (under forty minutes)
# make soak    long calibrations, fault injection, memory at scale
# make bench   every side-by-side benchmark, results under benchmarks/results/
# make picture the README's picture of the demo report (needs Chromium)
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
OUT ?= demo-report

# One BLAS thread per worker: two workers on two cores otherwise fight over both.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM := false

.PHONY: help demo test check soak bench picture format clean
help:
	@sed -n 's/^# //p' Makefile

$(VENV)/.made: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	@touch $@

$(VENV)/.demo: $(VENV)/.made pyproject.toml constraints.txt
	@echo "setting up $(VENV) (once)"
	$(PIP) --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	@echo "setting up the test tools (once)"
	$(PIP) --editable '.[ray]' --group test
	@touch $@

$(VENV)/.check: $(VENV)/.test
	@echo "setting up the checking tools (once)"
	$(PIP) --group check
	@touch $@

demo: $(VENV)/.demo
	HF_HUB_OFFLINE=1 $(BIN)/layerprobe demo --out $(OUT)

test: $(VENV)/.test
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -n 2 --timeout 300 -m "not soak and not gpu"

check: $(VENV)/.check
	tests/checks/run $(BIN)

soak: $(VENV)/.test
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -m soak

bench: $(VENV)/.test
	for script in benchmarks/[!_]*.py; do echo "== $$script"; HF_HUB_OFFLINE=1 $(BIN)/python $$script; done

picture: demo
	chromium --headless --no-sandbox --hide-scrollbars --window-size=1200,1900 \
	  --screenshot=docs/img/report.png "file://$(CURDIR)/$(OUT)/report.html"

format: $(VENV)/.check
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis demo-report
