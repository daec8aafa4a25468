# `make run` shows the system, `make test` tests it. Both set up what they need.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Not the scripts beside it: they name this folder to a shell, which misreads a quote or a dollar in it.
PYTHON_IN := $(BIN)/python -P -m

.PHONY: help install programs run up test test-long coverage screenshots test-slow chaos deploy-check lint format docs bench bench-again bench-large bench-quick clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

BENCH_INSTALLED := $(VENV)/.bench-installed
BENCHMARKS := benchmarks
BENCH = $(PYTHON_IN) pytest -q -p no:xdist -p no:randomly -o addopts= -o timeout=0 $(BENCHMARKS) --benchmark-columns=median,rounds

PIP_INSTALL := $(PYTHON_IN) pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

$(BIN)/pip:
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh scripts/make_venv.sh

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/pip
	$(PIP_INSTALL) '.[dev]'
	@touch $@

DEPLOY_INSTALLED := $(VENV)/.deploy-installed

$(DEPLOY_INSTALLED): $(INSTALLED) scripts/install_helm.py
	$(PIP_INSTALL) '.[dev,deploy]'
	$(BIN)/python scripts/install_helm.py constraints.txt $(VENV)/deploy
	@touch $@

$(BENCH_INSTALLED): $(INSTALLED)
	$(PIP_INSTALL) '.[dev,bench]'
	@touch $@

ALL_INSTALLED := $(VENV)/.all-installed

# One call of pip instead of three.
$(ALL_INSTALLED): pyproject.toml constraints.txt scripts/install_helm.py | $(BIN)/pip
	$(PIP_INSTALL) '.[dev,bench,deploy]'
	$(BIN)/python scripts/install_helm.py constraints.txt $(VENV)/deploy
	@touch $(INSTALLED) && touch $(BENCH_INSTALLED) $(DEPLOY_INSTALLED) $@

install: $(ALL_INSTALLED) programs ## Everything that the other targets need; with `-j2` Debian's programs come meanwhile

# After the environment, which apt may be asked for as well: one of it can run at a time.
programs: | $(BIN)/pip
	@sh scripts/install_browser.sh
	@sh scripts/install_prometheus.sh
	@sh scripts/install_systemd.sh

run: $(INSTALLED) ## Set everything up, track a week of sample episodes, show what was published
	$(PYTHON_IN) episodes_assets demo

up: $(INSTALLED) ## The whole system until Ctrl-C: databases, daemon, web UI, workers
	$(PYTHON_IN) episodes_assets up

# `make test ORDER=` runs the tests in a random order, whose seed it prints.
ORDER ?= --randomly-dont-reorganize

# Much of them is waiting, so four at a time.
test: $(INSTALLED) $(if $(LONG),$(DEPLOY_INSTALLED) programs) ## The tests but the long ones (two minutes); LONG=1: with them; ORDER=: in a random order
	$(PYTHON_IN) pytest -n 4 $(ORDER) $(if $(LONG),-m "not slow")

test-long: $(INSTALLED) programs ## The long ones: whole days, attacks, a working day in the browser (two minutes)
	$(PYTHON_IN) pytest -n 4 $(ORDER) -m "long and not slow"

# Its exit code is ignored: under coverage some tests fail, as they look at what processes open and print.
coverage: $(INSTALLED) ## How much of the code all tests run, in all processes (an hour)
	@sh scripts/install_browser.sh
	@rm -rf $(VENV)/coverage
	-$(PYTHON_IN) coverage run -m pytest -n 4 --randomly-dont-reorganize -m "" -o timeout=600
	$(PYTHON_IN) coverage combine --quiet
	$(PYTHON_IN) coverage html --quiet
	$(PYTHON_IN) coverage report

screenshots: $(INSTALLED) ## A working day and a slow night in the browser (five minutes), pictured in docs/images
	@sh scripts/install_browser.sh
	$(PYTHON_IN) pytest -p no:xdist -p no:randomly -o addopts=-ra episodes_assets_tests/dashboard/browser \
		episodes_assets_tests/lab/test_slow_day.py --pictures docs/images

