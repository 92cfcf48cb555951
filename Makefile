# Everything sets itself up: `make demo` and `make test` need Python 3.11 or newer, make and git, nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
Q ?= What is the capital of Australia?
# As typed: a dollar sign in a question is no variable of make's.
override Q := $(value Q)
export Q

# What the documents repeat of the code, written by the functions of docs/blocks.py.
COG := $(BIN)/cog -P -I docs -p "from blocks import *" --verbosity=1
PAGES := README.md docs/*.md docs/tools/*.md docs/protocols/*.md

.PHONY: demo test test-clients check format docs transcripts bench accuracy eval wheel clean

# The environment is made again only when what it is made from changes.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is older than 3.11; say make PYTHON=python3.11 …" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing fusiontools into $(VENV) …" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[all]'
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	@echo "installing the tools of the tests …" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $$($(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["dev"])')
	@touch $@

$(VENV)/.weights: $(VENV)/.installed fusiontools/llm/weights.py
	@$(BIN)/python -m fusiontools.llm.weights >/dev/null
	@touch $@

demo: $(VENV)/.weights
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh

test: $(VENV)/.dev $(VENV)/.weights
	@$(BIN)/python -m pytest

# Heavy, and of other people's making: 2.5 GB of clients, from pip and npm.
.clients/.installed: tests/clients/install.sh $(VENV)/.dev
	@sh tests/clients/install.sh "$(CURDIR)/$(BIN)/python" .clients

test-clients: $(VENV)/.dev .clients/.installed
	@FUSION_CLIENTS="$(CURDIR)/.clients" $(BIN)/python -m pytest tests/clients

check: $(VENV)/.dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(COG) --check --diff --check-fail-msg='make: the documents differ from the code; `make docs` writes them' $(PAGES)

format: $(VENV)/.dev
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs: $(VENV)/.dev
	@$(COG) -r $(PAGES)

# What the commands in the documents print, typed anew; what models say comes from the embedded one.
transcripts: $(VENV)/.dev $(VENV)/.weights
	@PYTHONPATH=tests/support $(BIN)/python tests/docs/test_docs.py

bench: $(VENV)/.dev $(VENV)/.weights
	@$(BIN)/python tests/bench/run.py

accuracy: $(VENV)/.dev $(VENV)/.weights
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/bench/accuracy.py

# The figures of examples/eval/RESULTS.md, on the embedded model: under ten minutes.
eval: $(VENV)/.weights
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/eval/run.sh

wheel: $(VENV)/.dev $(VENV)/.weights
	@sh tests/slow/wheel.sh "$(CURDIR)/$(BIN)/python"

clean:
	rm -rf $(VENV) .clients .eval dist build .demo .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
