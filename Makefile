# Everything that people and CI run. Needs Python 3.11 or newer and an index of packages; makes its own environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Inngest's npm package, which a test sends events with, and pyright, where there is Node.js.
NODE_MODULES := tests/producers/node_modules tests/typing/node_modules
# Four processes, each with a server of its own: most of a test is waiting. One that has none left takes of the others'.
PYTEST := $(BIN)/python -m pytest -n 4 --dist worksteal
# The tests start two hundred commands, none of which has to compile everything anew.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test pytest test-fast chaos simulation hostile rolling histories lint types docs docs-check docs-site bench release-check clean format

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); Steporal needs Python 3.11 or newer: make PYTHON=python3.13 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@echo "Installing Steporal and its tests into $(VENV); this takes two to three minutes."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

demo: $(INSTALLED) ## Run the demo: a Temporal dev server, a worker, and events (KEEP=1 leaves it up)
	@KEEP=$(KEEP) $(BIN)/python -m steporal_workers demo

# Optional: the test says that it is skipped.
tests/%/node_modules: tests/%/package.json
	@if command -v npm >/dev/null; then \
		npm install --prefix tests/$* --no-package-lock --no-audit --no-fund --ignore-scripts --loglevel=error \
			&& touch $@ || echo "npm install failed: the tests of tests/$* that need it are skipped"; \
	else \
		echo "no npm: the tests of tests/$* that need it are skipped"; \
	fi

# The tests wait for one another at times, which is time enough for the checks.
test: $(INSTALLED) $(NODE_MODULES) ## Lint, types, and all tests; the integration tests also without cached workflows
	@$(MAKE) --no-print-directory -j3 lint types docs-check pytest

pytest:
	$(PYTEST)

test-fast: $(INSTALLED) ## The tests that need no server
	$(PYTEST) -m 'not integration'

# A report is printed; with REPORT=file.json it is written, too.
chaos: $(INSTALLED) ## Kill workers and the server at random under load (MINUTES=60 SEED=1 SKEW=90)
	$(BIN)/python -m tests.chaos --minutes $(or $(MINUTES),3) $(if $(SEED),--seed $(SEED)) \
		$(if $(SKEW),--skew $(SKEW)) $(if $(REPORT),--json $(REPORT))

simulation: $(INSTALLED) ## Search in memory for programs that an interruption makes another run (MINUTES=60 SEED=1)
	$(BIN)/python -m tests.simulation --minutes $(or $(MINUTES),3) $(if $(SEED),--seed $(SEED))

hostile: $(INSTALLED) ## Attack each part of the system with hostile inputs (MINUTES=60 SEED=1)
	$(BIN)/python -m tests.hostile --minutes $(or $(MINUTES),3) $(if $(SEED),--seed $(SEED)) $(if $(REPORT),--json $(REPORT))

# Writes benchmarks/ROLLING.md, which `make bench` puts into RESULTS.md.
rolling: $(INSTALLED) ## Restart workers, gateways and the server in turn under load (MINUTES=4 SEED=1)
	$(BIN)/python -m benchmarks.rolling --minutes $(or $(MINUTES),4) $(if $(SEED),--seed $(SEED)) $(if $(REPORT),--json $(REPORT))

# AGENTS.md says when.
histories: $(INSTALLED) ## Record the histories of this version anew, which all later versions must replay
	PYTHONPATH=tests $(BIN)/python -m histories

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache

format: $(INSTALLED) ## Put the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(INSTALLED)
	$(BIN)/mypy adapter workers examples tests/typing

docs: $(INSTALLED) ## Write docs/reference.md from the docstrings, and the tables of docs/settings.md and docs/metrics.md
	$(BIN)/python docs/make_reference.py
	$(BIN)/python docs/make_settings.py
	$(BIN)/python docs/make_metrics.py
	$(BIN)/python docs/make_wire_names.py

docs-check: $(INSTALLED)
	$(BIN)/python docs/make_reference.py --check

docs-site: $(INSTALLED) ## Build the documentation as a site, into build/site
	$(BIN)/python docs/make_site.py
	$(BIN)/zensical build --strict

bench: $(INSTALLED) ## Measure against hand-written Temporal, into benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks.run

release-check: ## Build wheel and sdist into dist/, and run the demo where they are installed, on every Python
	$(PYTHON) tools/release_check.py $(if $(TAG),--tag $(TAG))

clean:
	rm -rf $(VENV) dist build site .mypy_cache .ruff_cache .pytest_cache
