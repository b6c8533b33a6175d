# `make run`, `make demo`, `make test`: nothing but Python 3.11+, git and make is needed.
# `make check`: what a contributor runs before a commit.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_COMPILE := $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --custom-compile-command "make lock"

.PHONY: docs help setup run demo test check format lint types imports sync sync-check proto proto-check \
	proto-breaking lock clean \
	test-heavy test-hostile test-lightningd test-ldk test-clients test-deploy test-image conformance bench bench-save bench-inbox \
	bench-against bench-client test-bench-client

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1|/' | column -t -s '|'

DISTRIBUTIONS := client cli server testing
# One stamp: what is installed is brought up to date when the lock or a distribution's description has changed.
$(VENV)/.ready: requirements/dev.txt $(DISTRIBUTIONS:=/pyproject.toml)
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else \
		f"custommsg needs Python 3.11 or newer; this is {v[0]}.{v[1]}. Try: make PYTHON=python3.12")'
	@echo "Setting up $(VENV) (once; about a minute) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation \
		$(addprefix -e ,$(DISTRIBUTIONS))
	@touch $@

setup: $(VENV)/.ready ## make the environment in .venv

run: setup ## the gateway on an embedded node with a peer, to try it out
	@$(BIN)/custommsg-server try

demo: setup ## the whole story by itself, in under 30 s
	@$(BIN)/python examples/demo.py

test: setup ## the whole test suite
	@$(BIN)/python -m pytest -n auto

check: setup lint types proto-check sync-check imports test ## everything that must hold before a commit

format: setup ## rewrite the code in the project's format
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

lint: setup ## format and lint, changing nothing
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/python tools/lint_protos.py

types: setup ## mypy --strict
	@$(BIN)/mypy

imports: setup ## the import rules
	@$(BIN)/lint-imports --no-cache | tail -n 3

test-heavy: setup ## 20 x kill -9, bounded memory; some minutes
	@$(BIN)/python -m pytest -m heavy tests

test-hostile: setup ## floods, strangers, a full disk, a wrong clock, kill -9, all at once; 4 min; ARGS=--quick: 30 s
	@PYTHONPATH=tests $(BIN)/python -m hostile $(ARGS)

test-lightningd: setup ## the contract over a real lightningd: LIGHTNINGD=/path, or on PATH; no bitcoind
	@$(BIN)/python -m pytest -m lightningd -rs tests

LDK := tests/ldk/node_modules/.package-lock.json
$(LDK): tests/ldk/package-lock.json
	@command -v npm >/dev/null || { echo "test-ldk needs Node.js 18 or newer, with npm."; exit 1; }
	@npm ci --prefix tests/ldk --silent --no-audit --no-fund
	@touch $@

test-ldk: setup $(LDK) ## the embedded node and LDK talk to each other; needs Node.js
	@$(BIN)/python -m pytest tests/ldk

# With LIGHTNINGD=/path: on a real node, CLN_GRPC=/path beside it. ARGS="--only 'receive-*' --json" goes on to the program.
ifdef LIGHTNINGD
bench: setup bench-client
	@LIGHTNINGD="$(LIGHTNINGD)" CLN_GRPC="$(CLN_GRPC)" $(BIN)/python -m benchmarks.lightningd $(ARGS)
else
bench: setup ## the gateway side by side with the node itself, as ratios; LIGHTNINGD=/path CLN_GRPC=/path: with cln-grpc
	@$(BIN)/python -m benchmarks $(ARGS)
endif

bench-against: setup ## this tree beside another one, as ratios: CHECKOUT=/path/to/another/tree
	@test -n "$(CHECKOUT)" || { echo "Say which: make bench-against CHECKOUT=/path/to/another/tree"; exit 1; }
	@$(BIN)/python -m benchmarks.against "$(CHECKOUT)" $(ARGS)

bench-save: setup ## keep the last results, with a description of the machine
	@$(BIN)/python -m benchmarks --save

bench-inbox: setup ## replay from the store, and live from the hook to a subscriber
	@$(BIN)/python -m benchmarks.inbox

# Clients of other contracts, each in an environment of its own. Only test-clients needs them.
CLIENTS := tests/clients
CLIENTS_READY := $(addprefix $(CLIENTS)/,pyln_grpc_proto/.venv/.ready gl_client/.venv/.ready \
	lightning/node_modules/.ready)

$(CLIENTS)/%/.venv/.ready: $(CLIENTS)/%/requirements.txt
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r $<
	@touch $@

$(CLIENTS)/lightning/node_modules/.ready: $(CLIENTS)/lightning/package-lock.json
	@cd $(CLIENTS)/lightning && npm ci --silent --ignore-scripts --no-audit --no-fund
	@touch $@

test-clients: setup $(CLIENTS_READY) ## real clients of the dialects; needs Node.js
	@$(BIN)/python -m pytest $(CLIENTS)

conformance: setup $(CLIENTS_READY) ## write the table in docs/dialects.md anew
	@CONFORMANCE=write $(BIN)/python -m pytest $(CLIENTS)

# Containers, Kubernetes, systemd, compose: as root, with Debian's packages.
DEPLOY := .venv-deploy
$(DEPLOY)/.ready: requirements/deploy.txt
	@$(PYTHON) -m venv --clear $(DEPLOY)
	@$(DEPLOY)/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r $<
	@touch $@

test-deploy: setup $(DEPLOY)/.ready ## Dockerfile, manifests, systemd, compose; the pod as real processes; needs root
	@PATH="$(CURDIR)/$(DEPLOY)/bin:$$PATH" CUSTOMMSG_TESTS_NEED_ALL=1 $(BIN)/python -m pytest tests/deploy -rs

