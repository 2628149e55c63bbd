# Every door of the house: each target works by itself on a machine that has Python 3.11 with venv, Rust 1.95, Go, a C compiler, make and git.
#
# Holds the recipes that people, `.ci/run` and pre-commit share, so that green here and green there mean the same. Promises: whatever a
# target needs is made first, a second run of something that stands costs nothing, and what is made lies in .venv/, target/, .cache/ and
# the tools' cache (tests/tools/build.sh). Does not know how a test or a tool works inside.
#
#   make demo SOURCE=/some/dir     the demo with your own data
#   make demo CLUSTER=1            the demo on the real kube-apiserver and etcd
#   make test ARGS="-k restore"    more arguments for pytest
#   make build PYTHON=python3.12   another interpreter for a new .venv
#   make bench ONLY=first-real     measure a row (ONLY=all: each that is not yet measured), SCALE=0.1 at a tenth of its size

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

PYTHON ?= python3
ARGS ?=
SOURCE ?=
CLUSTER ?=
ONLY ?=
RENEW ?=
SCALE ?= 1
DEBIAN ?= pinned
APT_SOURCES ?=
SEED ?=
ROW ?=
# Moments at which an agent is killed. Each costs up to its lease, 15 s: six took 64 s.
KILLS ?= 20
BIN := .venv/bin
# Only these Python files are ours to judge; a folder joins the list when it comes to exist.
PYTHON_ROOMS := $(wildcard python tests scripts benches daemonset)
RUST_SOURCES := Cargo.toml Cargo.lock $(shell find rust -type f \( -name '*.rs' -o -name Cargo.toml \) 2>/dev/null)
# PyO3's build asks an interpreter what it is; naming it keeps every build of one tree asking the same one, and so from rebuilding.
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

.PHONY: help machine venv build tools demo dashboard test test-rust test-unit test-engine test-scale test-cluster test-image test-node sim sim-long bench bench-quick bench-micro bench-tools gate \
	lint lint-rust lint-python lint-types lint-seam lint-house format crds manifests image image-twice image-lock ci lock clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- what the other targets stand on ---

# Who lacks something is told all of it before minutes of fetching; once there is an extension, nothing lacked.
machine:
	@PYTHON="$(PYTHON)" scripts/machine.sh python rust cc

venv: .venv/.stamp-requirements ## .venv/ with every pinned Python package

# uv installs in seconds what plain pip needs many minutes to resolve; it comes with its hash out of the same lock file as the rest.
# An environment without pip is half of one, left by an interruption or by a Python that could not make it.
.venv/.stamp-requirements: requirements.txt
	@$(BIN)/python -c 'import pip' 2>/dev/null || { PYTHON="$(PYTHON)" scripts/machine.sh python && echo "making .venv" && $(PYTHON) -m venv --clear .venv; }
	@echo "installing the pinned Python packages into .venv"
	@lock=$$(mktemp) && trap 'rm -f "$$lock"' EXIT && awk '/^[a-z]/ {ours = /^uv==/} ours' requirements.txt >"$$lock" && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --require-hashes --no-deps -r "$$lock"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.txt
	@touch $@

build: .venv/.stamp-extension ## The native extension (release) and the commands, in .venv/

# Python sources stay editable in place; only Rust and the package's metadata make the extension anew.
.venv/.stamp-extension: $(if $(wildcard .venv/.stamp-extension),,machine) .venv/.stamp-requirements pyproject.toml $(RUST_SOURCES)
	@echo "compiling the extension: the first time it takes minutes"
	@PATH="$(CURDIR)/$(BIN):$$PATH" VIRTUAL_ENV="$(CURDIR)/.venv" $(BIN)/maturin develop --release --locked --uv
	@test -x $(BIN)/longshore -a -x $(BIN)/kubectl-longshore
	@touch $@

tools: ## kube-apiserver, etcd, an S3 server, restic and Velero, built from source and cached
	tests/tools/build.sh

