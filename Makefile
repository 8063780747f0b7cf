# make demo   the whole story on this machine, about 10 minutes after installation
# make test   the default tests;  make check  ruff and mypy;  make slow  the long tests
#
# On Linux, pip takes PyTorch's CUDA build by default. For the CPU build (a tenth of the size):
#   make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PYTHON ?= python3
PIP_ARGS ?=
BIN := .venv/bin
export TOKENIZERS_PARALLELISM := false
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: demo test slow check clean

demo: .venv/installed
	$(BIN)/vsre demo --out vsre-demo

test: .venv/installed
	$(BIN)/python -m pytest -n logical

slow: .venv/installed
	$(BIN)/python -m pytest -m slow

check: .venv/installed
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet $(PIP_ARGS) --constraint constraints.txt torch
	$(BIN)/pip install --quiet $(PIP_ARGS) --constraint constraints.txt --editable ".[dev]"
	@touch $@

clean:
	rm -rf .venv vsre-demo
