# The recipes that people need; CI calls the same ones.
.PHONY: help tools build demo sandbox test lint fmt clean cluster cluster-down

help:
	@echo 'make demo      the whole story in a minute: cluster, developer machine, fallback'
	@echo 'make sandbox   the same stage, for you to play on (Ctrl-C ends it)'
	@echo 'make build     target/release/injector and target/filter.wasm'
	@echo 'make test      every test that needs no cluster'
	@echo 'make cluster   a real Kubernetes with Istio on this machine, as root (make cluster-down takes it away)'
	@echo 'make lint      formatting, clippy, licences and bans'

tools:
	@scripts/install-tools wasm
	@scripts/install-tools envoy

build: tools
	cargo build --release --locked -p injector -p wasm-build
	target/release/wasm-build build

demo: build
	scripts/demo

sandbox: build
	target/release/injector sandbox

test: build
	@scripts/install-tools test
	cargo test --locked --no-fail-fast

cluster: tools
	@tests/cluster/build
	@tests/cluster/up

cluster-down:
	@tests/cluster/down

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	"$$(scripts/install-tools deny)" check bans licenses sources

fmt:
	cargo fmt --all

clean:
	cargo clean
