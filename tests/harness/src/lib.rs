//! Shared parts of the end-to-end tests.
//!
//! The apps that respond, clients that count, and guards around the real Envoy, the release filter and `injector`.
//!
//! Knows nothing of how an intercept is decided: tests state that. Everything binds port 0 or a reserved [`ports::Port`], so that tests can run in parallel. Guards end what they
//! started, and print its log on failure.

mod answer;
pub mod app;
pub mod binaries;
pub mod callgrind;
pub mod client;
pub mod cluster;
pub mod command;
pub mod endpoint;
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
pub mod plan;
pub mod plugin;
pub mod ports;
pub mod raw;
pub mod recorder;
pub mod sandbox;
pub mod tcp_proxy;
pub mod tunnel;
pub mod wait;
pub mod websocket;
