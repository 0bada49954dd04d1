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

# `make demo TORCH=cpu` installs PyTorch's builds without CUDA first, a tenth of the size.
TORCH ?=
TORCH_INDEX_cpu := https://download.pytorch.org/whl/cpu

.PHONY: demo test test-mmcv check fix bench scale pictures docs build wheel-test release clean

demo: $(VENV)/.installed  ## the whole flow, offline; installs what hardmine itself needs and no more
	$(BIN)/hardmine demo

# In the order of their folders, the long files of integration/ come before the short ones of unit/,
# so that the processes end together.
test: $(VENV)/.ready  ## all tests
	$(BIN)/python -m pytest -m "not benchmark" --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

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

# `make scale IMAGES=20000` for a longer run.
IMAGES ?= 2000

scale: $(VENV)/.ready  ## an index built on two Ray nodes of this machine, one killed in the middle
	$(BIN)/python examples/on_two_nodes.py --images $(IMAGES) --out build/scale

pictures: $(VENV)/.ready  ## the pictures of README and docs, from generated scenes
	$(BIN)/python docs/pictures.py

docs: $(VENV)/.ready  ## the site, in build/site; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

build: $(VENV)/.ready  ## the wheel and the source archive, in dist/
	$(BIN)/python -m build

# The packages that hardmine needs are those of $(VENV); hardmine itself is the wheel's.
wheel-test: $(VENV)/.ready  ## builds the wheel, and follows the README with it in an empty folder
	rm -rf build/lib build/bdist.* build/wheel && mkdir -p build/wheel/empty
	$(BIN)/python -m build --wheel --no-isolation --outdir build/wheel . > build/wheel/log 2>&1 || { cat build/wheel/log; exit 1; }
	$(BIN)/python -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip install --quiet --no-deps build/wheel/*.whl
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
		> "$$(build/wheel/venv/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/needed.pth"
	cd build/wheel/empty && ../venv/bin/python ../../../tests/support/follow_readme.py ../../../README.md

release: $(VENV)/.ready  ## `make release VERSION=0.2.0`: version, changelog, checks, archives; the tag is yours
	@test -n "$(VERSION)" || { echo "say which: make release VERSION=0.2.0"; exit 2; }
	@git diff --quiet HEAD || { echo "commit or stash your changes first"; exit 2; }
	perl -pi -e 's/^__version__ = .*/__version__ = "$(VERSION)"/' hardmine/_version.py
	perl -pi -e "s/^## \\[Unreleased\\]/## [Unreleased]\n\n## [$(VERSION)] - $$(date +%F)/" CHANGELOG.md
	$(MAKE) check test docs wheel-test
	rm -rf dist && $(BIN)/python -m build
	@echo "next: git commit -am 'Version $(VERSION)', git tag v$(VERSION), upload dist/*"

# Made anew only when what it installs changes.
$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	$(if $(TORCH),$(BIN)/python -m pip install torch torchvision --index-url $(TORCH_INDEX_$(TORCH)))
	$(BIN)/python -m pip install --editable .
	touch $@

$(VENV)/.ready: $(VENV)/.installed
	$(BIN)/python -m pip install --editable ".[dev]"
	# mmengine imports yapf, which keeps its grammar in a file: two test processes would both write it.
	$(BIN)/python -c "import yapf"
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
