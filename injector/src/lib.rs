//! Everything behind the `injector` command.

pub mod tunnel;
