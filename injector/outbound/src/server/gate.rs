//! Who may connect.

use std::pin::Pin;

use crate::hello::{Hello, Rejection};

/// A developer that was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// What limits count by: the public name of the intercept's tunnel.
    pub key: String,
    /// The intercept's name, as the relay knows it.
    pub intercept: String,
}

/// A question that is being answered.
pub type Admitting<'a> = Pin<Box<dyn Future<Output = Result<Admitted, Rejection>> + Send + 'a>>;

/// Decides who may connect.
pub trait Gate: Send + Sync {
    /// Whether this proves an intercept that lives at this moment. Asked again while a developer is connected.
    fn admit<'a>(&'a self, hello: &'a Hello) -> Admitting<'a>;
}
