# `make run`, `make demo` and `make check` need Python 3.11 or newer, git and make, and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_COMPILE := $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --custom-compile-command "make lock"

.PHONY: docs help setup run demo test check format lint types imports sync sync-check proto proto-check \
	proto-baseline lock clean \
	test-heavy test-hostile simulate test-lightningd test-ldk test-clients test-go-clients test-deploy test-image conformance \
	bench bench-save bench-inbox bench-outbox outbox-kills \
	bench-against bench-client test-bench-client

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1|/' | column -t -s '|'

DISTRIBUTIONS := client cli server testing
# The environment is updated when the lock or a distribution's pyproject.toml has changed.
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

run: setup ## run the gateway on an embedded node with a peer, to try it out
	@$(BIN)/custommsg-server try

demo: setup ## send, receive, resume and refuse by itself, in under 30 s
	@$(BIN)/python examples/demo.py

test: setup ## run the test suite
	@$(BIN)/python -m pytest -n auto

check: setup lint types proto-check sync-check imports test ## everything that must pass before a commit

format: setup ## rewrite the code in the project's format
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

lint: setup ## check format, lint and protos, and that the contract breaks no clients
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/python tools/lint_protos.py

types: setup ## check types (mypy --strict)
	@$(BIN)/mypy

imports: setup ## check the import rules
	@$(BIN)/lint-imports --no-cache | tail -n 3

test-heavy: setup ## test 20 x kill -9 and bounded memory; some minutes
	@$(BIN)/python -m pytest -n 0 -m heavy tests

KILLS ?= 1000
NODE_KILLS ?= 100
PEERS ?= 50
ENTRIES ?= 100000
outbox-kills: setup ## kill gateway and node while the outbox sends: KILLS=1000 NODE_KILLS=100 PEERS=50 ENTRIES=100000
	@OUTBOX_KILLS=$(KILLS) OUTBOX_NODE_KILLS=$(NODE_KILLS) OUTBOX_PEERS=$(PEERS) OUTBOX_ENTRIES=$(ENTRIES) \
		$(BIN)/python -m pytest -m heavy tests/heavy/test_outbox_kill.py

bench-outbox: setup ## measure enqueueing, and a million messages that wait; ARGS=--entries=100000
	@$(BIN)/python -m benchmarks.outbox $(ARGS)

test-hostile: setup ## test floods, strangers, a full disk, a wrong clock and kill -9 at once; 4 min; ARGS=--quick: 30 s
	@PYTHONPATH=tests $(BIN)/python -m hostile $(ARGS)

simulate: setup ## simulate receiving under faults; ARGS="--seeds 100000 --jobs 2", or "--seed N" to see what happens in one
	@PYTHONPATH=tests $(BIN)/python -m simulation $(ARGS)

test-lightningd: setup ## test the contract over a real lightningd: LIGHTNINGD=/path, or on PATH; no bitcoind
	@$(BIN)/python -m pytest -m lightningd -rs tests

LDK := tests/ldk/node_modules/.package-lock.json
$(LDK): tests/ldk/package-lock.json
	@command -v npm >/dev/null || { echo "test-ldk needs Node.js 18 or newer, with npm."; exit 1; }
	@npm ci --prefix tests/ldk --silent --no-audit --no-fund
	@touch $@

test-ldk: setup $(LDK) ## test the embedded node against LDK; needs Node.js
	@$(BIN)/python -m pytest tests/ldk

# With LIGHTNINGD=/path: on a real node, CLN_GRPC=/path beside it. ARGS="--only 'receive-*' --json" goes on to the program.
ifdef LIGHTNINGD
bench: setup bench-client
	@LIGHTNINGD="$(LIGHTNINGD)" CLN_GRPC="$(CLN_GRPC)" $(BIN)/python -m benchmarks.lightningd $(ARGS)
else
bench: setup ## compare the gateway with the node itself; LIGHTNINGD=/path CLN_GRPC=/path: with cln-grpc
	@$(BIN)/python -m benchmarks $(ARGS)
endif

