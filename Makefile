# `make quickstart` and `make test` set up what they need in .venv; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help quickstart quickstart-llm test test-all test-quick test-lowest coverage lint format notebooks docs clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip --constraint constraints.txt
	@echo "installing the pinned packages (a few minutes the first time) ..."
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $(READY)

quickstart: $(READY) ## unlearn 10 % of the handwritten digits, with evidence, in about two minutes
	$(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
		hf_unlearn/train.py --config configs/quickstart.yaml

quickstart-llm: $(READY) ## a chat model of 135 M weights forgets a writer, in minutes on a CPU
	$(BIN)/hf-unlearn demo llm

test: $(READY) ## run the test suite
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not long"

test-all: $(READY) ## the same, and every method on every task, two notebooks, more cases of several processes
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-quick: $(READY) ## without the tests that start processes or train for seconds
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-lowest: ## what depends on other packages most, with the lowest versions that are supported
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --constraint constraints.txt torch
	.venv-lowest/bin/python -m pip install --quiet --constraint constraints-lowest.txt --editable '.[test]'
	HF_HUB_OFFLINE=1 .venv-lowest/bin/python -m pytest -n 2 --dist worksteal -m "not slow" \
		tests/methods tests/models tests/tasks tests/trainers tests/test_api.py

coverage: $(READY) ## lines and branches that the quick tests run
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" --cov=hf_unlearn --cov-branch \
		--cov-report=term:skip-covered

lint: $(READY) ## lint, format check and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers 2

format: $(READY) ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

notebooks: $(READY) ## run the notebooks and store their outputs; the large ones need their models
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python notebooks/run.py notebooks/*.ipynb
	$(BIN)/python notebooks/run.py notebooks/large/*.ipynb

docs: $(READY) ## the documentation as a site, in site/
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

clean: ## remove the virtual environment and what runs have written
	rm -rf $(VENV) .venv-lowest out site .coverage .mypy_cache .pytest_cache .ruff_cache
