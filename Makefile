# make quickstart   from a fresh clone to a result table: own virtual environment, everything installed, small suite run
# make test         the tests        make test-all   the slow ones too        make lint   ruff, mypy, import-linter
# make bench        the benchmarks, compared with tests/benchmarks/reference.json        make bench-reference   writes it anew
# make docs         the documentation site, into build/docs        make docs-serve   shows it while it is written
# make constraints  writes constraints.txt, the versions that all of the above install, anew
# make s3-server    an S3-compatible server, which the tests of buckets start; without it they are skipped
# make test-newest  the tests with the newest releases that pyproject.toml allows        make test-oldest   with its lower bounds
#
# Nothing is installed outside .venv and its siblings .venv-*. Stamp files in .venv remember what is installed, so that a second
# call starts at once.

PYTHON ?= python3

# The one version that make constraints does not raise: the benchmarks' reference and the results in docs/ were measured with
# it. `==` also accepts a build with a local label (2.13.0+cpu), so a machine whose pip is pointed at CPU wheels takes one
# and does not fetch the CUDA libraries. For a GPU: make quickstart FAISS=gpu
TORCH ?= torch==2.13.0

# cpu or gpu: faiss-cpu and faiss-gpu clash, so exactly one of the two extras is installed.
FAISS ?= cpu

VENV := .venv
BIN := $(VENV)/bin
# Python compiles a module when it is first imported. Compiling all modules of all libraries takes pip a minute of processor
# time, and most of them are never imported.
PIP_INSTALL := -m pip --disable-pip-version-check --quiet install --no-compile
UV := $(VENV)-uv/bin/uv

.DEFAULT_GOAL := quickstart
.PHONY: quickstart test test-all lint docs docs-serve bench bench-reference constraints s3-server test-newest test-oldest clean

quickstart: $(VENV)/.project
	$(BIN)/grbench run quickstart

# A process for each core, each with whole files, so that what a file's tests share is made once. JOBS=0 runs all in one.
JOBS ?= logical
test test-all: $(VENV)/.development
	$(BIN)/python -m pytest --numprocesses $(JOBS) --maxprocesses 8 --dist loadfile $(SLOW)

test-all: SLOW := --slow

lint: $(VENV)/.development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The theme announces at each build that it will be maintained until May 2027; the variable leaves that out.
docs docs-serve: export NO_MKDOCS_2_WARNING := 1
docs: $(VENV)/.documentation
	$(BIN)/mkdocs build

docs-serve: $(VENV)/.documentation
	$(BIN)/mkdocs serve

bench: $(VENV)/.development
	$(BIN)/python -m pytest --benchmark-enable --benchmark-only tests/benchmarks

# Five runs, on a machine that has nothing else to do; commit the result together with what made it slower or faster.
# ONLY=loader measures some benchmarks; RUNS="add add" adds two runs, of another machine, to those there are.
RUNS ?= new add add add add
bench-reference: $(VENV)/.development
	for run in $(RUNS); do $(BIN)/python -m pytest --benchmark-enable --benchmark-only --write-reference $$run \
		$(if $(ONLY),-k '$(ONLY)') tests/benchmarks || exit 1; done

# Resolved for the oldest Python, so that one file serves all. The libraries that only a CUDA build of torch needs are left
# out: which ones and which versions is for that build to say.
constraints: $(UV)
	echo '$(TORCH)' | $(UV) --quiet pip compile pyproject.toml --extra cpu --extra dev --constraints - --python-version 3.11 \
		--no-header --no-annotate > $(VENV)-uv/resolved.txt
	( echo '# The versions that the tests were run with: whatever .[cpu,dev] installs. The Makefile installs no others.'; \
	  echo '# Not written by hand: make constraints'; \
	  awk '/^nvidia-ml-py==/ || !/^(cuda|nvidia|triton)/' $(VENV)-uv/resolved.txt ) > constraints.txt

test-newest: RESOLUTION := highest
test-oldest: RESOLUTION := lowest-direct
test-newest test-oldest: $(UV)
	$(PYTHON) -m venv --clear $(VENV)-$@
	$(UV) pip install --python $(VENV)-$@ --resolution $(RESOLUTION) --editable '.[$(FAISS),dev]'
	$(VENV)-$@/bin/python -m pytest --slow

# moto needs older versions of some libraries than the tests, so that it has an environment of its own.
s3-server: $(VENV)-moto/bin/moto_server

clean:
	rm -rf $(VENV) $(VENV)-* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks

$(VENV)/.project: pyproject.toml constraints.txt
	@echo "1/3 making the virtual environment $(VENV)"
	$(PYTHON) -m venv $(VENV)
	@echo "2/3 installing torch, the largest part (once, some minutes)"
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt '$(TORCH)'
	@echo "3/3 installing grbench, faiss-$(FAISS) and the other libraries"
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable '.[$(FAISS)]'
	@touch $@

$(VENV)/.development: pyproject.toml constraints.txt | $(VENV)/.project
	@echo "installing what the tests and linters need"
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable '.[$(FAISS),dev]'
	@touch $@

$(VENV)/.documentation: pyproject.toml constraints.txt | $(VENV)/.project
	@echo "installing what builds the documentation"
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable '.[$(FAISS),docs]'
	@touch $@

$(VENV)-moto/bin/moto_server:
	$(PYTHON) -m venv --clear $(VENV)-moto
	$(VENV)-moto/bin/python $(PIP_INSTALL) 'moto[server]>=5'

# pip cannot resolve to the lowest versions.
$(UV):
	$(PYTHON) -m venv $(VENV)-uv
	$(VENV)-uv/bin/python $(PIP_INSTALL) uv