bench-against: setup ## compare this tree with another: CHECKOUT=/path/to/another/tree
	@test -n "$(CHECKOUT)" || { echo "Name the other tree: make bench-against CHECKOUT=/path/to/another/tree"; exit 1; }
	@$(BIN)/python -m benchmarks.against "$(CHECKOUT)" $(ARGS)

bench-save: setup ## save the last results, with a description of the machine
	@$(BIN)/python -m benchmarks --save

bench-inbox: setup ## measure replay from the store, and delivery from the hook to a subscriber
	@$(BIN)/python -m benchmarks.inbox

# Clients of the dialects, each in its own environment. Only test-clients needs them.
CLIENTS := tests/clients
PYTHON_CLIENTS := pyln_grpc_proto gl_client lnd_grpc_client lndgrpc
NODE_CLIENTS := lightning ln_service lnd_api
CLIENTS_READY := $(PYTHON_CLIENTS:%=$(CLIENTS)/%/.venv/.ready) $(NODE_CLIENTS:%=$(CLIENTS)/%/node_modules/.ready)

$(CLIENTS)/%/.venv/.ready: $(CLIENTS)/%/requirements.txt
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r $<
	@touch $@

$(CLIENTS)/%/node_modules/.ready: $(CLIENTS)/%/package-lock.json
	@cd $(CLIENTS)/$* && npm ci --silent --ignore-scripts --no-audit --no-fund
	@touch $@

$(CLIENTS)/go/bin/.ready: $(CLIENTS)/go/main.go $(CLIENTS)/go/go.mod $(CLIENTS)/go/go.sum
	@command -v go >/dev/null || { echo "test-go-clients needs Go 1.25 or newer: https://go.dev/dl"; exit 1; }
	@cd $(CLIENTS)/go && go build -o bin/ . github.com/lightningnetwork/lnd/cmd/lncli
	@touch $@

test-clients: setup $(CLIENTS_READY) ## test with real clients of the dialects; needs Node.js
	@$(BIN)/python -m pytest $(CLIENTS)

test-go-clients: setup $(CLIENTS)/go/bin/.ready ## test with lncli and lndclient; needs Go, and minutes for the first build
	@$(BIN)/python -m pytest $(CLIENTS)/test_go_clients.py

conformance: setup $(CLIENTS_READY) ## rewrite the table in docs/dialects.md; rows of clients that are not set up stay
	@CONFORMANCE=write $(BIN)/python -m pytest $(CLIENTS)

# Containers, Kubernetes, systemd, compose: need root, and packages of Debian.
DEPLOY := .venv-deploy
$(DEPLOY)/.ready: requirements/deploy.txt
	@$(PYTHON) -m venv --clear $(DEPLOY)
	@$(DEPLOY)/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r $<
	@touch $@

test-deploy: setup $(DEPLOY)/.ready ## test Dockerfile, manifests, systemd, compose, and the pod as real processes; needs root
	@PATH="$(CURDIR)/$(DEPLOY)/bin:$$PATH" CUSTOMMSG_TESTS_NEED_ALL=1 $(BIN)/python -m pytest tests/deploy -rs

test-image: setup $(DEPLOY)/.ready ## test-deploy with the image, built without a registry; also needs buildah, debootstrap, socat
	@PATH="$(CURDIR)/$(DEPLOY)/bin:$$PATH" CUSTOMMSG_TESTS_NEED_ALL=1 PYTHON=$(BIN)/python \
		tools/build_image.sh $(BIN)/python -m pytest tests/deploy -rs

CODEGEN := .venv-codegen
$(CODEGEN)/.ready: requirements/codegen.txt
	@$(PYTHON) -m venv --clear $(CODEGEN)
	@$(CODEGEN)/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/codegen.txt
	@touch $@

DIALECTS := custommsg_server/api/dialects/protos
proto: $(CODEGEN)/.ready ## generate the stubs of the contract and of the dialects
	@PATH="$(CURDIR)/$(CODEGEN)/bin:$$PATH" $(CODEGEN)/bin/python tools/generate.py client server

