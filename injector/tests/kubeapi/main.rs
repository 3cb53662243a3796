//! Intercepts of a mesh, against a real API server with etcd, Istio's custom resources, the roles and the admission policies of `injector install`. No node, no istiod and no
//! proxy: a kubelet of our own forwards ports to relays and Envoys' admin interfaces in this process. `tests/cluster/build` provides the binaries.
//!
//! One program, so that the server is started once. Each test has a namespace of its own; those that install or uninstall, a server.

mod api_outage;
mod api_proxy;
mod controller;
mod environment;
mod envoy;
mod forwards;
mod install;
mod kubelet;
mod leave;
mod outbound;
mod programs;
mod rbac;
mod relays;
mod rights;
mod server;
mod session;
mod stage;
#[path = "../support/mod.rs"]
mod support;
mod uninstall;
