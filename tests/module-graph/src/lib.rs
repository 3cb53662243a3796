//! The import graph between the modules of one crate, read from its source, and the cycles in it.
//!
//! **Imports.** Module A imports module B if A's source names an item of B: in a `use`, in an inline path (`crate::b::f()`, or `b::f()` after
//! `use crate::b`), or in the arguments of a macro.
//! - An item belongs to the module that defines it. Re-exports are followed to the definition, so `mod x; pub use x::Y;` makes the parent import `x`, and a
//!   sibling that takes `Y` from the parent imports `x`, not the parent.
//! - A path that ends at a module imports that module.
//! - Not imports: method calls and fields (they name no module), doc comments, attributes, visibilities, `mod x;`, and everything under `#[cfg(test)]`.
//! - A `use` inside a function counts for its whole module. Of names from a macro, only the module of the path is known.
//!
//! **Cycles.** Each module M has a graph: one node for M's own source, and one for each child of M with everything below it. Nodes that reach each other are
//! a cycle. So a directory counts as one module among its siblings, and a child that takes a name from its parent while the parent uses the child is a cycle, too.

mod graph;
mod imports;
mod source;
mod workspace;

pub use graph::{Cycle, cycles};
pub use imports::{Import, imports};
pub use source::{Crate, Module, ModuleId, SourceError};
pub use workspace::{MetadataError, Target, targets};
