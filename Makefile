# Every command a person needs. A fresh machine with Python 3.11, make and a C library is enough.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed
CLUSTER := .venv/installed-cluster
TENSORFLOW := .venv-tensorflow

.PHONY: install demo test test-cluster check bench parity clean

install: $(STAMP)

$(STAMP): requirements.txt requirements-dev.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(STAMP)

# make demo PHOTOS=~/Photos takes your own photos.
demo: install
	$(BIN)/delg demo $(PHOTOS) --out demo

test: install
	$(BIN)/python -m pytest -m "not cluster"

# Against Milvus, an S3 store and two Ray nodes, which it installs and starts.
test-cluster: $(CLUSTER)
	$(BIN)/python -m pytest -m cluster $(TESTS)

$(CLUSTER): $(STAMP) requirements-cluster.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-cluster.txt
	touch $@

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/codespell src tests docs benchmarks tools README.md CHANGELOG.md CONTRIBUTING.md
	$(BIN)/python -m pytest -m "not cluster"

bench: install
	$(BIN)/python benchmarks/inference.py
	$(BIN)/python benchmarks/reranking.py

# Against TensorFlow itself, in an environment of its own; PYTHON must be 3.11.
parity: install $(TENSORFLOW)/installed
	$(BIN)/python tools/tensorflow/parity.py --tensorflow $(TENSORFLOW)/bin/python --out parity

$(TENSORFLOW)/installed: tools/tensorflow/requirements.txt
	$(PYTHON) -m venv $(TENSORFLOW)
	$(TENSORFLOW)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

clean:
	rm -rf .venv $(TENSORFLOW) demo parity build dist
