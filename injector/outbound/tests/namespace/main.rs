//! Real programs in a real namespace, as an ordinary user. The cluster is this machine's loopback, behind a dialer that knows a few names.
//!
//! This one binary is the tests, the process that runs a command in the namespace (`run -- CMD`), its helper, and a client to measure with. So it has a `main` of its own.

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

/// Only Linux has namespaces.
#[cfg(not(target_os = "linux"))]
fn main() {}
