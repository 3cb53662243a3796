# The recipes that people need; CI calls the same ones.
.PHONY: help tools build demo sandbox test images test-istio lint fmt clean cluster cluster-down

help:
	@echo 'make demo      the whole story in a minute: cluster, developer machine, fallback'
	@echo 'make sandbox   the same stage, for you to play on (Ctrl-C ends it)'
	@echo 'make build     target/release/injector and target/filter.wasm'
	@echo 'make test      every test that needs no cluster'
	@echo 'make test-istio  the tests that need an API server with Istio, on a cluster of their own (root)'
	@echo 'make cluster   a real Kubernetes with Istio on this machine, as root (make cluster-down takes it away)'
	@echo 'make lint      formatting, clippy, licences and bans'

tools:
	@scripts/install-tools wasm
	@scripts/install-tools envoy

build: tools
	INJECTOR_COMMIT=$$(git describe --always --dirty=+dirty --abbrev=12 --exclude='*' 2>/dev/null || echo unknown) \
	cargo build --release --locked -p injector -p wasm-build
	target/release/wasm-build build

demo: build
	scripts/demo

sandbox: build
	target/release/injector sandbox

test: build
	@scripts/install-tools test
	cargo test --locked --no-fail-fast

# What the cluster's pods run: the relay as it is shipped, and the tests' stand-in for apps and callers. Both are linked statically: their images hold nothing else.
images: build
	target/release/wasm-build image --relay
	CARGO_ENCODED_RUSTFLAGS=$$(printf '%s\037%s' -Ctarget-feature=+crt-static -Cstrip=symbols) \
	cargo build --release --locked -p e2e --bin standin --target "$$(uname -m)-unknown-linux-gnu" --target-dir target/static

# The cluster's part of the tests: first those that need little more than its API server, then intercepts under load, last what takes parts of it away.
API_TESTS = --test kubeapi_install --test kubeapi_session --test kubeapi_environment
ISTIO_TESTS = --test istio_admission --test istio_latency --test istio_intercepts --test istio_fallback --test istio_faults

# On a cluster of its own, which it takes down again, also after a failure or Ctrl-C.
test-istio: images
	@tests/cluster/build
	cargo test --locked --no-run -p injector $(API_TESTS)
	cargo test --locked --no-run -p e2e $(ISTIO_TESTS)
	@bash -euc 'trap "tests/cluster/down || exit 1" EXIT; trap "exit 130" INT TERM; \
	  env=$$(tests/cluster/up); eval "$$env"; \
	  cargo test --locked --no-fail-fast -p injector $(API_TESTS); \
	  cargo test --locked --no-fail-fast -p e2e $(ISTIO_TESTS)'

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
