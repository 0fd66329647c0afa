# Two commands are enough: `make demo` and `make test`. Both make the environment first if need be.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check

# No telemetry from the libraries; Ray's token authentication only where a cluster asks for it.
export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true

.DEFAULT_GOAL := help
.PHONY: help env demo test lint format clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 10

env:  ## the environment in .venv, made again only when requirements.lock has changed
	@cmp -s requirements.lock $(VENV)/installed.lock || $(MAKE) --no-print-directory install
	@cmp -s pyproject.toml $(VENV)/installed.toml || $(MAKE) --no-print-directory link

.PHONY: install link
install:
	@test -n "$(PYTHON)" || { echo "no python3.11 found; install it, or say make PYTHON=/path/to/python3.11"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(PYTHON) is older than 3.11; say make PYTHON=/path/to/python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -r requirements.lock
	@rm -f $(VENV)/installed.toml
	@cp requirements.lock $(VENV)/installed.lock

link:
	@PYTHONWARNINGS=ignore $(PIP) install --quiet --no-deps --no-build-isolation -e .
	@cp pyproject.toml $(VENV)/installed.toml

demo: env  ## lake -> train -> generate -> score on 336,776 real flights, under ./demo
	@$(BIN)/python -m jobs.demo

test: env  ## the tests, in three processes
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

lint: env  ## style, format, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: audit sbom
audit:  ## known vulnerabilities of what requirements.lock pins; asks PyPI, and fails where it cannot
	@test -x build/audit/bin/pip-audit || { $(PYTHON) -m venv build/audit && build/audit/bin/pip install --quiet pip-audit; }
	build/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement requirements.lock

sbom: env  ## build/sbom.cdx.json, the bill of materials (CycloneDX) with licences
	@$(BIN)/python docs/sbom.py

format: env  ## write the format that lint asks for
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

DEVICE ?= cpu
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

.PHONY: image
image:  ## the container image genai-core:VERSION for CPUs; DEVICE=cuda: genai-core:VERSION-cuda
	DOCKER_BUILDKIT=1 docker build --file infra/Dockerfile --build-arg DEVICE=$(DEVICE) \
	  $(if $(TORCH_INDEX),--build-arg TORCH_INDEX=$(TORCH_INDEX)) \
	  --tag genai-core:$(VERSION)$(if $(filter cuda,$(DEVICE)),-cuda) .

clean:  ## remove what runs have left behind; the environment stays
	rm -rf demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find genai_core pipelines jobs tests -name __pycache__ -type d -prune -exec rm -rf {} +
