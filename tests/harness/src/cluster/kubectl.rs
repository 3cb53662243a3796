//! Access to the API server through `kubectl`, as an administrator.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use serde_json::Value;

use crate::binaries;

/// Runs a program to its end. Returns its stdout, or both outputs if it failed.
pub fn run(command: &mut Command, input: &[u8]) -> Result<String, String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    // It may exit without reading all input, which its output will explain.
    let _ = child.stdin.take().expect("piped").write_all(input);
    let output = child.wait_with_output().expect("a child of ours");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(format!(
        "{command:?}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    ))
}

/// The cluster of `$KUBECONFIG`.
#[derive(Debug, Clone)]
pub struct Kubectl {
    program: PathBuf,
    dir: PathBuf,
}

impl Kubectl {
    /// Panics without `$KUBECONFIG`, and names the command to run.
    pub fn new() -> Self {
        let kubeconfig = std::env::var_os("KUBECONFIG").map(PathBuf::from).expect(
            "$KUBECONFIG names no cluster; run: make test-istio, or eval \"$(sudo -E tests/cluster/up)\"",
        );
        Self {
            program: binaries::tool("kubectl", "kubernetes-client"),
            dir: kubeconfig
                .parent()
                .expect("it lies in a directory")
                .to_owned(),
        }
    }

    /// The directory of the cluster.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Runs a program of `tests/cluster` for this cluster. Returns its stdout.
    pub fn script(&self, name: &str, arguments: &[&str]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster");
        let mut command = Command::new(script.join(name));
        command.arg("--dir").arg(&self.dir).args(arguments);
        run(&mut command, b"").unwrap_or_else(|error| panic!("{error}"))
    }

    /// The kubeconfig of a user in these groups, with a client certificate.
    ///
    /// Made once, because it must not change while others read it.
    pub fn user(&self, name: &str, groups: &[&str]) -> PathBuf {
        static USERS: Mutex<BTreeMap<Vec<String>, PathBuf>> = Mutex::new(BTreeMap::new());
        let words = [&[name], groups].concat();
        let key = words.iter().map(|word| (*word).to_owned()).collect();
        let mut users = USERS.lock().expect("no panic");
        let made = users
            .entry(key)
            .or_insert_with(|| self.script("user", &words).trim_end().into());
        made.clone()
    }

    /// Runs `kubectl` with that kubeconfig and with input. Returns its stdout.
    pub fn run_as(
        &self,
        kubeconfig: &Path,
        arguments: &[&str],
        input: &str,
    ) -> Result<String, String> {
        let mut command = Command::new(&self.program);
        command.arg("--kubeconfig").arg(kubeconfig).args(arguments);
        run(&mut command, input.as_bytes())
    }

    /// Runs `kubectl`. Returns its stdout.
    pub fn run(&self, arguments: &[&str]) -> Result<String, String> {
        run(Command::new(&self.program).args(arguments), b"")
    }

    /// The same, for calls that must succeed.
    pub fn must(&self, arguments: &[&str]) -> String {
        self.run(arguments)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Gets objects as JSON.
    pub fn get(&self, arguments: &[&str]) -> Value {
        let all = [&["get", "-o", "json"], arguments].concat();
        serde_json::from_str(&self.must(&all)).expect("JSON")
    }

    /// Applies objects in one call.
    pub fn apply(&self, objects: &[Value]) {
        let text: Vec<String> = objects.iter().map(Value::to_string).collect();
        let arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        let mut command = Command::new(&self.program);
        run(command.args(arguments), text.join("\n---\n").as_bytes())
            .unwrap_or_else(|error| panic!("{error}"));
    }
}

impl Default for Kubectl {
    fn default() -> Self {
        Self::new()
    }
}
