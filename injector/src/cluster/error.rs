//! What the API server, or the way to it, can answer instead of an object, and what to do about it.

use std::error::Error;

use kube::config::KubeconfigError;
use kube::core::Status;

use crate::hint::Failure;

/// Why a question to the API server has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No kubeconfig, or one that cannot be used.
    #[error("kubeconfig: {}", kubeconfig(.0))]
    Kubeconfig(#[from] KubeconfigError),
    /// A context that the kubeconfig does not have.
    #[error("kubeconfig: no context `{wanted}`, it has {}", list(.known))]
    NoSuchContext {
        /// Which one was asked for.
        wanted: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// The API server said no.
    #[error("{what}: {}", .status.message)]
    Refused {
        /// Which object, or what was asked.
        what: String,
        /// Its answer.
        status: Box<Status>,
    },
    /// The API server does not know this kind of object.
    #[error("{what}: the API server has no {api_version} {kind}")]
    NoSuchKind {
        /// Which object.
        what: String,
        /// The group and version that were asked for.
        api_version: String,
        /// The kind that was asked for.
        kind: &'static str,
    },
    /// The API server cannot be reached, or what it says cannot be understood.
    #[error("{server}: {reason}")]
    Unreachable {
        /// Its URL.
        server: String,
        /// Why.
        reason: String,
        /// May it be reached in a moment: nobody listens, or the connection broke?
        may_pass: bool,
    },
    /// An object of a kind that this build does not write.
    #[error("object of an unknown kind: {0}")]
    UnknownKind(String),
}

impl ClusterError {
    /// Is it missing rights? (HTTP 403)
    pub fn is_forbidden(&self) -> bool {
        self.code() == Some(403)
    }

    /// Is somebody else in the way: a field of another manager, or a test of a patch that did not hold? (HTTP 409, 422)
    pub fn is_conflict(&self) -> bool {
        match self {
            // What is wrong with an object, or what an admission policy has against it, is no better the next time.
            Self::Refused { status, .. } if status.code == 422 => {
                let refusals = [" is invalid: ", " is forbidden: ", " denied the request"];
                !refusals.iter().any(|text| status.message.contains(text))
            }
            other => other.code() == Some(409),
        }
    }

    /// Is the object refused as it is, by its schema, a policy, a quota or a role? Until somebody changes that, it is no better the next time.
    pub fn is_rejection(&self) -> bool {
        let may_change = matches!(self.code(), Some(401 | 404 | 408 | 409 | 429));
        matches!(self.code(), Some(400..500)) && !may_change && !self.is_conflict()
    }

    /// May it work the next time?
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { may_pass, .. } => *may_pass,
            other => matches!(other.code(), Some(429 | 500..)),
        }
    }

    /// The HTTP status with which the API server refused.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(status.code),
            Self::NoSuchKind { .. } => Some(404),
            _ => None,
        }
    }

    /// What to do about it, with a command to run.
    pub fn hint(&self) -> String {
        match self {
            Self::Kubeconfig(KubeconfigError::CurrentContextNotSet) => {
                "kubectl config get-contexts, then --context NAME".to_owned()
            }
            Self::Kubeconfig(_) => {
                "--kubeconfig FILE, or the variable KUBECONFIG; without a cluster: injector sandbox"
                    .to_owned()
            }
            Self::NoSuchContext { .. } => "kubectl config get-contexts".to_owned(),
            Self::NoSuchKind { api_version, .. } if api_version.contains("istio.io") => {
                "is Istio installed in this cluster? kubectl get crd | grep istio.io".to_owned()
            }
            Self::NoSuchKind { .. } => "kubectl api-versions".to_owned(),
            Self::Refused { status, .. } => match status.code {
                401 => "kubectl auth whoami".to_owned(),
                // The API server forbids it to everybody.
                403 if status.message.contains("it is being terminated") => {
                    "wait until the namespace is gone, then again: kubectl get namespaces"
                        .to_owned()
                }
                403 => "kubectl auth can-i --list tells what you may; an administrator binds the role: kubectl create rolebinding … --clusterrole=injector-developer --user=YOU, in that namespace and (as --role) beside the relays".to_owned(),
                _ => "injector doctor".to_owned(),
            },
            Self::Unreachable { .. } => "kubectl cluster-info".to_owned(),
            Self::UnknownKind(_) => "injector --version".to_owned(),
        }
    }
}

impl From<ClusterError> for Failure {
    fn from(error: ClusterError) -> Self {
        let (hint, may_pass) = (error.hint(), error.is_passing());
        Self::failed(error, hint).passing(may_pass)
    }
}

/// The library shows paths as Rust does.
fn kubeconfig(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::ReadConfig(error, path) => format!("{}: {error}", path.display()),
        KubeconfigError::FindPath => "there is none, and no home directory to look in".to_owned(),
        other => with_causes(other),
    }
}

fn list(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        names => names.join(", "),
    }
}

/// An error with its causes: the outermost text alone is often no more than "client error".
pub(super) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_test_of_a_patch_that_did_not_hold_is_told_from_what_a_policy_refuses() {
        let is_conflict = |code: u16, message: &str| {
            let status =
                json!({"code": code, "message": message, "reason": "Invalid", "status": "Failure"});
            let status = Box::new(serde_json::from_value(status).expect("a status"));
            let what = "WasmPlugin shop/orders".to_owned();
            ClusterError::Refused { what, status }.is_conflict()
        };
        // As the API server words it.
        let test = "the server rejected our request due to an error in our request";
        let policy = r#"wasmplugins.extensions.istio.io "orders" is forbidden: ValidatingAdmissionPolicy 'x' with binding 'x' denied request: no"#;
        let schema =
            r#"WasmPlugin.extensions.istio.io "orders" is invalid: spec.url: Required value"#;
        assert!(is_conflict(409, "the object has been modified"));
        assert!(is_conflict(422, test));
        assert!(!is_conflict(422, policy));
        assert!(!is_conflict(422, schema));
        assert!(!is_conflict(403, policy));
    }

    #[test]
    fn what_was_refused_stays_refused_and_what_broke_off_may_pass() {
        let failure = |code: u16| {
            let status = json!({"code": code, "message": "m", "reason": "r", "status": "Failure"});
            let status = Box::new(serde_json::from_value(status).expect("a status"));
            let what = "WasmPlugin shop/orders".to_owned();
            Failure::from(ClusterError::Refused { what, status })
        };
        for code in [429, 500, 502, 503, 504] {
            assert!(failure(code).may_pass(), "{code}");
        }
        for code in [400, 401, 403, 404, 409, 422] {
            assert!(!failure(code).may_pass(), "{code}");
        }
        let server = "https://127.0.0.1:6443".to_owned();
        let late = ClusterError::Unreachable {
            server,
            reason: "deadline has elapsed".to_owned(),
            may_pass: true,
        };
        assert!(Failure::from(late).may_pass());
    }
}
