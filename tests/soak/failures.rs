//! Panics: the harness panics where something does not come, and a soak goes on. Each is kept until somebody says what it was about.

use std::sync::Mutex;

static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps what every panic says from now on.
pub fn keep() {
    std::panic::set_hook(Box::new(|panic| {
        SAID.lock().expect("no panic").push(panic.to_string());
    }));
}

/// Those since it was last asked.
pub fn take() -> Vec<String> {
    std::mem::take(&mut SAID.lock().expect("no panic"))
}
