# Every verb sets up what it needs first (see infra/dev/setup). `make` alone lists the verbs.
MAKEFLAGS += --no-print-directory --no-builtin-rules
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.SUFFIXES:

# It doubles the time that a process takes to start, and tests start hundreds.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
READY := .venv/.ready
PROJECTS := libs/tenancy/pyproject.toml $(wildcard services/*/pyproject.toml) infra/dev/pyproject.toml
PYTHON_SOURCES := libs services infra/dev tests

# Traces for up and demo: an access log in combined format and a CSV of LLM requests, plain or .gz.
LOG ?=
LLM ?=
TRACES := $(if $(LOG),--log '$(LOG)') $(if $(LLM),--llm '$(LLM)')
# Further arguments: make test ARGS='-k outbox'
ARGS ?=
# Processes that run the tests; they wait for servers half of the time. 0 runs them in pytest's own (for --pdb).
WORKERS ?= 3

.PHONY: help up demo down clean test check mutants fmt bench bench-usage chaos e2e lock lock-jars setup

help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

up: $(READY) ## Start everything, replay sample traffic, show the invoices, stay up (LOG=… LLM=…)
	@exec $(BIN)/tenantry up $(TRACES) $(ARGS)

demo: $(READY) ## The same without a person: compare every invoice with an oracle, stop, exit 0 if equal
	@exec $(BIN)/tenantry demo $(TRACES) $(ARGS)

down: $(READY) ## Stop what `make up` started, from another terminal
	@exec $(BIN)/tenantry down $(ARGS)

clean: $(READY) ## Stop, and remove all data of the embedded stack
	@exec $(BIN)/tenantry clean $(ARGS)

test: $(READY) ## All tests (WORKERS=…)
	@$(BIN)/pytest --numprocesses $(WORKERS) $(ARGS)

e2e: $(READY) ## The tests that drive the four services as processes
	@$(BIN)/pytest tests/e2e $(ARGS)

chaos: $(READY) ## Kill, stop and cut off everything by a schedule, and compare with an oracle, for ten minutes (SEED=… MINUTES=…)
	@CHAOS_SEED=$(SEED) CHAOS_MINUTES=$(or $(MINUTES),10) $(BIN)/pytest -s tests/chaos $(ARGS)

check: $(READY) ## Format, lint, types, import contracts, lock file, known weaknesses
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy $(PYTHON_SOURCES)
	@$(BIN)/lint-imports
	@$(BIN)/python -m tenantry_dev.locks
	@$(BIN)/bandit --quiet --recursive --configfile pyproject.toml libs services infra/dev
	@$(BIN)/python -m tenantry_dev.advisories

mutants: $(READY) ## Break every guard on purpose; the tests must notice (ARGS='T1 T5 --committed')
	@exec $(BIN)/python -m tenantry_dev.mutants $(ARGS)

fmt: $(READY) ## Format the code and fix what the linter can fix
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

bench: $(READY) ## Measure, print, and write .tenantry/bench.json
	@exec $(BIN)/tenantry bench $(ARGS)

bench-usage: $(READY) ## Measure the usage service: figures and a chart in .tenantry/bench (BENCH_SHORT=1: minutes)
	@exec $(BIN)/tenantry bench usage

lock: $(READY) ## Resolve all dependencies anew
	@echo 'uv=='"$$($(BIN)/uv --version | cut -d' ' -f2)" | $(COMPILE) - -o infra/dev/bootstrap.lock
	@$(COMPILE) --no-emit-package tenantry --no-emit-package tenant-service --no-emit-package usage-service \
		--no-emit-package billing-service --no-emit-package app-service --no-emit-package tenantry-dev \
		--all-extras $(PROJECTS) --group dev -o requirements.lock

lock-jars: $(READY) ## Resolve Kafka's jars anew
	@exec $(BIN)/tenantry lock-jars

setup: $(READY) ## Only the virtual environment

COMPILE := UV_SYSTEM_CERTS=1 $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-header

$(READY): requirements.lock infra/dev/bootstrap.lock infra/dev/setup $(PROJECTS)
	@infra/dev/setup
	@touch $@
