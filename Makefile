# Everything a person or a machine does with this repository. `make help` lists it.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2
OUT ?= runs

# The first interpreter that is new enough; `make setup PYTHON=/path/to/python3` overrides.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { command -v "$$python"; break; }; done)

.DEFAULT_GOAL := help
.PHONY: help setup demo check test test-engines mutations oracles soak bench docs wheel pythons oldest lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with the locked packages and this one

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: no Python >= 3.11 found; name one: make setup PYTHON=/path/to/python3" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .
	@touch $@

demo: $(STAMP) ## Real ratings: train twice, verify the ledgers, trace a participant, report
	PATH="$(CURDIR)/$(BIN):$$PATH" bash scripts/demo.sh $(OUT)

check: $(STAMP) ## Style, types, order of the layers, what may lie in the repository
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy src tests scripts benchmarks examples
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/test_repository.py

test: $(STAMP) ## All tests but the slow ones and those that need an engine
	$(BIN)/pytest -q -n $(WORKERS) -m "not soak and not engines"

test-engines: $(STAMP) ## Tests with parts outside Python; a missing part is a failure
	LIBERATE_REQUIRE_ENGINES=1 $(BIN)/pytest -v -m "(engines or oracles) and not soak"

mutations: $(STAMP) ## Take each answer to an attack out of a copy of the code: its tests must fail
	$(BIN)/python scripts/run_mutations.py

oracles: $(STAMP) ## Install the implementations that tests compare us with (50 MB)
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[oracles]"

soak: $(STAMP) ## The slow tests
	$(BIN)/pytest -v -m soak

bench: $(STAMP) ## Measure, each figure beside its limit; writes benchmarks/results/
	$(BIN)/python -m benchmarks

docs: $(STAMP) ## Build the documentation in docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

wheel: $(STAMP) ## Build the wheel and the source archive into dist/
	rm -rf dist
	$(BIN)/python -m hatchling build

pythons: wheel ## Check, test and try the wheel on every supported Python that is found
	for python in $$(bash scripts/pythons.sh); do \
		venv=build/venv-$$("$$python" -c 'import platform; print(platform.python_version())'); \
		$(MAKE) check test VENV=$$venv PYTHON=$$python && bash scripts/try_wheel.sh "$$python" dist/*.whl || exit 1; \
	done

oldest: build/lock/bin/uv ## Test with the oldest versions of all packages that pyproject.toml allows
	build/lock/bin/uv pip compile pyproject.toml --quiet --python $(PYTHON) --resolution lowest-direct --extra dev --extra studies \
		--no-emit-index-url --no-emit-find-links --output-file build/oldest.txt
	$(PYTHON) -m venv --clear build/venv-oldest
	build/venv-oldest/bin/python -m pip install --quiet -r build/oldest.txt
	build/venv-oldest/bin/python -m pip install --quiet --no-build-isolation --no-deps --editable .
	touch build/venv-oldest/.installed
	$(MAKE) test VENV=build/venv-oldest

build/lock/bin/uv:
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet uv

lock: build/lock/bin/uv ## Choose the newest allowed packages again, with the hashes of all their files
	build/lock/bin/uv pip compile pyproject.toml --quiet --upgrade --universal --python-version 3.11 --extra dev --extra docs \
		--extra studies \
		--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
		--output-file requirements.lock

clean: ## Remove what the targets made, except runs and .venv
	rm -rf build dist docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests scripts benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
