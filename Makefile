# make demo    register one scan to the MNI152 template; results in demo/
# make test    run all tests, one process per core; PYTEST_ARGS="-k grid" is passed to pytest, and
#              VOXWARP_SLOW=1 adds the slow tests
# make test-min  the fast tests with the oldest versions of all packages (constraints-min.txt), in
#              .venv-min
# make check   lint, format, types, and which package may import which
# make dist    build the wheel and the source distribution in dist/, without network, and check them
# make docs    build the site of the documentation in build/site, and check its links and anchors
# make linkcheck  check the links to other sites; needs the internet
# make clean   remove everything that these commands made, including .venv
#
# PyTorch is installed first, on its own, at the version in constraints.txt. If you have no GPU,
# TORCH_ARGS="--index-url https://download.pytorch.org/whl/cpu" installs its CPU build.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet -c constraints.txt

MIN := .venv-min

.PHONY: demo test test-min check dist docs linkcheck clean

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py --out demo

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --dist worksteal $(strip $(if $(VOXWARP_SLOW),--slow) $(PYTEST_ARGS))

test-min: $(MIN)/.installed
	$(MIN)/bin/python -m pytest -n auto --dist worksteal $(PYTEST_ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --quiet tests/test_layering.py

dist: $(VENV)/.installed-dev
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl

docs: $(VENV)/.installed-docs
	$(BIN)/python docs/site/build.py

linkcheck: $(VENV)/.installed-docs
	$(BIN)/python docs/site/build.py --linkcheck

clean:
	rm -rf $(VENV) $(MIN) demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# These empty files record that the packages are installed; newer requirements install them again.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch $(TORCH_ARGS)
	$(INSTALL) -e .
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(INSTALL) -e '.[docs]'
	touch $@

$(MIN)/.installed: pyproject.toml constraints-min.txt
	$(PYTHON) -m venv $(MIN)
	$(MIN)/bin/python -m pip install --quiet -c constraints-min.txt torch $(TORCH_ARGS)
	$(MIN)/bin/python -m pip install --quiet -c constraints-min.txt -e '.[test]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(INSTALL) -e '.[test,lint,dist,benchmark]'
	# A test compares with it. It asks for older NumPy and nibabel than it needs.
	$(INSTALL) --no-deps digital-diffeomorphism
	touch $@
