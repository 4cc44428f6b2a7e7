# Thin on purpose: the logic is in tools/. Every target makes or updates the environment first.
#   make demo ARGS="--trainer.max_epochs 1"      make test PACKAGE=ssm-core ARGS="-k scan"
#   make setup PYTHON=python3.12                 VENV=folder puts the environment elsewhere
VENV ?= .venv
export VENV

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint docs bench bench-cuda wheels clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile

setup: ## make or update the virtual environment; a second call takes a moment
	@tools/setup.sh

demo: setup ## train a bidirectional Mamba on handwritten digits
	@$(VENV)/bin/ssm-train fit digits-bimamba $(ARGS)

test: setup ## run the tests with coverage; PACKAGE=ssm-core runs those of one package
	@tools/test.sh $(PACKAGE) -- $(ARGS)

lint: setup ## ruff, mypy, the direction of imports, tests without an assertion
	@tools/lint.sh

docs: setup ## build the documentation into build/docs; a warning is an error
	@$(VENV)/bin/python -m sphinx -W --keep-going -q $(ARGS) docs build/docs
	@echo "==> build/docs/index.html"

bench: setup ## time operators and models beside their peers; ARGS="--parts scan --shapes B"
	@PYTHONPATH=tools $(VENV)/bin/python -m bench $(ARGS)

bench-cuda: setup ## the same on a GPU; ARGS="--parts scan --out FILE", or --smoke without one
	@PYTHONPATH=tools $(VENV)/bin/python -m bench.cuda $(ARGS)

wheels: ## wheels and source distributions of all packages in dist/, checked; OUT=folder elsewhere
	@tools/build_wheels.sh $(or $(OUT),dist)

clean: ## remove the environment, builds and caches; runs/ stays
	@tools/clean.sh
