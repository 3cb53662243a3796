//! The commands, one per file.

pub mod build;
pub mod image;