proto-check: setup $(CODEGEN)/.ready ## check that the generated stubs are up to date
	@rm -rf $(CODEGEN)/out && mkdir $(CODEGEN)/out
	@PATH="$(CURDIR)/$(CODEGEN)/bin:$$PATH" $(CODEGEN)/bin/python tools/generate.py $(CODEGEN)/out $(CODEGEN)/out
	@diff -r -x __pycache__ -x py.typed $(CODEGEN)/out/custommsg/v1 client/custommsg/v1 \
		&& diff -r -x __pycache__ -x '*.proto' $(CODEGEN)/out/$(DIALECTS) server/$(DIALECTS) \
		|| { echo "The generated stubs are out of date. Run: make proto"; exit 1; }

sync: setup $(CODEGEN)/.ready ## generate the blocking client from the asyncio client
	@$(CODEGEN)/bin/python tools/generate_sync.py $(BIN)/ruff client/custommsg

sync-check: setup $(CODEGEN)/.ready ## check that the blocking client is up to date
	@rm -rf $(CODEGEN)/sync && mkdir $(CODEGEN)/sync
	@$(CODEGEN)/bin/python tools/generate_sync.py $(BIN)/ruff $(CODEGEN)/sync
	@for made in $(CODEGEN)/sync/*.py; do diff -u client/custommsg/$${made##*/} $$made || stale=1; done; test -z "$$stale" \
		|| { echo "The blocking client is out of date. Run: make sync"; exit 1; }

# The load for a real node is compiled: a Python client takes as much CPU time as the server. Nothing else needs Go.
COMPILED := benchmarks/compiled
bench-client: $(COMPILED)/bin/bench-client ## build the compiled load of the benchmarks; needs Go 1.25 or newer

$(COMPILED)/bin/bench-client: $(COMPILED)/gen/.ready $(wildcard $(COMPILED)/*.go) $(COMPILED)/go.mod $(COMPILED)/go.sum
	@cd $(COMPILED) && go build -o bin/bench-client .

$(COMPILED)/gen/.ready: proto/custommsg/v1/custommsg.proto server/$(DIALECTS)/cln.proto $(COMPILED)/generate.py \
		$(COMPILED)/go.mod $(CODEGEN)/.ready
	@command -v go >/dev/null || { echo "bench-client needs Go 1.25 or newer: https://go.dev/dl"; exit 1; }
	@$(CODEGEN)/bin/python $(COMPILED)/generate.py "$$(cd $(COMPILED) && go tool -n protoc-gen-go)"
	@touch $@

test-bench-client: bench-client ## test the compiled load; needs Go
	@cd $(COMPILED) && go vet ./... && go test ./...

docs: setup ## rewrite the tables of docs/operations.md
	@$(BIN)/python tools/document.py

proto-baseline: setup ## at a release: save the contract as the baseline of `make lint`
	@$(BIN)/python tools/lint_protos.py --write-baseline

# Our own distributions stay out of the locks: they are installed from their folders.
WITHOUT_OURS := $(addprefix --no-emit-package ,custommsg custommsg-cli custommsg-server custommsg-testing)
lock: setup ## resolve the dependencies again
	@$(UV_COMPILE) $(WITHOUT_OURS) $(DISTRIBUTIONS:=/pyproject.toml) --all-extras --group dev -o requirements/dev.txt
	@$(UV_COMPILE) $(WITHOUT_OURS) server/pyproject.toml --extra uvloop -c requirements/dev.txt -o requirements/server.txt
	@$(UV_COMPILE) requirements/codegen.in -o requirements/codegen.txt
	@$(UV_COMPILE) requirements/build.in -c requirements/dev.txt -o requirements/build.txt
	@$(UV_COMPILE) requirements/deploy.in -o requirements/deploy.txt
	@for client in $(PYTHON_CLIENTS); do \
		$(UV_COMPILE) $(CLIENTS)/$$client/requirements.in -o $(CLIENTS)/$$client/requirements.txt; done

clean: ## remove everything that make created
	@rm -rf $(VENV) $(CODEGEN) $(DEPLOY) $(COMPILED)/bin $(COMPILED)/gen $(CLIENTS)/go/bin build
