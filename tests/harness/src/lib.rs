//! What the end-to-end tests share: the two programs that answer (the one in the cluster and the developer's), clients that count, and guards around the
//! real Envoy, the release filter and the release `injector`. Knows nothing of how an intercept is decided: tests state that.
//!
//! Everything binds port 0 or a [`ports::Port`] held for the test, so that tests run side by side. Guards end what they started, and on failure print what it logged.

mod answer;
pub mod app;
pub mod binaries;
pub mod callgrind;
pub mod client;
pub mod cluster;
pub mod command;
pub mod door;
pub mod envoy;
pub mod examples;
pub mod fidelity;
pub mod grpc;
pub mod intercept;
pub mod latency;
pub mod leaving;
pub mod link;
pub mod load;
pub mod mesh;
pub mod origin;
pub mod passage;
pub mod plan;
pub mod plugin;
pub mod ports;
pub mod raw;
pub mod recorder;
pub mod sandbox;
pub mod tunnel;
pub mod wait;
pub mod websocket;
