//! Everything behind the `injector` command.

pub mod commands;
pub mod curl;
pub mod envoy;
pub mod hint;
pub mod manifest;
pub mod sandbox;
pub mod tunnel;
