//! Everything behind the `injector` command.

pub mod commands;
pub mod envoy;
pub mod manifest;
pub mod sandbox;
pub mod tunnel;
