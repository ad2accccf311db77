# fxcell: `make` prints this help. `make demo` and `make test` set up whatever they need.

PYTHON ?= $(shell sh scripts/find_python.sh)
BIN := .venv/bin
ARGS ?=
SUITES ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-user test-random test-chaos test-soak test-thousand test-state test-kernel test-compatibility test-pythons test-all lint types contracts bench wheel-test clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  PYTHON=/path/to/python3 picks the interpreter, ARGS='-k name' goes to pytest (test, test-user, test-kernel)"

setup: ## system packages (root: installed; else: the command to run), .venv, libraries
	@python="$(PYTHON)"; test -n "$$python" && "$$python" scripts/set_up.py

demo: setup ## a tour: workers, effects, a blocked call, a crash
	@$(BIN)/python -m fxcell demo

test: setup ## lint, types, contracts, wheel, tests as you; as root also as an ordinary user
	@case "$(SUITES)" in *compatibility*) python="$(PYTHON)"; "$$python" scripts/set_up.py --extra compatibility;; esac
	@$(BIN)/python scripts/run_tests.py $(SUITES) $(ARGS)

test-user: setup ## only the tests as an ordinary user (root only)
	@$(BIN)/python scripts/test_as_user.py $(ARGS)

test-random: setup ## 10,000 random hostile actions against one host (about 5 minutes; FXCELL_RANDOM_ACTIONS, FXCELL_RANDOM_SEED)
	@$(BIN)/python scripts/test_random.py $(ARGS)

test-thousand: setup ## 1,000 hardened workers at the same time, each answering (about 6 GiB, up to 5 minutes; FXCELL_WORKERS)
	@$(BIN)/python scripts/test_thousand.py $(ARGS)

test-chaos: setup ## 20,000 commands while workers are killed, stopped, starved (about 2 minutes; FXCELL_CHAOS_COMMANDS, FXCELL_CHAOS_SEED)
	@$(BIN)/python scripts/test_chaos.py $(ARGS)

test-soak: setup ## 200,000 calls over a pool; the host may grow by less than 5 MiB (some minutes; FXCELL_SOAK_CALLS)
	@$(BIN)/python scripts/test_chaos.py --soak $(ARGS)

test-state: setup ## kill a host that keeps state 200 times; no acknowledged write may be lost (about 5 minutes)
	@FXCELL_STATE_KILLS=$${FXCELL_STATE_KILLS:-200} $(BIN)/pytest -q -s -o faulthandler_timeout=0 tests/host/test_state_killed.py $(ARGS)

test-kernel: setup ## the core of the tests on Debian's 6.1 kernel with cgroup v2, in a virtual machine (root only)
	@$(BIN)/python scripts/kernel_lab.py $(ARGS)

test-compatibility: setup ## CPython's own tests and big libraries in workers; rules nobody needs (some minutes)
	@python="$(PYTHON)"; "$$python" scripts/set_up.py --extra compatibility
	@$(BIN)/python scripts/test_compatibility.py $(ARGS)

test-pythons: setup ## the allowlist and the crash evidence on each of Python 3.11, 3.12 and 3.13 that is here
	@$(BIN)/python scripts/test_pythons.py $(ARGS)

test-all: ## test, test-random, test-chaos, test-kernel, test-compatibility, test-pythons; one total at the end
	@$(MAKE) --no-print-directory test SUITES="--random --chaos --kernel-lab --compatibility --pythons"

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
