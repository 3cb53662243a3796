//! How a command fails: with what went wrong and with what to do about it. An error without a hint does not reach `main`, because it has no type for it.

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    /// What went wrong; printed as one line, outermost context first.
    pub error: anyhow::Error,
    /// What to do about it, a command where there is one.
    pub hint: String,
}

/// Turns an error into a [`Failure`].
pub trait OrHint<T> {
    /// Adds what to do about it.
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
