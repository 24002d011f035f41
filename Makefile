# Two commands, `make train` and `make test`. Each installs what it needs on its first call and starts immediately after that.
#
#   make train                          the recipe for this machine: fast90 with a GPU, cpu90 without
#   make train SOURCE=PATH              use CIFAR-10 from disk (or set FASTCIFAR_SOURCE)
#   make train ARGS="--recipe smoke"    flags of `fastcifar train`
#   make test                           lint, format, types, tests

VENV ?= .venv
PY := $(VENV)/bin/python
SOURCE ?=
ifneq ($(SOURCE),)
export FASTCIFAR_SOURCE := $(SOURCE)
endif
ARGS ?=

.PHONY: train test setup format clean help

train: $(VENV)/.ready ## install, prepare CIFAR-10 (SOURCE=PATH: from disk), train (ARGS: flags of fastcifar train)
	$(PY) -m fastcifar.prepare --or-synthetic
	$(PY) -m fastcifar.train $(ARGS)

# passive: threads that wait would otherwise spin, and take the cores from the other process
test: $(VENV)/.ready ## install, lint, check the format, check the types, test (ARGS: flags of pytest)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright
	OMP_WAIT_POLICY=passive $(PY) -m pytest -n 2 --dist loadfile -m "not slow and not gpu" $(ARGS)

setup: $(VENV)/.ready ## install

$(VENV)/.ready: pyproject.toml tools/setup.sh
	sh tools/setup.sh $(VENV)

format: $(VENV)/.ready ## fix what ruff can fix, and format
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean: ## remove the environment and all caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build *.egg-info

help: ## list the targets
	@awk -F ':.* ## ' '/^[a-z]+:.* ## / { printf "make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
