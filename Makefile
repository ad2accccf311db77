# fxcell: `make` prints this help. `make demo` and `make test` set up whatever they need.

PYTHON ?= $(shell sh scripts/find_python.sh)
BIN := .venv/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-user lint types contracts bench wheel-test clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  PYTHON=/path/to/python3 picks the interpreter, ARGS='-k name' goes to pytest (test, test-user)"

setup: ## system packages (root: installed; else: the command to run), .venv, libraries
	@python="$(PYTHON)"; test -n "$$python" && "$$python" scripts/set_up.py

demo: setup ## a tour: workers, effects, a blocked call, a crash
	@$(BIN)/python -m fxcell demo

test: setup ## lint, types, contracts, wheel, tests as you; as root also as an ordinary user
	@$(BIN)/python scripts/run_tests.py $(ARGS)

test-user: setup ## only the tests as an ordinary user (root only)
	@$(BIN)/python scripts/test_as_user.py $(ARGS)

lint: setup ## ruff
	@$(BIN)/ruff check .

types: setup ## mypy --strict
	@$(BIN)/mypy

contracts: setup ## import direction
	@$(BIN)/lint-imports --no-logo

bench: setup ## peers side by side, ratios in one run
	@python="$(PYTHON)"; "$$python" scripts/set_up.py --extra bench
	@$(BIN)/python -m benchmarks $(ARGS)

wheel-test: setup ## build wheel and sdist, install each in a fresh venv, import and run
	@$(BIN)/python scripts/wheel_test.py

clean: ## remove .venv, build output and caches
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
