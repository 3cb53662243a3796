//! Numbers for texts. The one kind of hash table of this crate: each further kind would cost the module a kilobyte and more.

use std::collections::HashMap;

/// Gives each distinct text the next number, from 0 on.
#[derive(Debug, Default)]
pub(crate) struct Interner(HashMap<String, usize>);

impl Interner {
    /// The text's number; if it had none, the next one.
    pub(crate) fn intern(&mut self, text: &str) -> usize {
        self.get(text).unwrap_or_else(|| {
            let number = self.0.len();
            self.0.insert(text.to_owned(), number);
            number
        })
    }

    /// The text's number, if it has one.
    pub(crate) fn get(&self, text: &str) -> Option<usize> {
        self.0.get(text).copied()
    }
}
