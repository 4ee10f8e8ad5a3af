# Everything sets itself up from nothing: `make report`, `make test`, `make help`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
CORES ?= all
SNAKEMAKE := $(BIN)/snakemake --cores $(CORES)
ENGINE ?= $(firstword $(foreach name,docker podman buildah,$(shell command -v $(name))))
ACCELERATOR ?= cuda
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
IMAGE ?= curvelens:$(VERSION)$(if $(filter cpu,$(ACCELERATOR)),-cpu)

.DEFAULT_GOAL := help
.PHONY: help report unlock clusters container verify test test-slurm soak check lint format docs bench lock clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

report: $(VENV)/.workflow ## Run the whole workflow and render results/report/index.html
	$(SNAKEMAKE)
	@echo "The report: $(CURDIR)/results/report/index.html"

unlock: $(VENV)/.workflow ## Remove the lock that a killed run left; then start it again
	$(BIN)/snakemake --unlock

test: $(VENV)/.dev ## Run the tests
	$(BIN)/pytest -n 2 --dist loadfile

soak: $(VENV)/.dev ## Run the long trials, one after the other; their pages go to docs/soak
	@set -e; for trial in tests/soak/[!_]*.py; do echo "$$trial"; $(BIN)/python "$$trial"; done

clusters: $(VENV)/.clusters ## Install what submits jobs to Slurm, Kubernetes and others

container: ## Build the image for clusters (ACCELERATOR=cpu: without CUDA)
	@test -n "$(ENGINE)" || { echo "no container engine; install docker, podman or buildah, or name one: make ENGINE=... container" >&2; exit 1; }
	$(ENGINE) build --file Containerfile --tag $(IMAGE) --build-arg UV_VERSION=$(UV_VERSION) --build-arg ACCELERATOR=$(ACCELERATOR) $(BUILD_FLAGS) .

test-slurm: $(VENV)/.dev ## Run the workflow on a Slurm of two nodes, started for it (root on Debian)
	CURVELENS_SLURM=1 $(BIN)/pytest tests/slurm

verify: $(VENV)/.workflow ## Check every file of a finished run against its manifest
	$(BIN)/python -m curvelens.manifest results/manifest.json

check: lint test ## What guards the main branch: lint, types and tests

lint: $(VENV)/.dev ## Check style, types, rules and generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules workflow
	$(BIN)/snakemake --lint
	$(BIN)/mypy

format: $(VENV)/.dev ## Rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules workflow

docs: $(VENV)/.dev ## Regenerate the schema and the pages that come from code
	$(BIN)/python docs/generate.py

bench: $(VENV)/.dev ## Run every benchmark; tables and plots go to docs/benchmarks
	$(BIN)/python benchmarks/run.py

lock: $(VENV)/.uv ## Resolve the dependencies anew (then run `make docs`)
	$(BIN)/uv pip compile pyproject.toml --all-extras -o locks/dev.txt --upgrade $(LOCK_FLAGS)
	$(BIN)/uv pip compile pyproject.toml --extra workflow -c locks/dev.txt -o locks/workflow.txt $(LOCK_FLAGS)
	$(BIN)/uv pip compile pyproject.toml --extra workflow --extra clusters -c locks/dev.txt -o locks/clusters.txt $(LOCK_FLAGS)

LOCK_FLAGS := --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

clean: ## Remove the results, keep the environment
	rm -rf .snakemake
	find results -mindepth 1 ! -name README.md -delete

# The environment. Each stamp names the lock file it was installed from.
$(VENV)/.uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "curvelens needs Python 3.11 or newer; name one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	touch $@

$(VENV)/.workflow: locks/workflow.txt pyproject.toml | $(VENV)/.uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r locks/workflow.txt
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --no-deps --editable .
	touch $@

$(VENV)/.clusters: locks/clusters.txt $(VENV)/.workflow
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r locks/clusters.txt
	touch $@

$(VENV)/.dev: locks/dev.txt $(VENV)/.workflow
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r locks/dev.txt
	touch $@
