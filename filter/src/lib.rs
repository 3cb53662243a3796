//! The proxy-wasm filter: a thin shell over `intercept-core`.
