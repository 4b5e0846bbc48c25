# `make demo` and `make test` need Python >= 3.11, make and git, nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo test check format bench faults fuzz soak huge clean

demo: $(VENV)/.demo
	$(BIN)/dataflow demo

test: $(VENV)/.test
	$(BIN)/python -m pytest

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.bench
	for script in chain lmdb_io idle latency formats transfer small images memory; do \
		$(BIN)/python benchmarks/$$script.py || exit 1; \
	done

faults: $(VENV)/.test
	$(BIN)/python -m tests.faults
	$(BIN)/python -m tests.saving

fuzz: $(VENV)/.test
	$(BIN)/python -m tests.fuzz

# Half an hour, on a machine that does nothing else; MINUTES=5 make soak is a look.
soak: $(VENV)/.test
	$(BIN)/python -m tests.soak

# Arrays beyond 2 and 4 GiB: needs 16 GiB of memory and 10 GiB of disk.
huge: $(VENV)/.test
	HUGE=1 $(BIN)/python -m pytest tests/serializers/test_round_trip.py -k huge

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed; name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

# One stamp an extra: `.venv/.test` says that `pip install -e .[test]` has been done for this pyproject.toml.
$(VENV)/.demo: EXTRAS := demo
$(VENV)/.test: EXTRAS := demo,test
$(VENV)/.dev: EXTRAS := dev,test
$(VENV)/.bench: EXTRAS := bench
$(VENV)/.%: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'
	touch $@
