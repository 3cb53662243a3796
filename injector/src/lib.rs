//! Everything behind the `injector` command.

pub mod args;
pub mod backend;
pub mod commands;
pub mod curl;
pub mod describe;
pub mod detached;
pub mod doctor;
pub mod environment;
pub mod envoy;
pub mod error;
pub mod flags;
pub mod install;
pub mod install_args;
pub mod local_user;
pub mod mesh;
pub mod model;
pub mod module_server;
pub mod outbound;
pub mod output;
pub mod rejection;
pub mod sandbox;
pub mod session;
pub mod shell;
pub mod state;
pub mod typed;
