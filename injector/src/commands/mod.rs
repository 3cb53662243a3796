//! One file per command: what it does with its arguments. Knows neither how arguments are read nor how an error is printed.

pub mod install;
pub mod render;
pub mod sandbox;
pub mod uninstall;
