//! Everything behind the `injector` command.

pub mod conflict;
pub mod regex_position;
pub mod tunnel;
