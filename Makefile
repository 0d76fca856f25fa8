# Two commands matter: `make demo` and `make test`. Each sets up everything first; Python 3.11 or 3.12, git and make
# are all that must be there.

.DEFAULT_GOAL := help
.PHONY: help setup demo test lock clean

PYTHON ?=
VIDEOS ?=
ARGS ?=
BIN := .venv/bin
STAMP := .venv/.installed

export PREFECT_SERVER_ANALYTICS_ENABLED := false
export PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS := 120
export RAY_USAGE_STATS_ENABLED := 0
export TOKENIZERS_PARALLELISM := false

help:
	@echo "make demo              the whole river on a small drawn cartoon; workspace and report in demo/"
	@echo "make demo VIDEOS=dir   the same on your own footage; ARGS='--set select.theta=8' goes to ptta run"
	@echo "make test              linter, types and tests"
	@echo "make setup             only the virtual environment .venv, exactly as locked"
	@echo "make lock              resolve pyproject.toml into requirements.lock again"
	@echo "make clean             remove the demo's workspace and every cache (.venv stays)"

setup: $(STAMP)

# `-c` tries each candidate: a name on the path may be a launcher without an interpreter behind it. An environment that
# still works is kept, and brought to the lock by `pip sync`.
RIGHT := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))
$(STAMP): requirements.lock pyproject.toml
	@if $(BIN)/python -m pip --version >/dev/null 2>&1 && $(BIN)/python -c '$(RIGHT)'; then exit 0; fi; found=""; \
	for candidate in $(PYTHON) python3.11 python3.12 python3; do \
	  if "$$candidate" -c '$(RIGHT)' 2>/dev/null; then found="$$candidate"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "ptta needs Python 3.11 or 3.12; python3 here: $$(python3 --version 2>/dev/null || echo none)." \
	       "Install one, or name it: make setup PYTHON=/path/to/python3.11" >&2; \
	  exit 1; \
	fi; \
	echo "making .venv with $$("$$found" --version)"; \
	if ! "$$found" -m venv --clear .venv; then \
	  echo "could not make a virtual environment (on Debian and Ubuntu: apt install python3-venv)" >&2; \
	  exit 1; \
	fi
	$(BIN)/python -m pip install -q --disable-pip-version-check uv
	$(BIN)/uv pip sync -q --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP)
	$(BIN)/ptta run demo --workspace demo $(if $(VIDEOS),--videos "$(VIDEOS)") $(ARGS)

test: export HF_HUB_OFFLINE := 1
test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadfile $(ARGS)

lock: $(STAMP)
	$(BIN)/uv pip compile -q --universal --generate-hashes --no-header --extra dev pyproject.toml -o requirements.lock

clean:
	rm -rf demo .pytest_cache .mypy_cache .ruff_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
