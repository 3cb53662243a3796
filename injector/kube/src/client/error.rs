//! What the API server, or the way to it, can answer instead of an object.

use intercept_tunnel::with_causes;
use kube::config::KubeconfigError;
use kube::core::Status;

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
        /// May it be reached in a moment: the connection was refused, or broke?
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

    /// Is it a conflict: a field of another manager, or a test of a patch that did not hold? (HTTP 409, 422)
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

    /// Is the object refused as it is, by its schema, a policy, a quota or a role? A retry is refused, too, until that changes.
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn failed_patch_test_is_a_conflict() {
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
    fn only_outages_are_passing() {
        let is_passing = |code: u16| {
            let status = json!({"code": code, "message": "m", "reason": "r", "status": "Failure"});
            let status = Box::new(serde_json::from_value(status).expect("a status"));
            let what = "WasmPlugin shop/orders".to_owned();
            ClusterError::Refused { what, status }.is_passing()
        };
        for code in [429, 500, 502, 503, 504] {
            assert!(is_passing(code), "{code}");
        }
        for code in [400, 401, 403, 404, 409, 422] {
            assert!(!is_passing(code), "{code}");
        }
        let server = "https://127.0.0.1:6443".to_owned();
        let late = ClusterError::Unreachable {
            server,
            reason: "deadline has elapsed".to_owned(),
            may_pass: true,
        };
        assert!(late.is_passing());
    }
}
