# make lab        open JupyterLab on the first notebook      make lab ARGS="--no-browser --port 8899"
# make test       what must be green, in six minutes         make test SLOW=1 all of it, WORKERS=8 processes
# make help       the other targets
# Python is python3 unless you say so:                       make lab PYTHON=python3.12

PYTHON ?= python3
ARGS ?=
SLOW ?=
WORKERS ?= 2
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH := torch==2.13.*
TORCH_INDEX := https://download.pytorch.org/whl/cpu

.PHONY: help lab test bench notebooks format wheel clean

lab: .venv/.lab
	@$(BIN)/qviz lab 00-start-here $(ARGS)

test: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --doctest-modules qviz tests \
	  $(if $(SLOW),--hypothesis-profile=thorough,-m "not slow")
	QVIZ_SIZE=smoke OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile \
	  --nbval-lax --nbval-current-env --nbval-cell-timeout=120 notebooks$(if $(SLOW),,/00-start-here.ipynb)

bench: .venv/.test  ## run the benchmarks and print their figures
	@for script in tests/benchmarks/[!_]*.py; do echo "== $$script"; $(BIN)/python "$$script" $(ARGS) || exit 1; done

notebooks: .venv/.test  ## execute every notebooks/**/*.py and write the .ipynb beside it
	$(BIN)/python -m tests.tools.execute_notebooks $(ARGS)

format: .venv/.test  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: .venv/.test  ## build dist/*.tar.gz, and from it dist/*.whl
	$(BIN)/python -m build --no-isolation

clean:  ## remove the environment and everything built
	rm -rf .venv dist build .pytest_cache .ruff_cache .hypothesis tests/shots

help:
	@sed -n '1,4s/^# *//p' Makefile
	@sed -n 's/^\([a-z]*\):.*## /make \1: /p' Makefile

# A stamp per extra: the install is repeated when pyproject.toml or constraints.txt change, else it costs nothing.
.venv/.lab .venv/.test: .venv/.%: pyproject.toml constraints.txt | $(BIN)/python
	@$(BIN)/python -c 'import importlib.util as u; raise SystemExit(not u.find_spec("torch"))' \
	  || $(PIP) install --no-deps --retries 0 --extra-index-url $(TORCH_INDEX) '$(TORCH)'  # the CPU build, alone
	$(PIP) install -c constraints.txt -e '.[$*]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "qviz needs Python 3.11 or newer and '$(PYTHON)' is not one: install it, then make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' has no venv module: install it (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