# Where a tool cannot be built, its tests are skipped with the reason; with CI=true that is a failure instead.
.PHONY: tools-for-tests
tools-for-tests:
	tests/tools/build.sh || [ "$${CI:-}" != true ]

# --- the main job ---

demo: build ## The whole way of a pod's volume, out and back, before your eyes
	$(if $(CLUSTER),tests/tools/build.sh)
	SOURCE="$(SOURCE)" CLUSTER="$(CLUSTER)" $(BIN)/python -m scripts.demo

# Prometheus is Debian's; what is scraped is the work of a real agent and server: scripts/dashboard.
dashboard: build ## Draw docs/pictures/dashboard.svg: the dashboard's expressions, asked of a real Prometheus; fails when a panel is empty
	tests/tools/build.sh prometheus
	$(BIN)/python -m scripts.dashboard docs/pictures/dashboard.svg

# --- tests ---

TEST_STEPS := test-rust test-unit test-engine test-cluster test-image
LINT_STEPS := lint-rust lint-python lint-types lint-seam lint-house

test: ## All tests that need no cluster node
	@$(PYTHON) scripts/steps.py venv build tools-for-tests $(TEST_STEPS)

# The seam is left out: a test program of an extension module would have to link libpython. tests/engine goes through it instead.
test-rust:
	cargo test --locked --workspace --exclude longshore-python -- --quiet

test-unit: build
	$(BIN)/python -m pytest tests/unit $(wildcard tests/golden) --ignore=tests/unit/house -n auto $(ARGS)

test-engine: build
	$(if $(wildcard tests/engine),$(BIN)/python -m pytest tests/engine -n auto $(ARGS),@echo "tests/engine does not exist yet")

test-scale: build ## 200,000 files and 4 GiB out and back, by the engine and by rescue.py: minutes, 20 GB of disk
	LONGSHORE_TEST_SCALE=1 $(BIN)/python -m pytest tests/engine/test_scale.py --durations=0 $(ARGS)

test-cluster: build
	$(if $(wildcard tests/cluster/test_*.py),$(BIN)/python -m pytest tests/cluster -n 2 --dist loadfile $(ARGS),@echo "tests/cluster holds no tests yet")

# The extension comes from `build`, unlike that of `make image`, which is compiled once more with the machine's paths taken out.
test-image: build
	$(BIN)/python -m pytest tests/image $(ARGS)

# A whole node in a room of its own: tests/node/room.py. The images are made outside of it, for in it there is no network.
test-node: build ## A real kubelet runs our image in pods and its volumes go out and back: as root, minutes
	tests/tools/build.sh etcd kube-apiserver kubectl versitygw helm velero-1.9.3 && tests/tools/build.sh --set node || [ "$${CI:-}" != true ]
	$(BIN)/python -m tests.node.images target/node || [ "$${CI:-}" != true ]
	LONGSHORE_NODE_KILLS=$(KILLS) $(BIN)/python -m tests.node.room $(BIN)/python -m pytest tests/node $(ARGS)

# The whole engine under a seed, on a stage where time, disk and store are made up and break: docs/reliability.md.
sim: ## Break what the engine stands on, in ten thousands of ways: minutes; SEED=schedule:28 replays one, SEED=schedule:0..99 runs many, ROW=age runs one row
	cargo build --release --locked --quiet --package longshore-sim
	target/release/sim $(if $(SEED),--seed $(SEED)) $(if $(ROW),--row $(ROW))

sim-long: ## The same in millions of ways: hours
	cargo build --release --locked --quiet --package longshore-sim
	target/release/sim --long $(if $(ROW),--row $(ROW))

# --- measurements ---

# What measurements run beside us, and the programs that make their data and know the physical limit.
bench-tools: build
	tests/tools/build.sh restic kopia $(if $(QUICK),,rustic borg versitygw toxiproxy)
	cargo build --release --locked --quiet --package longshore-micro --bins

bench: $(if $(ONLY),bench-tools,venv) ## Write benches/volume/results.md from what was measured; ONLY=row measures it first
	$(BIN)/python -m benches.volume $(if $(ONLY),--only "$(ONLY)" --scale $(SCALE)) $(ARGS)

