# Two stamps, one environment: the demo needs the core alone; tests add the tools and TensorFlow.
# They lie inside it, so that they go when it goes.
VENV := .venv
BIN := $(VENV)/bin
DIST := dist
STAMPS := $(VENV)/.stamps
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check

# Annoy comes as source and would compile for this very processor; an environment or image built
# here must also run on the next machine.
comma := ,
MARCH := $(if $(filter x86_64,$(shell uname -m)),-march=x86-64-v2$(comma))
export ANNOY_COMPILER_ARGS = -O3,$(MARCH)-ffast-math,-fno-associative-math,-DANNOYLIB_MULTITHREADED_BUILD,-std=c++14,-D_CRT_SECURE_NO_WARNINGS,-fpermissive
ANNOY := $(shell sed -n 's/.*"\(annoy[^"]*\)".*/\1/p' setup.py)

# Two processes, each with a Spark session of its own; a file's tests share what it set up. In the order of the
# files: the long ones come first, so both processes end at about the same time.
TEST_PROCESSES ?= 2
PYTEST := $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder
QUICK := not slow and not training and not fault and not fuzz and not browser

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help machine demo test test-all fuzz lint fmt type bench dist clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | awk -F'|' '{printf "make %-10s %s\n", $$1, $$2}'

demo: machine $(STAMPS)/core ## the nightly job on a drawn sample catalog, scored against the truth
	$(BIN)/dedup-job demo --directory demo

test: machine $(STAMPS)/dev ## the tests that guard every change (under 20 minutes)
	$(PYTEST) -m "$(QUICK)"

test-all: machine $(STAMPS)/dev ## every test
	$(BIN)/python -m pytest

fuzz: machine $(STAMPS)/dev ## mutated photos, URIs, catalogs and decisions through the real code (ten minutes)
	$(BIN)/python -m tests.fuzz photos --cases 200000 --workers 2
	$(BIN)/python -m tests.fuzz uris --cases 1000000 --workers 2
	$(BIN)/python -m tests.fuzz catalogs --cases 50000 --workers 2
	$(BIN)/python -m tests.fuzz decisions --cases 50000 --workers 2
	$(BIN)/python -m pytest -m fuzz

lint: $(STAMPS)/dev ## style and common mistakes (ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

fmt: $(STAMPS)/dev ## repair what ruff can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: $(STAMPS)/dev ## types (mypy)
	$(BIN)/mypy

bench: machine $(STAMPS)/dev ## speed of the embedding stage, quick
	$(BIN)/python -m benchmarks.embed --quick

dist: $(STAMPS)/dev ## wheel, sdist, a zip for spark-submit --py-files, a packed environment
	rm -rf $(DIST) build
	$(BIN)/python -m build --outdir $(DIST) .
	cp $(DIST)/*.whl $(DIST)/catalog_dedup.zip
	$(BIN)/python -m venv build/environment
	build/environment/bin/python -m pip install -q --disable-pip-version-check --no-cache-dir "$(ANNOY)"
	build/environment/bin/python -m pip install -q --disable-pip-version-check "$$(ls $(DIST)/*.whl)[s3]"
	@# Executors have the pyspark of their cluster: half of the size, and it must be that one.
	build/environment/bin/python -m pip uninstall -q -y pyspark py4j
	$(BIN)/venv-pack -q -p build/environment -o $(DIST)/environment.tar.gz

clean: ## remove what was built; .venv stays
	rm -rf build dist demo .mypy_cache .ruff_cache .pytest_cache .hypothesis

machine:
	@sh scripts/check_machine.sh >/dev/null

$(STAMPS)/core: setup.py scripts/check_machine.sh | machine
	test -x $(BIN)/python || "$$(sh scripts/check_machine.sh)" -m venv $(VENV)
	$(PIP) --no-cache-dir "$(ANNOY)"
	$(PIP) -e .
	mkdir -p $(STAMPS) && touch $@

$(STAMPS)/dev: $(STAMPS)/core
	$(PIP) -e '.[dev,train]'
	touch $@
