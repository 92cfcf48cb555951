# Everything sets itself up: `make demo` and `make test` need Python 3.11 or newer, make and git, nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Most tests wait for processes and servers half of their time; the slow ones do not.
WORKERS = $(shell $(PYTHON) -c 'import os; print(2 * os.cpu_count())')
NEWEST := .venv-newest/bin
PIP := -m pip --quiet --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest $(ARGS)
DEBIAN := bubblewrap caddy chromium fish jq man-db pgbouncer postgresql procps redis-server systemd zsh
BUILDER := $(firstword $(shell which podman buildah docker 2>/dev/null))
IMAGE ?= localhost/fusiontools:latest
IMAGE_EXTRAS := serve prices mcp otel redis postgres
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)
Q ?= What is the capital of Australia?
# As typed: a dollar sign in a question is no variable of make's.
override Q := $(value Q)
export Q

# What the documents repeat of the code, written by the functions of docs/blocks.py.
COG := $(BIN)/cog -P -I docs -p "from blocks import *" --verbosity=1
PAGES := README.md docs/*.md docs/tools/*.md docs/protocols/*.md

# What the tests are compiled to is kept; else each worker compiles all of them, each time.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-all test-newest test-clients fuzz faults check format schemas docs transcripts screenshots lock image system bench accuracy eval tune tuning checked until until-real wheel clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# The environment is made again only when what it is made from changes. Its packages are those of the lock, and so is
# the backend that installs the checkout: what is released later breaks neither `make demo` nor `make test`.
$(VENV)/.installed: pyproject.toml requirements/demo.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is older than 3.11; say make PYTHON=python3.11 …" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing fusiontools into $(VENV) …" >&2
	@$(BIN)/python $(PIP) install -r requirements/demo.txt
	@$(BIN)/python $(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed requirements/dev.txt
	@echo "installing every extra and the tools of the tests …" >&2
	@$(BIN)/python $(PIP) install -r requirements/dev.txt
	@touch $@

$(VENV)/.weights: $(VENV)/.installed fusiontools/llm/weights.py
	@$(BIN)/python -m fusiontools.llm.weights >/dev/null
	@touch $@

# Ray is a third of a gigabyte, which only the tests and measurements of fuse-ray need.
$(VENV)/.ray: $(VENV)/.dev requirements/ray.txt
	@echo "installing Ray …" >&2
	@$(BIN)/python $(PIP) install -r requirements/ray.txt
	@touch $@

demo: $(VENV)/.weights ## fuse a question on the embedded model; Q="…" asks your own
	@DEMO_BIN="$(CURDIR)/$(BIN)" PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh

test: $(VENV)/.dev $(VENV)/.weights ## run the tests, but for the slow ones; ARGS="…" is pytest's
	@$(PYTEST) -n $(WORKERS) --dist worksteal -m "not slow"

# What finds faults of the page that keep people from using it; its test is skipped without.
.axe/.installed:
	@npm install --silent --no-audit --no-fund --prefix .axe axe-core@4.11 && touch $@ || echo "make: npm does not get axe-core: the page is not held against it" >&2

test-slow: $(VENV)/.ray $(VENV)/.weights .axe/.installed ## run the slow ones: embedded model, the documents' commands, wheels, clients, fuzzing, workers
	@$(PYTEST) -n auto --dist worksteal -m slow

test-all: test test-slow ## run all tests

fuzz: $(VENV)/.dev $(VENV)/.weights ## let hypothesis look for new examples, where `make test` repeats the same ones
	@$(PYTEST) -n $(WORKERS) --dist worksteal -m hypothesis --hypothesis-profile explore

faults: $(VENV)/.dev ## kill, feed with rubbish, race for money, wear out: a quarter of an hour; PARTS="…" some of it
	@PYTHONPATH=tests/support $(BIN)/python tests/faults/run.py $(PARTS)

# In an environment of its own, with the newest release of every package that pyproject.toml allows.
test-newest: $(VENV)/.weights ## run all tests with the newest of every dependency
	@test -x $(NEWEST)/python || $(PYTHON) -m venv .venv-newest
	@$(NEWEST)/python $(PIP) install --upgrade pip
	@$(NEWEST)/python $(PIP) install --upgrade --upgrade-strategy eager -e '.[all,ray]' --group dev
	@$(NEWEST)/python -m pytest $(ARGS) -n auto --dist worksteal

# Heavy, and of other people's making: gigabytes of clients, from PyPI and npm.
.clients/.installed: tests/clients/install.sh .venv-lock/bin/uv
	@sh tests/clients/install.sh "$(CURDIR)/.venv-lock/bin/uv" .clients

test-clients: $(VENV)/.dev .clients/.installed ## install real clients (6 GB) and run them against a server
	@FUSION_CLIENTS="$(CURDIR)/.clients" $(PYTEST) -n auto --dist worksteal tests/clients

check: $(VENV)/.dev ## run the linters, the type checker, and cog over the documents
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(COG) --check --diff --check-fail-msg='make: the documents differ from the code; `make docs` writes them' $(PAGES)

format: $(VENV)/.dev ## format the code and mend what ruff can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs: $(VENV)/.dev ## write into the documents what they repeat of the code
	@$(COG) -r $(PAGES)

schemas: $(VENV)/.dev ## write into the schemas what they say of stages
	@PYTHONPATH=tests/support $(BIN)/python tests/support/stage_schemas.py

# What the commands in the documents print, typed anew; what models say comes from the embedded one.
transcripts: $(VENV)/.dev $(VENV)/.weights ## write into the documents what their commands print
	@PYTHONPATH=tests/support $(BIN)/python tests/docs/test_docs.py

.venv-lock/bin/uv:
	@$(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/python $(PIP) install uv

# One resolution for every Python from 3.11 and every platform; the packages of `make demo` are a part of the others.
RESOLVE = .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)

lock: .venv-lock/bin/uv ## write requirements/*.txt from pyproject.toml; UPGRADE=1 takes the newest of everything
	@$(RESOLVE) --extra all --group dev --output-file requirements/dev.txt pyproject.toml
	@$(RESOLVE) --extra all --extra ray --group dev --constraint requirements/dev.txt --output-file requirements/ray.txt pyproject.toml
	@$(RESOLVE) --extra local --group backend --constraint requirements/dev.txt --output-file requirements/demo.txt pyproject.toml
	@$(RESOLVE) $(IMAGE_EXTRAS:%=--extra %) --constraint requirements/dev.txt --output-file requirements/image.txt pyproject.toml

# BUILD_ARGS is for what a builder needs on this machine: a network, certificates. OCI's own format has no health check.
image: ## build the container of fuse-serve with podman, buildah or docker; BUILDER=… BASE=…
	@test -n "$(BUILDER)" || { echo "make: no podman, buildah or docker is installed" >&2; exit 2; }
	@$(BUILDER) build $(if $(filter docker,$(notdir $(BUILDER))),,--format docker) $(if $(BASE),--build-arg BASE=$(BASE)) $(BUILD_ARGS) --file Containerfile --tag $(IMAGE) .

system: ## install the Debian packages that some tests need and are skipped without
	@{ which bwrap caddy chromium fish jq man ps redis-server systemd-analyze zsh && ls /usr/sbin/pgbouncer /usr/lib/postgresql/*/bin/initdb; } >/dev/null 2>&1 || { $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $(DEBIAN); }

