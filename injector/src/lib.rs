//! Everything behind the `injector` command.

pub mod ask;
pub mod backend;
pub mod cli;
pub mod cluster;
pub mod commands;
pub mod conflict;
pub mod curl;
pub mod developer;
pub mod doctor;
pub mod envoy;
pub mod flags;
pub mod hint;
pub mod lookup;
pub mod manifest;
pub mod mesh;
pub mod module_server;
pub mod operator;
pub mod prepare;
pub mod print;
pub mod regex_position;
pub mod remembered;
pub mod sandbox;
pub mod session;
pub mod tunnel;
pub mod words;
