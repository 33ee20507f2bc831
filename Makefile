# make demo      set everything up and run the main job
# make test      set everything up and pass the checks and tests
# make test-all  the same with the tests that take minutes
# make docs      build the documentation site into out/docs

TORCH := 2.13.0
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
DEMO ?= out/demo
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-all check format install docs notebook lock clean

demo: install
	$(BIN)/lesionwise demo -o $(DEMO)

test: check
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not slow"

test-all: check
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(VENV)/.installed

# torch first and with its own needs, so that a machine with a GPU gets a working set; a machine
# without one takes the CPU build where pip can find it (see docs/guide/install.md). The lock
# follows with --no-deps: nothing in it is resolved anew.
$(VENV)/.installed: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { \
		echo "Python 3.11, 3.12 or 3.13 is needed; name one with: make PYTHON=path/to/python3" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@if nvidia-smi >/dev/null 2>&1 || ! $(BIN)/pip install -q -c requirements.lock torch==$(TORCH)+cpu 2>/dev/null; then \
		echo "installing torch $(TORCH)"; $(BIN)/pip install -q -c requirements.lock torch==$(TORCH); fi
	$(BIN)/pip install -q --no-deps -r requirements.lock
	$(BIN)/pip install -q --no-deps -e .
	@touch $@

docs: $(VENV)-docs/.installed
	$(VENV)-docs/bin/mkdocs build --strict

# the example notebook again, with its outputs
notebook: install $(VENV)-docs/.installed
	PYTHONPATH=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'):src \
		$(VENV)-docs/bin/jupyter execute --inplace docs/guide/first_steps.ipynb
	$(BIN)/python tools/clean_notebook.py docs/guide/first_steps.ipynb

# its own environment: it reads the sources and imports nothing of them
$(VENV)-docs/.installed: requirements-docs.lock
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/pip install -q --no-deps -r requirements-docs.lock
	@touch $@

lock:
	tools/lock $(PYTHON) $(TORCH) > requirements.lock.new && mv requirements.lock.new requirements.lock
	tools/lock-docs $(PYTHON) > requirements-docs.lock.new && mv requirements-docs.lock.new requirements-docs.lock

clean:
	rm -rf $(VENV) $(VENV)-docs out build dist
