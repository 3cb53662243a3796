//! Everything behind the `injector` command.

pub mod args;
pub mod backend;
pub mod commands;
pub mod curl;
pub mod detached;
pub mod developer;
pub mod doctor;
pub mod environment;
pub mod envoy;
pub mod flags;
pub mod hint;
pub mod install_line;
pub mod left_out;
pub mod mesh;
pub mod model;
pub mod module_server;
pub mod operator;
pub mod outbound;
pub mod output;
pub mod remembered;
pub mod sandbox;
pub mod session;
pub mod shell;
pub mod typed;
pub mod words;
