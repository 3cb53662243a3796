# The recipes that people need; CI calls the same ones.
.PHONY: help tools build demo sandbox test test-istio lint fmt clean cluster cluster-down

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

# On a cluster of its own, which it takes down again, also after a failure or Ctrl-C.
test-istio: build
	@tests/cluster/build
	@bash -euc 'trap "tests/cluster/down || exit 1" EXIT; trap "exit 130" INT TERM; \
	  env=$$(tests/cluster/up); eval "$$env"; \
	  cargo test --locked -p injector --test kubeapi_install --test kubeapi_session --test kubeapi_environment; \
	  cargo test --locked -p e2e --test istio_admission'

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
