# The recipes that people need; CI calls the same ones.
.PHONY: help tools build demo sandbox test fuzz images programs test-istio test-peers soak lint fmt clean cluster cluster-down

help:
	@echo 'make demo      the whole story in a minute: cluster, developer machine, fallback'
	@echo 'make sandbox   the same stage, for you to play on (Ctrl-C ends it)'
	@echo 'make build     target/release/injector and target/filter.wasm'
	@echo 'make test      every test that needs no cluster'
	@echo 'make fuzz      random input at length: configurations, decisions, the caller'"'"'s certificate header, both ends of the tunnel'
	@echo 'make test-istio  the tests that need an API server with Istio, on a cluster of their own (root)'
	@echo 'make test-peers  test suites of grpc-go, Autobahn and h2spec, unmatched and matched (Go)'
	@echo 'make soak      an hour of ordinary use, each response judged (DURATION=2m, MESH=1 on the cluster that is up)'
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

# Random input: so many configurations with ten decisions each, so many headers, so many connections to each of three places. `make test` runs a short form of all.
FUZZ_ROUNDS = 1000000
FUZZ_HOPS = 100000000
FUZZ_STREAMS = 100000
fuzz:
	FUZZ_ROUNDS=$(FUZZ_ROUNDS) cargo test --release --locked -p intercept-core --test random -- --nocapture
	FUZZ_HOPS=$(FUZZ_HOPS) cargo test --release --locked -p intercept-tunnel --lib own_hop_is_cut_behind_random_text
	@# Not the release: here an overflow panics.
	FUZZ_STREAMS=$(FUZZ_STREAMS) cargo test --locked --test tunnel_fuzz -- --nocapture

# What the cluster's pods run: the relay as it is shipped, and the tests' stand-in for apps and callers. Both are static programs, built in one go: their images hold nothing else.
images: build
	target/release/wasm-build image --relay --also-build e2e/standin

# What the cluster itself runs. Shares nothing with the rest, so it is compiled beside it.
programs:
	@tests/cluster/build debian pause kubernetes istio dns

# Without `-p`: with other packages chosen, cargo would compile the same dependencies again with other features.
API_TESTS = --test kubeapi
ISTIO_TESTS = --test istio_install --test istio_latency --test istio_intercepts --test istio_commands --test istio_resource --test istio_fallback --test istio_leaving --test istio_controller --test istio_outbound --test istio_faults

# On a cluster of its own, which it takes down again, also after a failure or Ctrl-C. First what wants nothing of ours in it, then what needs little more than its API
# server; then what waits for pods. Both wait more than they compute, so more of it is under way at once than there are cores; last what takes parts of the cluster away. (One call to cargo would run them in the order of the alphabet.)
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

# Test suites of others, built once. Their time limits do not expect to share two cores.
test-peers: build
	@scripts/install-tools peers
	@tests/peers/build
	cargo test --locked --no-fail-fast --test peers -- --test-threads=2

# PROFILE=dev spares the compiling, and costs a third of a core while it runs.
DURATION = 1h
PROFILE = release
soak: $(if $(MESH),images,build)
	cargo run --locked --profile $(PROFILE) --bin soak -- --duration $(DURATION) $(if $(MESH),--mesh) $(SOAK)

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
