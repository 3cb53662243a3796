//! One finding, and how it came out.

use std::borrow::Cow;

use intercept_kube::ClusterError;
use serde::Serialize;

use crate::error::Hint;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Pass,
    /// It may be a reason, or may not be.
    Warn,
    /// The caller may not look.
    Unknown,
    /// An intercept cannot work so.
    Fail,
}

impl Outcome {
    /// One character for people.
    pub fn sign(self) -> char {
        match self {
            Self::Pass => '✓',
            Self::Warn => '!',
            Self::Unknown => '?',
            Self::Fail => '✗',
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Which check it is: the same word in every version, for scripts. One check may have several findings.
    pub id: Cow<'static, str>,
    /// How it came out.
    pub outcome: Outcome,
    /// What was looked at, and what was found.
    pub found: String,
    /// What to do about it, with a command to run; none where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Check {
    pub(super) fn pass(id: impl Into<Cow<'static, str>>, found: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            outcome: Outcome::Pass,
            found: found.into(),
            hint: None,
        }
    }

    pub(super) fn fail(
        id: impl Into<Cow<'static, str>>,
        found: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            outcome: Outcome::Fail,
            hint: Some(hint.into()),
            ..Self::pass(id, found)
        }
    }

    pub(super) fn warn(
        id: impl Into<Cow<'static, str>>,
        found: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            outcome: Outcome::Warn,
            ..Self::fail(id, found, hint)
        }
    }

    /// It could not be looked at.
    pub(super) fn unknown(id: impl Into<Cow<'static, str>>, found: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Unknown,
            ..Self::pass(id, found)
        }
    }

    /// A question that the API server did not answer. Not to be allowed to look is no fault.
    pub(super) fn unanswered(
        id: impl Into<Cow<'static, str>>,
        what: &str,
        error: &ClusterError,
    ) -> Self {
        match error.is_forbidden() {
            true => Self::unknown(id, format!("{what}: not verified, you may not look")),
            false => Self::fail(id, format!("{what}: {error}"), error.hint()),
        }
    }
}
