# `make demo` runs the main job, `make test` all checks and tests, `make quick` those of a minute, `make docs` the site;
# all of them set everything up in .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check lint types types-windows imports quick docs clean

demo: .venv/ready
	$(BIN)/focusd demo --out demo-output --json demo-output/figures.json

# Two at a time: most tests compute on one core alone, and threads of numpy's would wait for one another.
# tests/conftest.py says which of them stay together.
test: check
	OMP_NUM_THREADS=1 $(BIN)/pytest -q --numprocesses 2 --dist loadgroup

check: .venv/ready
	$(MAKE) --jobs 2 --output-sync=target lint types types-windows imports

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready
	$(BIN)/mypy --strict focusd tests bench docs/reference.py

types-windows: .venv/ready
	$(BIN)/mypy --strict --platform win32 --cache-dir .mypy_cache/win32 focusd

imports: .venv/ready
	$(BIN)/lint-imports

# What to run while writing: the tests that need no daemon and no long simulation. One thread for each worker: with
# more, the two of them wait for each other, which doubles the time.
QUICK_FOCUS := $(addprefix tests/focus/test_,budget.py geometry.py moffat.py published.py shift.py)
QUICK := $(QUICK_FOCUS) tests/slide tests/optics tests/test_configs.py tests/test_documents.py tests/test_reliability.py

quick: .venv/ready
	$(MAKE) --jobs 2 --output-sync=target lint types
	OMP_NUM_THREADS=1 $(BIN)/pytest -q --numprocesses 2 -m 'not slow' $(QUICK)

docs: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "the site begins at site/index.html"

# PyTorch's newest releases on PyPI bring gigabytes of CUDA; the range in pyproject.toml does not.
.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("focusd needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev,docs]'
	touch $@

clean:
	rm -rf .venv demo-output site
