# Recipes for developers; CI calls the same ones.
.PHONY: help tools build demo sandbox test fuzz images programs test-istio test-peers soak bench lint fmt clean cluster cluster-down

help:
	@echo 'make demo      the whole story in a minute: cluster, developer machine, fallback'
	@echo 'make sandbox   the same stage, for you to play on (Ctrl-C ends it)'
	@echo 'make build     target/release/injector and target/filter.wasm'
	@echo 'make test      every test that needs no cluster'
	@echo 'make fuzz      random input at length: configurations, decisions, the caller'"'"'s certificate header, both ends of the tunnel'
	@echo 'make test-istio  the tests that need an API server with Istio, on a cluster of their own (root)'
	@echo 'make test-peers  test suites of grpc-go, Autobahn and h2spec, unmatched and matched (Go)'
	@echo 'make soak      an hour of ordinary use, each response judged (DURATION=2m, MESH=1 on the cluster that is up)'
	@echo 'make bench     the tunnel beside other forwarders, in ratios (ten minutes)'
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

# Random input: the numbers of configurations (with ten decisions each), of headers, and of connections to each of three ports. `make test` runs a short form of all.
FUZZ_ROUNDS = 1000000
FUZZ_HOPS = 100000000
FUZZ_STREAMS = 100000
fuzz:
	FUZZ_ROUNDS=$(FUZZ_ROUNDS) cargo test --release --locked -p intercept-core --test random -- --nocapture
	FUZZ_HOPS=$(FUZZ_HOPS) cargo test --release --locked -p intercept-tunnel --lib own_hop_is_cut_behind_random_text
	@# Not the release: here an overflow panics.
	FUZZ_STREAMS=$(FUZZ_STREAMS) cargo test --locked --test tunnel_fuzz -- --nocapture

# Images of the cluster's pods: the relay as shipped, and the test app. Both are static programs, built in one go: their images contain nothing else.
images: build
	target/release/wasm-build image --relay --also-build e2e/standin

# Programs of the cluster itself. They share nothing with the rest, so they are compiled in parallel.
programs:
	@tests/cluster/build debian pause kubernetes istio dns

# Without `-p`: for a subset of packages, cargo would compile the same dependencies again with other features.
API_TESTS = --test kubeapi
ISTIO_TESTS = --test istio_install --test istio_latency --test istio_intercepts --test istio_commands --test istio_resource --test istio_fallback --test istio_leaving --test istio_controller --test istio_outbound --test istio_faults

# Uses its own cluster, which it also takes down after a failure or Ctrl-C. First the tests that need no injector in it, then those that need little more than its API
# server, then those that wait for pods: these wait more than they compute, so more of them run at once than there are cores. Last the tests that take parts of the cluster
# down. (One call of cargo would run them in alphabetical order.)
test-istio: tools
	@tests/cluster/build tools
	@$(MAKE) --no-print-directory -j2 images programs
	@tests/cluster/build images
	cargo test --locked --no-run $(API_TESTS) $(ISTIO_TESTS)
	@tests/cluster/selftest-down short
	@bash -euc 'trap "tests/cluster/down || exit 1" EXIT; trap "exit 130" INT TERM; \
	  env=$$(tests/cluster/up); eval "$$env"; failed=0; \
	  run() { cargo test --locked --no-fail-fast "$$@" || failed=1; }; \
	  run --test istio_install; RUST_TEST_THREADS=6 run $(API_TESTS); run --test istio_latency; \
	  RUST_TEST_THREADS=4 run --test istio_intercepts --test istio_commands --test istio_resource --test istio_fallback; \
	  RUST_TEST_THREADS=2 run --test istio_leaving; RUST_TEST_THREADS=4 run --test istio_controller --test istio_outbound; run --test istio_faults; \
	  exit $$failed'

# Third-party test suites, built once. Their timeouts are not made for two shared cores.
test-peers: build
	@scripts/install-tools peers
	@tests/peers/build
	cargo test --locked --no-fail-fast --test peers -- --test-threads=2

# PROFILE=dev saves the compile time, and uses a third of a core while it runs.
DURATION = 1h
PROFILE = release
soak: $(if $(MESH),images,build)
	cargo run --locked --profile $(PROFILE) --bin soak -- --duration $(DURATION) $(if $(MESH),--mesh) $(SOAK)

# BENCH: --rounds 9 --slice 1s --bulk 256, and --old PROGRAM for another build of `injector` in the same run.
bench: build
	@scripts/install-tools bench
	cargo run --locked --release --bin bench -- $(BENCH)

cluster: tools
	@tests/cluster/build
	@tests/cluster/up

cluster-down:
	@tests/cluster/down

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@# All targets are not all: those that need a cluster are run, and looked at, by name only.
	cargo clippy --workspace --test '*' --locked -- -D warnings
	"$$(scripts/install-tools deny)" check bans licenses sources

fmt:
	cargo fmt --all

clean:
	cargo clean
