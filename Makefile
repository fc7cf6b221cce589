# Thin targets; the work is in scripts/ and in `deskhand`.
PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := run
.PHONY: run setup dev test test-quick lint bench lock clean

run: setup          ## everything on this machine; Ctrl-C ends it
	@exec $(BIN)/deskhand up

setup:              ## .venv with what is needed to run
	@$(PYTHON) scripts/setup

dev:                ## also what tests and lint need
	@$(PYTHON) scripts/setup --dev

test: dev
	@$(BIN)/python -m pytest $(ARGS)

test-quick: dev
	@$(BIN)/python -m pytest -m "not slow and not models and not browser" $(ARGS)

lint: dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright
	@$(BIN)/lint-imports

bench: setup
	@$(BIN)/deskhand bench

lock:               ## requirements.lock anew from pyproject.toml
	@$(PYTHON) scripts/lock

clean:              ## the environment and caches; .deskhand, with its data, stays
	@rm -rf .venv .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
