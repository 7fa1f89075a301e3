# `make` alone lists the targets. Everything runs in .venv, which is made on the first use.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PROFILES := $(notdir $(basename $(wildcard profiles/*.txt)))

export PATH := $(CURDIR)/$(BIN):$(PATH)
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
# DVC's own place, /var/tmp/dvc, may be written by everyone on the machine, and what lies there is unpickled.
export DVC_SITE_CACHE_DIR ?= $(HOME)/.cache/lesionseg-dvc
unexport PYTHONHOME PYTHONPATH FOLDER BASE
ifdef WHEELHOUSE
export PIP_NO_INDEX := 1
export PIP_FIND_LINKS := $(abspath $(WHEELHOUSE))
endif

.DEFAULT_GOAL := help
.PHONY: help env repro test test-slow test-all lint format gate report page own tiny exp lock wheelhouse audit licences clean merge accept

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(INSTALLED) ## make .venv with the pinned requirements
	@install -d -m 700 "$$DVC_SITE_CACHE_DIR"

$(INSTALLED): requirements.lock requirements-dev.lock requirements-torch.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: Python >= 3.11 is needed, found $$($(PYTHON) --version 2>&1); name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	# What is built from source is built with the pinned tools, which therefore come first.
	awk '/^[a-z]/ { kept = /^(packaging|setuptools|setuptools-scm|vcs-versioning)==/ } kept' \
	  requirements.lock requirements-dev.lock > $(VENV)/build.lock
	$(PIP) --require-hashes --no-deps -r $(VENV)/build.lock
	$(PIP) --require-hashes --no-deps --no-build-isolation -r requirements.lock -r requirements-dev.lock
	$(PIP) -r requirements-torch.lock
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

repro: env ## the whole pipeline: what changed since the last run
	@[ -e .git ] || { echo "make: no .git here, which DVC needs; this may be an unpacked zip: git init && git add -A && git commit -m start"; exit 1; }
	dvc repro

test: env ## the tests, the tiny pipeline among them (two cores, no GPU: some minutes)
	pytest -m 'not slow'

test-slow: env ## the tests that `make test` leaves out
	pytest -m slow

test-all: env ## every test
	pytest

lint: env ## ruff, the types, the citation and the workflow files against their schemas, two audits of the workflows
	ruff check .
	ruff format --check .
	mypy
	check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	zizmor --offline --quiet .github/workflows
	actionlint .github/workflows/*.yml

format: env ## let ruff format the code
	ruff check --fix .
	ruff format .

gate: env ## fail if dvc.lock or a result in git does not belong to the code and parameters
	python tools/gate.py

report: export GIVEN = $(value BASE)
report: env ## what this branch changes against BASE (origin/main), as in its pull request
	python tools/pull_request.py "$${GIVEN:-origin/main}" --pictures .cache/report

page: env ## a copy of the report page that names the commit of its results
	python tools/stamp_report.py

tiny: env ## all five stages on tiny data in a throwaway clone
	pytest -q -s tests/test_tiny_pipeline.py

exp: env ## an experiment with the settings of a file in profiles/: make exp PROFILE=isic2018
	@$(if $(and $(filter 1,$(words $(PROFILE))),$(filter $(PROFILES),$(PROFILE))),,echo "make exp: name one with PROFILE=: $(PROFILES)"; exit 1)
	dvc exp run $$(sed -n 's/^[a-z]/-S &/p' 'profiles/$(PROFILE).txt')

merge: env ## after `git merge`: settle dvc.lock, metrics/ and plots/, and run what both sides changed
	python tools/merge.py

accept: export GIVEN = $(value BASE)
accept: env ## take a change of code that alters no result into dvc.lock (the tiny run before and after, byte for byte)
	python tools/accept.py $${GIVEN:+"$$GIVEN"}

own: export GIVEN = $(value FOLDER)
own: env ## make the image-mask pairs in FOLDER=data/mine an input of the pipeline
	python tools/own.py "$$GIVEN"

# torch stands apart: one pin serves the CPU wheel and the CUDA build, which differ in hash and in what they need besides.
UNHASHED := ^(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z-]+)==
COMPILE := uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header
OF_TORCH := awk '/^[a-z]/ { left_out = $$0 ~ /$(UNHASHED)/ } !left_out'

lock: env ## pin anew what pyproject.toml asks for, with hashes (needs the network)
	$(COMPILE) --upgrade --extra pipeline --extra export --extra dev --output-file .everything.lock
	$(COMPILE) --extra pipeline --constraint .everything.lock --output-file .runtime.lock
	@echo '# What the pipeline runs on. Made by `make lock` from pyproject.toml, installed by `make env`.' > requirements.lock
	$(OF_TORCH) .runtime.lock >> requirements.lock
	@echo '# What development needs besides. Made by `make lock`, installed by `make env`.' > requirements-dev.lock
	$(OF_TORCH) .everything.lock | awk 'NR == FNR { known[$$1] = 1; next } /^[a-z]/ { left_out = $$1 in known } !left_out' \
	  requirements.lock - >> requirements-dev.lock
	@echo '# Without hashes: the wheel found decides whether it is the CPU or the CUDA build. Made by `make lock`.' > requirements-torch.lock
	sed -n 's/^\(torch==[0-9.]*\).*/\1/p' .runtime.lock >> requirements-torch.lock
	rm .everything.lock .runtime.lock
	python tools/environment.py

wheelhouse: env ## all packages into wheelhouse/, for `make env WHEELHOUSE=wheelhouse` on a machine without network
	$(BIN)/python -m pip download --quiet --require-hashes --no-deps --no-build-isolation --dest wheelhouse \
	  -r requirements.lock -r requirements-dev.lock
	$(BIN)/python -m pip download --quiet --dest wheelhouse -r requirements-torch.lock

audit: env ## known weaknesses of the pinned packages (needs the network)
	pip-audit --strict --no-deps --disable-pip --requirement requirements.lock --requirement requirements-dev.lock

licences: env ## fail where a package's licence would bind this project; those named are tools of DVC, not linked to
	pip-licenses --from=mixed --partial-match --fail-on="AGPL;Affero;GPLv3;General Public License v3" >/dev/null
	pip-licenses --from=mixed --partial-match --fail-on="GPL;General Public" --ignore-packages asyncssh dulwich grandalf pygit2

clean: ## remove .venv and caches (not the data)
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache src/*.egg-info
