# `make run` shows the system; `make test` proves it. Both set up what they need.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help run up test lint format benchmark clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(INSTALLED): pyproject.toml constraints.txt
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh scripts/make_venv.sh
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

run: $(INSTALLED) ## Set everything up, track a week of sample episodes, show what was published
	$(BIN)/episodes demo

up: $(INSTALLED) ## The whole system until Ctrl-C: databases, daemon, web UI, workers
	$(BIN)/episodes up

test: $(INSTALLED) ## The tests (about five minutes)
	$(BIN)/pytest -n 2

lint: $(INSTALLED) ## Formatter, linter, types, import directions, Dagster definitions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/dagster definitions validate

format: $(INSTALLED) ## Let ruff format and mend what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

benchmark: $(INSTALLED) ## Planning at full size, vectorised against row by row; the demo by stage
	$(BIN)/python -m benchmarks.planning
	$(BIN)/python -m benchmarks.demo

clean: ## Remove the environment and everything the embedded system wrote
	rm -rf $(VENV) .episodes