bench-quick: QUICK := 1
bench-quick: bench-tools ## A table in minutes: small sizes, restic, and kopia in one row; keeps nothing
	$(BIN)/python -m benches.volume.quick $(ARGS)

# Counts, so it stands a busy machine; RENEW=1 writes the baseline anew.
gate: venv ## Instructions of every kernel and of the whole engine, held against the last renewal
	command -v valgrind >/dev/null || tests/tools/build.sh valgrind || true
	cargo build --release --locked --quiet --package longshore-micro --bin gate
	$(BIN)/python -m benches.gate $(if $(RENEW),--renew) $(ARGS)

bench-micro: ## Time each kernel by criterion: ARGS=cut for some of them
	cargo bench --locked --package longshore-micro --bench kernels -- $(ARGS)

# --- lint ---

lint: ## Formatting, clippy, ruff, mypy, stubtest, import arrows, the house's own rules, licences
	@$(PYTHON) scripts/steps.py venv build $(LINT_STEPS)

lint-rust: venv
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --quiet -- -D warnings

lint-python: venv
	$(BIN)/ruff check $(PYTHON_ROOMS)
	$(BIN)/ruff format --check $(PYTHON_ROOMS)

lint-types: venv
	$(BIN)/mypy
	PYTHONPATH=python $(BIN)/lint-imports --no-cache --no-logo

# A stub that disagrees with the extension is a bug that mypy cannot see.
lint-seam: build
	$(if $(wildcard python/longshore/_native.pyi),MYPYPATH=python $(BIN)/stubtest --mypy-config-file pyproject.toml longshore._native,@echo "python/longshore/_native.pyi does not exist yet")

lint-house: venv
	$(BIN)/python -m pytest tests/unit/house --quiet

# --- changing files ---

format: venv ## Rewrite sources in the house's format
	cargo fmt --all
	$(BIN)/ruff check --fix --quiet $(PYTHON_ROOMS) || true
	$(BIN)/ruff format $(PYTHON_ROOMS)

crds: build ## Write daemonset/crds/ from the models in python/longshore/api
	$(BIN)/python -m longshore.api.crdgen --output daemonset/crds

image: venv ## The container image, without a container daemon: target/image/*.oci.tar (DEBIAN=current, APT_SOURCES=file: docs/guide/image.md)
	$(BIN)/python -m scripts.image build $(if $(APT_SOURCES),--apt-sources "$(APT_SOURCES)") $(if $(filter current,$(DEBIAN)),--current)

# Each from a fresh clone, with a target folder and a cargo home of its own: some ten minutes, for whoever makes a release.
image-twice: venv ## Make the image of the last commit twice, in two clones that share nothing compiled, and compare the digests
	$(BIN)/python -m scripts.image twice $(if $(APT_SOURCES),--apt-sources "$(APT_SOURCES)") $(if $(filter current,$(DEBIAN)),--current)

image-lock: venv ## Pin the Debian packages of the image as the mirror has them today
	$(BIN)/python -m scripts.image lock $(if $(APT_SOURCES),--apt-sources "$(APT_SOURCES)")

manifests: build ## Write daemonset/chart, base and kustomization.yaml from python/longshore/install
	$(BIN)/python -m longshore.install.write --output daemonset

lock: venv ## Resolve requirements.in and Cargo.toml anew into their lock files
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links \
		--upgrade --output-file requirements.txt requirements.in
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links \
		--constraints requirements.txt --output-file requirements-runtime.txt requirements-runtime.in
	cargo update --quiet

ci: ## What a merge needs: lint, test, test-node, sim and gate, each step timed
	@$(PYTHON) scripts/steps.py venv build $(LINT_STEPS) tools-for-tests $(TEST_STEPS) test-node sim gate

clean: ## Take away what make made here (not the tools' cache)
	rm -rf .venv target .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache python/longshore/_native*.so
	find python tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
