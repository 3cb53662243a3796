//! Numbers for texts.
//!
//! The only kind of hash table in this crate, because each further kind would add more than a kilobyte to the module.

use std::collections::HashMap;

/// Numbers distinct texts from 0.
#[derive(Debug, Default)]
pub(crate) struct Interner(HashMap<String, usize>);

impl Interner {
    /// The text's number; assigns the next one to a new text.
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
