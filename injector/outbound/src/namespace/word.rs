//! What the command line of a helper begins with.

/// The first argument of a process that is to become the helper. Not for users: no help or completion names it. The label of the namespace follows.
pub const WORD: &str = "--namespace-helper";
