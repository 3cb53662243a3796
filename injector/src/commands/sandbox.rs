//! `injector sandbox`.
