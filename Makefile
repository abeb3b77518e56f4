# make demo    register one scan to the MNI152 template; results in demo/
# make test    all tests, one process a core; PYTEST_ARGS="-k grid" goes to pytest, VOXWARP_SLOW=1
#              adds the slow ones
# make check   lint, format, types and the import rule
# make clean   remove what the others made, .venv included
#
# PyTorch is installed first and alone, at the version of constraints.txt. Where no GPU is wanted,
# TORCH_ARGS="--index-url ..." lets pip take its CPU build.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet -c constraints.txt

.PHONY: demo test check clean

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py --out demo

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --dist worksteal $(strip $(if $(VOXWARP_SLOW),--slow) $(PYTEST_ARGS))

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --quiet tests/test_layering.py

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: installed once, and again when the requirements change.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch $(TORCH_ARGS)
	$(INSTALL) -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(INSTALL) -e '.[test,lint,benchmark]'
	# It asks for an older NumPy and nibabel than it needs; a test compares with it.
	$(INSTALL) --no-deps digital-diffeomorphism
	touch $@
