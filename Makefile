# Two commands matter: `make demo` and `make test`. Each sets up what it needs by itself, in .venv.
.POSIX:
SHELL = /bin/sh
VENV = .venv
PY = $(VENV)/bin/python
DEPS = $(VENV)/.ready
TRAIN = .venv-train/.ready
PYTEST = $(PY) -m pytest -n 2 --dist loadfile
.PHONY: demo test test-all test-train lint types bench train clean help

help:
	@echo "make demo      the real proxy in front of a bundled chatbot, with traffic and a live table"
	@echo "make test      linters, types and tests"
	@echo "make test-all  also trains a tiny classifier end to end (installs torch)"
	@echo "make bench     the benchmark against a bare aiohttp proxy (needs a C compiler, Linux)"
	@echo "make train     train and export the classifier bundle anew (needs ../shared/data)"

# The system's Python first: Debian's is built with profiles and uses 15 to 30 % less CPU a request than
# pyenv's. A Python without ensurepip (Debian without python3-venv) cannot make an environment: try the next.
$(DEPS): pyproject.toml
	@set -e; \
	if [ ! -x $(PY) ]; then \
	  for python in $$PYTHON /usr/bin/python3 python3.13 python3.12 python3.11 python3; do \
	    "$$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    echo "making $(VENV) with $$("$$python" --version)"; \
	    "$$python" -m venv $(VENV) && break; \
	  done; \
	  [ -x $(PY) ] || { echo "no Python >= 3.11 with venv found: install one (Debian: apt-get install python3-venv)" >&2; exit 1; }; \
	fi; \
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'; \
	touch $(DEPS)

demo: $(DEPS)
	@$(VENV)/bin/refusal-proxy demo

lint: $(DEPS)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(DEPS)
	$(VENV)/bin/mypy

test: lint types
	$(PYTEST) -m "not train"

# Also the training pipeline, with torch, in an environment of its own.
test-all: test test-train

test-train: $(TRAIN)
	.venv-train/bin/python -m pytest -m train tests/classifiers

bench: $(DEPS)
	$(PY) -m tests.bench.bench

# torch first and by its version: a range would take a build with several GB of CUDA along.
$(TRAIN): $(DEPS)
	$(PY) -m venv .venv-train
	.venv-train/bin/python -m pip install --quiet --disable-pip-version-check 'torch==2.13.0'
	.venv-train/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[train,dev]'
	@touch $(TRAIN)

train: $(TRAIN)
	for step in prepare train calibrate export evaluate; do .venv-train/bin/python -m classifiers $$step || exit; done

clean:
	rm -rf $(VENV) .venv-train .mypy_cache .ruff_cache .pytest_cache .hypothesis .work build dist
