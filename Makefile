# make quickstart   from a fresh clone to a result table: own virtual environment, everything installed, small suite run
# make test         the tests        make lint   ruff, mypy, import-linter
# make bench        the benchmarks, compared with tests/benchmarks/reference.json        make bench-reference   writes it anew
#
# Nothing is installed outside .venv. Stamp files in it remember what is installed, so that a second call starts at once.

PYTHON ?= python3

# torch comes first and by its exact version: `==` also accepts a build with a local label (2.13.0+cpu), so a machine
# whose pip is pointed at CPU wheels takes one, and the install of the project afterwards finds torch there and does not
# fetch the CUDA libraries. For a GPU: make quickstart FAISS=gpu
TORCH ?= torch==2.13.0

# cpu or gpu: faiss-cpu and faiss-gpu clash, so exactly one of the two extras is installed.
FAISS ?= cpu

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := quickstart
.PHONY: quickstart test lint bench bench-reference clean

quickstart: $(VENV)/.project
	$(BIN)/grbench run suites/quickstart.yaml

test: $(VENV)/.development
	$(BIN)/python -m pytest

lint: $(VENV)/.development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.development
	$(BIN)/python -m pytest --benchmark-enable --benchmark-only tests/benchmarks

# On a machine that has nothing else to do; commit the result together with what made it slower or faster.
bench-reference: $(VENV)/.development
	$(BIN)/python -m pytest --benchmark-enable --benchmark-only --write-reference tests/benchmarks

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks

$(VENV)/.torch:
	@echo "making $(VENV) and installing $(TORCH) (once, some minutes)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) install '$(TORCH)'
	@touch $@

$(VENV)/.project: pyproject.toml | $(VENV)/.torch
	@echo "installing grbench with faiss-$(FAISS)"
	$(PIP) install --editable '.[$(FAISS)]'
	@touch $@

$(VENV)/.development: pyproject.toml | $(VENV)/.project
	@echo "installing what the tests and linters need"
	$(PIP) install --editable '.[$(FAISS),dev]'
	@touch $@
