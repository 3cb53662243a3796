//! The failure of a command: an error with a hint. `main` takes no error without one.

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    /// What went wrong; printed as one line, outermost context first.
    pub error: anyhow::Error,
    /// What to do about it, with a command if there is one.
    pub hint: String,
}

/// Turns an error into a [`Failure`].
pub trait OrHint<T> {
    /// Adds a hint.
    fn or_hint(self, hint: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrHint<T> for Result<T, E> {
    fn or_hint(self, hint: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            error: error.into(),
            hint: hint.into(),
        })
    }
}
