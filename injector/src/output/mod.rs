//! What results look like, in every format.

pub mod intercept;
pub mod print;