screenshots: $(VENV)/.dev ## take the pictures of docs/page.md anew
	@FUSION_PICTURES="$(CURDIR)/docs/pictures" $(PYTEST) -m slow tests/page/test_looks.py

bench: $(VENV)/.dev $(VENV)/.weights ## measure: start-up, replay, calls, memory, soak, server
	@$(BIN)/python tests/bench/run.py

accuracy: $(VENV)/.dev $(VENV)/.weights ## measure how often the embedded model and its fusion are right
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/bench/accuracy.py

# The figures of examples/eval/RESULTS.md, on the embedded model: under ten minutes.
eval: $(VENV)/.dev $(VENV)/.weights ## evaluate the embedded model as examples/eval does
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/eval/run.sh

tune: $(VENV)/.dev $(VENV)/.weights ## tune a panel of the embedded model as examples/tune does: under ten minutes
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/tune/run.sh

tuning: $(VENV)/.dev ## simulate what fuse-tune and fuse-calibrate promise, on panels of which the truth is known
	@PYTHONPATH=tests/support $(BIN)/python tests/bench/tuning.py $(RUNS)

until: $(VENV)/.dev ## simulate what asking until it is sure loses and spares
	@PYTHONPATH=tests/support $(BIN)/python tests/bench/until.py $(QUESTIONS)

until-real: $(VENV)/.dev $(VENV)/.weights ## ask the embedded model until it is sure, as examples/until does: a quarter of an hour
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/until/run.sh

checked: $(VENV)/.dev ## measure how near a pick by a check comes to the best of scripted panels
	@PYTHONPATH=tests/support $(BIN)/python tests/bench/checked.py $(TASKS)

wheel: $(VENV)/.dev $(VENV)/.weights ## build wheel and sdist and try each in an empty environment
	@sh tests/slow/wheel.sh "$(CURDIR)/$(BIN)/python"

clean: ## remove everything that make made
	rm -rf $(VENV) .venv-lock .venv-newest .axe .clients .eval .tune .until dist build .demo .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
