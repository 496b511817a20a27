# `make quickstart` and `make test` set up what they need in .venv; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help quickstart quickstart-llm test lint format notebooks docs clean

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
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(READY) ## lint, format check and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

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
	rm -rf $(VENV) out site .pytest_cache .ruff_cache
