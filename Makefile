# `make` alone lists the targets. Everything runs in .venv, which is made on the first use.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PROFILES := $(notdir $(basename $(wildcard profiles/*.txt)))

export PATH := $(CURDIR)/$(BIN):$(PATH)
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
# DVC's own place, /var/tmp/dvc, may be written by everyone on the machine, and what lies there is unpickled.
export DVC_SITE_CACHE_DIR ?= $(HOME)/.cache/lesionseg-dvc
unexport PYTHONHOME PYTHONPATH

.DEFAULT_GOAL := help
.PHONY: help env repro test test-slow test-all lint format gate report page own tiny exp lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(INSTALLED) ## make .venv with the pinned requirements
	@install -d -m 700 "$$DVC_SITE_CACHE_DIR"

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: Python >= 3.11 is needed, found $$($(PYTHON) --version 2>&1); name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

repro: env ## the whole pipeline: what changed since the last run
	dvc repro

test: env ## the tests, the tiny pipeline among them (two cores, no GPU: some minutes)
	pytest -m 'not slow'

test-slow: env ## the tests that `make test` leaves out
	pytest -m slow

test-all: env ## every test
	pytest

lint: env ## ruff, and the workflow files against their schema and an audit
	ruff check .
	ruff format --check .
	check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	zizmor --offline --quiet .github/workflows
	actionlint .github/workflows/*.yml

format: env ## let ruff format the code
	ruff check --fix .
	ruff format .

gate: env ## fail if dvc.lock or a result in git does not belong to the code and parameters
	python tools/gate.py

report: env ## what this branch changes against BASE (origin/main), as in its pull request
	python tools/pull_request.py $(or $(BASE),origin/main) --pictures .cache/report

page: env ## a copy of the report page that names the commit of its results
	python tools/stamp_report.py

tiny: env ## all five stages on tiny data in a throwaway clone
	pytest -q -s tests/test_tiny_pipeline.py

exp: env ## an experiment with the settings of a file in profiles/: make exp PROFILE=isic2018
	@$(if $(and $(filter 1,$(words $(PROFILE))),$(filter $(PROFILES),$(PROFILE))),,echo "make exp: name one with PROFILE=: $(PROFILES)"; exit 1)
	dvc exp run $$(sed -n 's/^[a-z]/-S &/p' 'profiles/$(PROFILE).txt')

own: env ## make the image-mask pairs in FOLDER=data/mine an input of the pipeline
	python tools/own.py '$(FOLDER)'

lock: env ## pin anew what pyproject.toml asks for
	pip-compile --quiet --upgrade --extra dev --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links \
	  --no-annotate --no-header --output-file requirements.lock pyproject.toml
	# One pin for every build of torch: the wheel decides whether it is the CPU or the CUDA one, and brings its own needs.
	sed -i -e 's/^\(torch==[0-9.]*\)+.*/\1/' -e '/^nvidia-[a-z-]*-cu[0-9]*==/d' -e '/^triton==/d' \
	  -e '1i # Every pin, made by `make lock` from pyproject.toml. Installed by `make env`.' requirements.lock

clean: ## remove .venv and caches (not the data)
	rm -rf $(VENV) .pytest_cache .ruff_cache src/*.egg-info
