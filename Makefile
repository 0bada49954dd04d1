PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two busy processes on few cores make OpenMP spin; passive waiting keeps them fair.
export OMP_WAIT_POLICY := passive

.PHONY: demo test check fix bench build clean

demo: $(VENV)/.ready  ## the whole flow, offline
	$(BIN)/hardmine demo

test: $(VENV)/.ready  ## all tests
	$(BIN)/python -m pytest -m "not benchmark"

check: $(VENV)/.ready  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fix: $(VENV)/.ready  ## format and mend what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.ready  ## every benchmark, each prints its table
	$(BIN)/python -m pytest -m benchmark -s tests/benchmarks

build: $(VENV)/.ready  ## the wheel and the source archive, in dist/
	$(BIN)/python -m build

# Made anew only when what it installs changes.
$(VENV)/.ready: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
