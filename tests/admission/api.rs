//! The API server, through `kubectl`: as an administrator or as somebody else with a client certificate. Knows nothing of intercepts.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::binaries;
use harness::cluster::kubectl::Kubectl;
use injector::operator::installed::CLOCK;
use serde_json::{Value, json};

/// Whoever `$KUBECONFIG` says.
pub const ADMIN: &str = "";
/// A developer.
pub const BOB: &str = "bob@example.com";

/// How long the API server may take to know a policy or a role.
const DEADLINE: Duration = Duration::from_secs(60);

pub struct Api {
    cluster: Kubectl,
    kubectl: PathBuf,
}

/// What became of a request.
#[derive(Debug)]
pub struct Outcome {
    is_done: bool,
    text: String,
}

impl Outcome {
    pub fn passed(&self) -> bool {
        self.is_done
    }

    /// Refused by a policy, for this reason.
    pub fn is_refused(&self, reason: &str) -> bool {
        !self.is_done
            && self.text.contains("ValidatingAdmissionPolicy")
            && self.text.contains(reason)
    }

    /// Everything that was printed.
    pub fn text(&self) -> &str {
        &self.text
    }

    #[track_caller]
    pub fn must_pass(self) {
        assert!(self.is_done, "{}", self.text);
    }
}

impl Api {
    pub fn new() -> Self {
        Self {
            cluster: Kubectl::new(),
            kubectl: binaries::tool("kubectl", "kubernetes-client"),
        }
    }

    /// Server-side apply, in the way that `injector` does it.
    pub fn apply(&self, user: &str, manager: &str, object: &Value) -> Outcome {
        self.run(
            user,
            &[
                "apply",
                "--server-side",
                "--field-manager",
                manager,
                "-f",
                "-",
            ],
            Some(object),
        )
    }

    /// Several at once.
    pub fn apply_all(&self, user: &str, manager: &str, objects: &[Value]) -> Outcome {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.apply(user, manager, &list)
    }

    /// The same, but nothing is stored.
    pub fn try_apply(&self, user: &str, manager: &str, object: &Value) -> Outcome {
        self.run(
            user,
            &[
                "apply",
                "--server-side",
                "--dry-run=server",
                "--field-manager",
                manager,
                "-f",
                "-",
            ],
            Some(object),
        )
    }

    #[expect(clippy::too_many_arguments, reason = "what a patch is made of")]
    pub fn patch(
        &self,
        user: &str,
        namespace: &str,
        kind: &str,
        name: &str,
        patch_kind: &str,
        patch: &Value,
        is_dry: bool,
    ) -> Outcome {
        let patch = patch.to_string();
        let mut arguments = vec![
            "-n", namespace, "patch", kind, name, "--type", patch_kind, "-p", &patch,
        ];
        arguments.extend(is_dry.then_some("--dry-run=server"));
        self.run(user, &arguments, None)
    }

    pub fn delete(
        &self,
        user: &str,
        namespace: &str,
        kind: &str,
        name: &str,
        is_dry: bool,
    ) -> Outcome {
        let mut arguments = vec!["-n", namespace, "delete", kind, name, "--wait=false"];
        arguments.extend(is_dry.then_some("--dry-run=server"));
        self.run(user, &arguments, None)
    }

    pub fn delete_collection(&self, user: &str, path: &str) -> Outcome {
        self.run(user, &["delete", "--raw", path], None)
    }

    pub fn has(&self, namespace: &str, kind: &str, name: &str) -> bool {
        self.run(ADMIN, &["-n", namespace, "get", kind, name], None)
            .is_done
    }

    pub fn get(&self, namespace: &str, kind: &str, name: &str) -> Value {
        let outcome = self.run(
            ADMIN,
            &["-n", namespace, "get", kind, name, "-o", "json"],
            None,
        );
        assert!(outcome.is_done, "{}", outcome.text);
        serde_json::from_str(&outcome.text).expect("kubectl prints JSON")
    }

    /// When the Leases that are the policies' clock were renewed, and what time it is.
    pub fn clock(&self) -> String {
        const COLUMNS: &str = "custom-columns=LEASE:.metadata.name,RENEWED:.spec.renewTime";
        let leases = ["-n", "kube-system", "get", "leases", "-l", CLOCK];
        let leases = self.run(ADMIN, &[&leases[..], &["-o", COLUMNS]].concat(), None);
        let now = Command::new("date").args(["-u", "+%FT%TZ"]).output();
        let now = now.expect("date is there").stdout;
        format!("{}now: {}", leases.text, String::from_utf8_lossy(&now))
    }

    pub fn can(
        &self,
        user: &str,
        namespace: &str,
        verb: &str,
        resource: &str,
        subresource: Option<&str>,
    ) -> bool {
        let subresource = subresource.map(|subresource| format!("--subresource={subresource}"));
        let mut arguments = vec!["-n", namespace, "auth", "can-i", "-q", verb, resource];
        arguments.extend(subresource.as_deref());
        self.run(user, &arguments, None).is_done
    }

    /// Asks again until it is so.
    pub fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let started = Instant::now();
        while !is_so() {
            assert!(
                started.elapsed() < DEADLINE,
                "waited {DEADLINE:?} in vain until {what}"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Runs `kubectl` as this user, with `input` on its standard input.
    pub fn run(&self, user: &str, arguments: &[&str], input: Option<&Value>) -> Outcome {
        let mut command = Command::new(&self.kubectl);
        if user.starts_with("system:serviceaccount:") {
            // It has a token, no certificate; what it may do is the same.
            command.args(["--as", user, "--as-group", "system:authenticated"]);
        } else if user != ADMIN {
            command
                .arg("--kubeconfig")
                .arg(self.cluster.user(user, &[]));
        }
        let mut child = command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        let mut stdin = child.stdin.take().expect("it was asked for");
        if let Some(input) = input {
            stdin
                .write_all(input.to_string().as_bytes())
                .expect("kubectl reads");
        }
        drop(stdin);
        let output = child.wait_with_output().expect("kubectl ends");
        Outcome {
            is_done: output.status.success(),
            text: String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr),
        }
    }
}
