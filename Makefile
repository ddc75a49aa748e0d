# What people type. Each target is one command or one script; CARGO_TARGET_DIR is respected throughout.

TARGET := $(or $(CARGO_TARGET_DIR),target)
HOST   := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
# Of a cloud's parts, which are all if none is named, one is our own service.
CLOUD_NEEDS := $(if $(or $(if $(PARTS),,all),$(filter lambda,$(PARTS))),build agent)

.DEFAULT_GOAL := help
.PHONY: help setup build agent demo test bench cloud-up cloud-down cloud-status test-cloud test-devstack fmt clippy clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is needed beyond Rust (Debian, Ubuntu; root or sudo)
	@scripts/setup.sh

build: setup ## Build all programs, for development
	cargo build --locked --workspace --bins

agent: setup ## Build the agent as one static program: target/agent/lambda-agent
	RUSTFLAGS="$${RUSTFLAGS:-} -C target-feature=+crt-static" \
		cargo build --locked --profile agent --package lambda-agent --bin lambda-agent --target $(HOST)
	install -D -m 0755 $(TARGET)/$(HOST)/agent/lambda-agent $(TARGET)/agent/lambda-agent

demo: setup ## Start the service, run real events through it, show what became of them
	@scripts/demo.sh

test: setup ## Run every check
	@scripts/test.sh

bench: setup agent ## Measure the service beside its peers (root and Docker for all of it); ONLY="warm-call drain" for some
	cargo build --locked --release --workspace --bins
	@scripts/bench.sh $(ONLY)

cloud-up: setup $(CLOUD_NEEDS) ## Start a cloud in a box: real OpenStack services on this machine (root); PARTS="zaqar zun" for some
	@tests/cloud/cloud.sh up $(PARTS)

cloud-down: ## End it; nothing is left
	@tests/cloud/cloud.sh down

cloud-status: ## Show what of it runs
	@tests/cloud/cloud.sh status

test-cloud: setup ## Run the tests that need it, on the one that runs or on one that is started for them
	@scripts/test.sh build agent cloud

test-devstack: build ## Run the DevStack plugin with the helpers of the checkout DEVSTACK_DIR, on the cloud that runs
	@tests/devstack/run.sh real

fmt: ## Format the code
	cargo fmt --all

clippy: ## Lint the code
	cargo clippy --locked --workspace --all-targets -- -D warnings

clean: ## Remove what was built, and the MongoDB and the cloud that were left running
	@tests/cloud/mongo.sh down
	@tests/cloud/cloud.sh down
	cargo clean
