//! The import graph between the modules of one crate, read from its source, and the cycles in it.
//!
//! **What is an import.** Module A imports module B if A's source names something that sits in B: in a `use`, in an inline path (`crate::b::f()`, `b::f()` after
//! `use crate::b`), or inside the arguments of a macro.
//! - A name sits where it is defined. What a module re-exports is followed to its definition, so `mod x; pub use x::Y;` makes the parent import `x`, and a
//!   sibling that takes `Y` from the parent imports `x`, not the parent.
//! - A path that ends at a module imports that module.
//! - Not imports: method calls and fields (they name no module), doc comments, attributes, visibilities, `mod x;`, and everything under `#[cfg(test)]`.
//! - A `use` inside a function counts for its whole module, and of the names that a macro makes nothing is known but the module in which they are looked for.
//!
//! **What is a cycle.** For each module M, a graph: one node for M's own source, one for each child of M with everything below it. Two nodes that reach each other are
//! a cycle. So a directory counts as one module among its siblings, and a child that takes a name from its parent while the parent uses the child is a cycle, too.

mod graph;
mod imports;
mod source;
mod workspace;

pub use graph::{Cycle, cycles};
pub use imports::{Import, imports};
pub use source::{Crate, Module, ModuleId, SourceError};
pub use workspace::{MetadataError, Target, targets};
