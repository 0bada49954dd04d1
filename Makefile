PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# mmcv and mmcv-lite share a folder, so the compiled one has an environment of its own.
MMCV := .venv-mmcv
# Files of mmcv compiled at once, each with up to 2 GB of memory: `make test-mmcv JOBS=8`.
JOBS ?= 2
# Processes that test side by side, each with up to 3 GB of memory: `make test WORKERS=8`.
WORKERS ?= 2
# Two busy processes on few cores make OpenMP spin; passive waiting keeps them fair.
export OMP_WAIT_POLICY := passive

.PHONY: demo test test-mmcv check fix bench build clean

demo: $(VENV)/.ready  ## the whole flow, offline
	$(BIN)/hardmine demo

test: $(VENV)/.ready  ## all tests
	$(BIN)/python -m pytest -m "not benchmark" --numprocesses $(WORKERS) --dist loadfile

test-mmcv: $(MMCV)/.ready  ## the MMDetection tests with a compiled mmcv; compiling takes a while, once
	$(MMCV)/bin/python -m pytest -m "not benchmark" tests/integration/mmdet

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

$(MMCV)/.ready: pyproject.toml $(MMCV)/.compiled
	# cityscapesscripts needs np.in1d, and of what it depends on, one is a copy of Python's typing.
	$(MMCV)/bin/python -m pip install --editable ".[mmdet]" $(MMCV)/wheels/mmcv-*.whl lvis pytest "numpy<2.4"
	$(MMCV)/bin/python -m pip install --no-deps cityscapesscripts appdirs coloredlogs humanfriendly pyquaternion
	touch $@

# mmcv 2.1 asks for C++17, the headers of recent torch versions for C++20.
$(MMCV)/.compiled:
	test -x $(MMCV)/bin/python || $(PYTHON) -m venv $(MMCV)
	$(MMCV)/bin/python -m pip install torch torchvision "setuptools<81" wheel ninja psutil
	$(MMCV)/bin/python -m pip download --no-deps --no-binary :all: --no-build-isolation --dest $(MMCV) mmcv==2.1.0
	tar -xzf $(MMCV)/mmcv-2.1.0.tar.gz -C $(MMCV)
	sed -i.orig 's/-std=c++17/-std=c++20/' $(MMCV)/mmcv-2.1.0/setup.py
	MMCV_WITH_OPS=1 MAX_JOBS=$(JOBS) CFLAGS="-O1 -g0" $(MMCV)/bin/python -m pip wheel --no-build-isolation --no-deps \
		--wheel-dir $(MMCV)/wheels $(MMCV)/mmcv-2.1.0
	touch $@

clean:
	rm -rf $(VENV) $(MMCV) build dist *.egg-info