chaos: $(INSTALLED) ## Kill, stall and crash everything (70 minutes), into docs/promises.md; SEED=n, ONLY=test
	$(PYTHON_IN) pytest -p no:xdist -p no:randomly -o addopts=-ra -o timeout=3600 episodes_assets_tests/chaos --chaos long \
		--chaos-seed $(or $(SEED),1) --chaos-record $(VENV)/chaos.json $(if $(ONLY),-k $(ONLY))
	$(if $(ONLY),,$(PYTHON_IN) pytest -n 2 -m "" --junitxml $(VENV)/promises.xml \
		$$($(BIN)/python -m episodes_assets_tests.chaos.other_promises))
	$(if $(ONLY),,$(BIN)/python -m episodes_assets_tests.chaos.report $(VENV)/chaos.json $(VENV)/promises.xml \
		docs/promises.md)

test-slow: $(INSTALLED) ## The slowest: ranges, repairs, upgrades, labs, hosts, chaos, wheel, image (forty minutes)
	@sh scripts/install_iproute.sh
	@sh scripts/install_buildah.sh
	@sh scripts/install_prometheus.sh
	$(PYTHON_IN) pytest -n 2 -m slow

deploy-check: $(DEPLOY_INSTALLED) ## The chart, the Compose file and the systemd units of deploy/, without a cluster
	@sh scripts/install_systemd.sh
	$(PYTHON_IN) pytest -m "not slow" episodes_assets_tests/deploy

lint: $(BENCH_INSTALLED) ## Formatter, linter, types, import directions, Dagster definitions
	$(PYTHON_IN) ruff format --check .
	$(PYTHON_IN) ruff check .
	$(PYTHON_IN) mypy
	$(BIN)/python $(BIN)/lint-imports
	$(BIN)/python $(BIN)/dg check defs

format: $(INSTALLED) ## Let ruff format and fix what it can
	$(PYTHON_IN) ruff format .
	$(PYTHON_IN) ruff check --fix .

docs: $(INSTALLED) ## Write docs/settings.md and the table of docs/explain.md anew, after a setting or a cause was changed
	$(PYTHON_IN) episodes_assets_tests.docs.settings_page docs/settings.md
	$(PYTHON_IN) episodes_assets_tests.docs.causes_table docs/explain.md

RUNS ?= 3

bench: $(BENCH_INSTALLED) ## Everything at production size (an hour; RUNS=1: 21 minutes; 8 GB of disk), into docs/benchmarks.md
	@rm -f $(VENV)/bench-run-*.json
	for run in $$(seq $(RUNS)); do $(BENCH) -m "not large" --benchmark-json=$(VENV)/bench-run-$$run.json || exit 1; done
	$(BIN)/python -m benchmarks.report docs README.md $(VENV)/bench-run-*.json

bench-again: BENCHMARKS = benchmarks/$(or $(ONLY),$(error say which module, such as ONLY=test_publishing)).py
bench-again: $(BENCH_INSTALLED) ## One module of the last `make bench` again, with the same RUNS, after a change: ONLY=test_publishing
	@rm -f $(VENV)/bench-again-*.json
	for run in $$(seq $(RUNS)); do $(BENCH) --benchmark-json=$(VENV)/bench-again-$$run.json || exit 1; done
	$(BIN)/python -m benchmarks.report docs README.md $(VENV)/bench-run-*.json --again $(VENV)/bench-again-*.json

bench-large: $(BENCH_INSTALLED) ## Days of 100 million viewings and of 5 million jobs (half an hour; 30 GB of disk), into docs/benchmarks.md
	$(BENCH) -m large --benchmark-json=$(VENV)/bench-large.json
	$(BIN)/python -m benchmarks.report --large docs $(VENV)/bench-large.json

bench-quick: $(BENCH_INSTALLED) ## The same at small sizes (a minute), to see that it still runs
	$(BENCH) --quick --benchmark-json=$(VENV)/bench-quick.json
	$(BIN)/python -m benchmarks.report $(VENV)/bench-quick - $(VENV)/bench-quick.json
	$(BIN)/python -m benchmarks.report --large $(VENV)/bench-quick $(VENV)/bench-quick.json

clean: ## Remove the environment and everything the embedded system wrote
	@if [ -L .episodes/postgres ]; then rm -rf "$$(readlink .episodes/postgres)"; fi  # root's databases
	rm -rf $(VENV) .episodes
