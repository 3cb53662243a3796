//! Builds filter.wasm.

fn main() {}
