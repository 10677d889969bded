# Every command a person needs. A fresh machine with Python 3.11, make and a C library is enough.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed

.PHONY: install demo test check bench clean

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
	$(BIN)/python -m pytest

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/codespell src tests docs benchmarks README.md CHANGELOG.md CONTRIBUTING.md
	$(BIN)/python -m pytest

bench: install
	$(BIN)/python benchmarks/inference.py
	$(BIN)/python benchmarks/reranking.py

clean:
	rm -rf .venv demo build dist
