# Everything a person types here; plain `make` prints the verbs. What takes more than three lines is in tools/.

export TARGET ?= x86_64-unknown-linux-musl
export PRODUCT := target/$(TARGET)/release/cricket
# Offline once `make vendor` has been here.
export FLAGS := --locked --target $(TARGET)$(if $(wildcard vendor/config.toml), --offline --config vendor/config.toml)
export CARGO_TARGET_DIR := $(CURDIR)/target
export PATH := $(CURDIR)/target/tools/bin:$(PATH):$(HOME)/.cargo/bin:/usr/local/go/bin:/usr/local/sbin:/usr/sbin:/sbin

.PHONY: help build debug test conformance kubelet-test cluster-test kubelet-bench vm-test torture bench demo lint vendor clean
help:
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile

build: ## the product: a static musl binary, proved static; TARGET=aarch64-unknown-linux-musl for another machine
	tools/setup.sh build
	cargo zigbuild --release $(FLAGS)
	tools/static.sh $(PRODUCT)

debug: ## the same with line numbers in backtraces, in seconds after an edit
	tools/setup.sh build
	cargo zigbuild $(FLAGS)

test: ## every ring of tests, on a containerd of their own; as root, installs what is missing
	tools/setup.sh node
	tools/test.sh

conformance: ## crictl and critest on a cricket of its own; ONLY=crictl, CONTAINERD=1.6 or 2, SHIM=runc-v2, PEER=1, FOCUS=regexp; as root
	tools/setup.sh conformance && $(MAKE) build
	tests/conformance/wire.sh
	tests/conformance/run.sh

kubelet-test: ## a real kubelet before a cricket of its own; CONTAINERD=1.6 or 2, PEER=1, ONLY=regexp of scenarios, SOAK=30m; as root
	tools/setup.sh conformance && $(MAKE) build
	tests/kubelet/run.sh

cluster-test: ## what kubectl does, through an API server, to that kubelet; CONTAINERD=1.6 or 2, PEER=1; as root
	tools/setup.sh cluster && $(MAKE) build
	CLUSTER=1 tests/kubelet/run.sh

kubelet-bench: ## twenty pods under a kubelet, cricket beside containerd's own CRI plugin; CONTAINERD=1.6 or 2, ROUNDS=n; as root
	tools/setup.sh conformance && $(MAKE) build
	tests/kubelet/bench.sh

vm-test: ## a whole node in virtual machines: cgroup v2, systemd, AppArmor; ONLY=selftest,small for a part, TARGET=aarch64-unknown-linux-musl for arm64; as root
	tools/setup.sh vm && $(MAKE) build
	tests/vm/run.sh

torture: ## clients that never rest and a cricket that is killed under them; ROUNDS=n, SEED=n, EVERY=n, CONTAINERD=1.6 or 2; as root
	tools/setup.sh node
	tools/torture.sh

demo: ## a pod from nothing: a containerd and a cricket of its own, `cricket selftest`, nothing left; as root, installs too
	tools/setup.sh node && $(MAKE) build
	tools/demo.sh

bench: ## cricket beside containerd's own CRI plugin, a table in target/bench; as root; ONLY=pods,lists for a part, ONLY=spec for runtime specs
	tools/setup.sh node
	tools/bench.sh

lint: ## formatting, clippy, licences and advisories
	tools/setup.sh lint
	cargo fmt --all --check && cargo-zigbuild clippy --release $(FLAGS) --workspace --all-targets -- -D warnings
	cargo deny check

vendor: ## the sources of all dependencies into vendor/crates, for builds without network
	mkdir -p target && cargo vendor --locked vendor/crates >target/vendored.toml
	mv target/vendored.toml vendor/config.toml

clean: ## what was built, and the tools that the set-up put into target/
	cargo clean
