# Two commands do all the set-up on a fresh machine: `make search` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: search test lint clean

search: $(VENV)/installed
	$(BIN)/naswot search

test: $(VENV)/installed-test
	$(BIN)/pytest -n auto -rs

lint: $(VENV)/installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

SOURCES := pyproject.toml constraints.txt $(shell find naswot proxies bench_adapters -name '*.py')

$(VENV)/installed: $(VENV)/bin/python $(SOURCES)
	rm -rf build
	$(BIN)/pip install -q -c constraints.txt .
	touch $@

$(VENV)/installed-test: $(VENV)/bin/python $(SOURCES)
	rm -rf build
	$(BIN)/pip install -q -c constraints.txt '.[test]'
	touch $@

$(VENV)/installed-lint: $(VENV)/installed-test
	$(BIN)/pip install -q -c constraints.txt '.[test,lint]'
	touch $@

clean:
	rm -rf build $(VENV) *.egg-info
