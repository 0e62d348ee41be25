# make book                          the demo study on phantoms, and its book
# make book STUDY=params/smoke.yml   another study
# make test                          the tests
SHELL := /bin/bash
PYTHON ?= python3
STUDY ?= params/demo.yml
BIN := .venv/bin

.PHONY: book test slow lint bench pictures clean install dev
.DEFAULT_GOAL := book

# torch first and exactly: any other order may pull a CUDA build of several gigabytes
.venv/installed: constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $$(grep -E '^torch(vision)?==' constraints.txt)
	$(BIN)/python -m pip install --quiet -e . -c constraints.txt
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet -e '.[dev]' -c constraints.txt
	touch $@

install: .venv/installed
dev: .venv/installed-dev

book: .venv/installed
	$(BIN)/hepaper run $(STUDY)

test: .venv/installed-dev
	$(BIN)/python -m pytest

slow: .venv/installed-dev
	$(BIN)/python -m pytest -m slow

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed-dev
	for script in benchmarks/[a-z]*.py; do OMP_NUM_THREADS=1 $(BIN)/python $$script || exit 1; done

# the README's three pictures, from the demo run on this machine
pictures:
	mkdir -p book/pictures
	cp runs/demo/figures/fig4c_overlays.png book/pictures/overlays.png
	cp runs/demo/figures/fig6_roc.png book/pictures/roc.png
	cp runs/demo/figures/beside_verdicts.png book/pictures/beside.png

# what was built, never what was computed: runs/ stays
clean:
	rm -rf .snakemake .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
