# Two commands: `make train` and `make test`. Each sets up everything it needs first; the second time that takes no time.
#
#   make train                          the recipe for this machine: fast90 with a GPU, cpu90 without
#   make train SOURCE=PATH              from CIFAR-10 that is already on disk (FASTCIFAR_SOURCE says the same)
#   make train ARGS="--recipe smoke"    any flags of `python -m fastcifar.train`
#   make test                           lint, format, types, tests

VENV ?= .venv
PY := $(VENV)/bin/python
SOURCE ?=
ifneq ($(SOURCE),)
export FASTCIFAR_SOURCE := $(SOURCE)
endif
ARGS ?=

.PHONY: train test setup format clean

train: $(VENV)/.ready
	$(PY) -m fastcifar.prepare --or-synthetic
	$(PY) -m fastcifar.train $(ARGS)

test: $(VENV)/.ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright
	$(PY) -m pytest -m "not slow and not gpu" $(ARGS)

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml tools/setup.sh
	sh tools/setup.sh $(VENV)

format: $(VENV)/.ready
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build *.egg-info