test-image: setup $(DEPLOY)/.ready ## the same with the image, built without a registry; needs buildah, debootstrap, socat too
	@PATH="$(CURDIR)/$(DEPLOY)/bin:$$PATH" CUSTOMMSG_TESTS_NEED_ALL=1 PYTHON=$(BIN)/python \
		tools/build_image.sh $(BIN)/python -m pytest tests/deploy -rs

CODEGEN := .venv-codegen
$(CODEGEN)/.ready: requirements/codegen.txt
	@$(PYTHON) -m venv --clear $(CODEGEN)
	@$(CODEGEN)/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/codegen.txt
	@touch $@

DIALECTS := custommsg_server/api/dialects/protos
proto: $(CODEGEN)/.ready ## generate the stubs: our contract's from proto/, the dialects' beside their protos
	@PATH="$(CURDIR)/$(CODEGEN)/bin:$$PATH" $(CODEGEN)/bin/python tools/generate.py client server

proto-check: setup $(CODEGEN)/.ready ## is the generated code up to date?
	@rm -rf $(CODEGEN)/out && mkdir $(CODEGEN)/out
	@PATH="$(CURDIR)/$(CODEGEN)/bin:$$PATH" $(CODEGEN)/bin/python tools/generate.py $(CODEGEN)/out $(CODEGEN)/out
	@diff -r -x __pycache__ -x py.typed $(CODEGEN)/out/custommsg/v1 client/custommsg/v1 \
		&& diff -r -x __pycache__ -x '*.proto' $(CODEGEN)/out/$(DIALECTS) server/$(DIALECTS) \
		|| { echo "The stubs are not what the protos say. Run: make proto"; exit 1; }

sync: setup $(CODEGEN)/.ready ## generate the blocking client from the asyncio client
	@$(CODEGEN)/bin/python tools/generate_sync.py $(BIN)/ruff client/custommsg

sync-check: setup $(CODEGEN)/.ready ## is the blocking client up to date?
	@rm -rf $(CODEGEN)/sync && mkdir $(CODEGEN)/sync
	@$(CODEGEN)/bin/python tools/generate_sync.py $(BIN)/ruff $(CODEGEN)/sync
	@for made in $(CODEGEN)/sync/*.py; do diff -u client/custommsg/$${made##*/} $$made || stale=1; done; test -z "$$stale" \
		|| { echo "The blocking client is not what the asyncio client says. Run: make sync"; exit 1; }

# The load for a real node: Python's client takes as much CPU time as what it measures. Nothing else needs Go.
COMPILED := benchmarks/compiled
bench-client: $(COMPILED)/bin/bench-client ## the compiled load of the benchmarks; needs Go 1.25 or newer

$(COMPILED)/bin/bench-client: $(COMPILED)/gen/.ready $(wildcard $(COMPILED)/*.go) $(COMPILED)/go.mod $(COMPILED)/go.sum
	@cd $(COMPILED) && go build -o bin/bench-client .

$(COMPILED)/gen/.ready: proto/custommsg/v1/custommsg.proto server/$(DIALECTS)/cln.proto $(COMPILED)/generate.py \
		$(COMPILED)/go.mod $(CODEGEN)/.ready
	@command -v go >/dev/null || { echo "bench-client needs Go 1.25 or newer: https://go.dev/dl"; exit 1; }
	@$(CODEGEN)/bin/python $(COMPILED)/generate.py "$$(cd $(COMPILED) && go tool -n protoc-gen-go)"
	@touch $@

test-bench-client: bench-client ## the compiled load's own tests
	@cd $(COMPILED) && go vet ./... && go test ./...

docs: setup ## write the tables of docs/operations.md anew
	@$(BIN)/python tools/document.py

AGAINST ?= HEAD
proto-breaking: setup ## does the contract still serve the clients of an earlier one? AGAINST=v0.1.0
	@rm -rf build/before && mkdir -p build/before && git archive $(AGAINST) proto | tar -x -C build/before
	@$(BIN)/python tools/lint_protos.py --against build/before/proto

# Our own distributions stay out of the locks: they are installed from their folders.
WITHOUT_OURS := $(addprefix --no-emit-package ,custommsg custommsg-cli custommsg-server custommsg-testing)
lock: setup ## resolve the dependencies anew
	@$(UV_COMPILE) $(WITHOUT_OURS) $(DISTRIBUTIONS:=/pyproject.toml) --all-extras --group dev -o requirements/dev.txt
	@$(UV_COMPILE) $(WITHOUT_OURS) server/pyproject.toml --extra uvloop -c requirements/dev.txt -o requirements/server.txt
	@$(UV_COMPILE) requirements/codegen.in -o requirements/codegen.txt
	@$(UV_COMPILE) requirements/build.in -c requirements/dev.txt -o requirements/build.txt
	@$(UV_COMPILE) requirements/deploy.in -o requirements/deploy.txt
	@$(UV_COMPILE) $(CLIENTS)/pyln_grpc_proto/requirements.in -o $(CLIENTS)/pyln_grpc_proto/requirements.txt
	@$(UV_COMPILE) $(CLIENTS)/gl_client/requirements.in -o $(CLIENTS)/gl_client/requirements.txt

clean: ## remove everything that make has made
	@rm -rf $(VENV) $(CODEGEN) $(DEPLOY) $(COMPILED)/bin $(COMPILED)/gen build
