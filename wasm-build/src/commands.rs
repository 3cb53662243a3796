//! One verb, one file: each puts the pieces together and says what came of it.

pub mod build;
pub mod image;
