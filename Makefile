# `make demo` and `make test` need python3 and make; everything else is set up in .venv.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo test mutations quantised compiled matrix clean

demo: $(VENV)/ready
	$(RUN) scripts/demo.py --output demo_output

test: $(VENV)/ready
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Valid files with random changes, more of them than `make test` tries.
mutations: $(VENV)/ready
	FOREIGN_MUTATIONS=10000 OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 tests/scripts/test_foreign_mutations.py

# Loading in 8 bits. torchao stands apart: where it is installed, every program that imports transformers prints its notes.
quantised: $(VENV)/ready
	$(RUN) -m pip install --quiet --no-deps --upgrade --target .venvs/torchao torchao
	PYTHONPATH=$(CURDIR)/.venvs/torchao OMP_NUM_THREADS=1 $(RUN) -m pytest tests/exporting/test_quantised_loading.py

# AOTInductor: the compiler takes a minute or two for the smallest model.
compiled: $(VENV)/ready
	COMPILE_AHEAD=1 OMP_NUM_THREADS=1 $(RUN) -m pytest tests/exporting/test_machine_code.py

matrix: $(VENV)/ready
	$(RUN) scripts/matrix.py

# torch goes first and alone: resolved together with the rest, another build may be chosen.
$(VENV)/ready: constraints.txt pyproject.toml
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[scripts,demo,finetune,test]"
	touch $@

clean:
	rm -rf $(VENV) .venvs demo_output
