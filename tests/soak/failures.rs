//! Panics: the harness panics where something does not come, and a soak goes on.
//!
//! Each is kept until a caller adds its context.

use std::sync::Mutex;

static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Records the message of every panic from now on.
pub fn keep() {
    std::panic::set_hook(Box::new(|panic| {
        SAID.lock().expect("no panic").push(panic.to_string());
    }));
}

/// The messages since the last call.
pub fn take() -> Vec<String> {
    std::mem::take(&mut SAID.lock().expect("no panic"))
}
