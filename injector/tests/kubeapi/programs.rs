//! The programs of the API server, and the files that they read.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::server::told;

/// The users that the API server knows by their tokens, besides the administrator.
const USERS: [&str; 7] = ["bob", "alice", "eve", "mallory", "carol", "dave", "olga"];
pub const ADMIN: &str = "admin";

/// A program of the test cluster's cache. Its folder bears a version: `kubernetes-*/kubectl`.
pub fn binary(place: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cache"));
    let (folder, program) = place.split_once('/').expect("a folder and a program");
    let prefix = folder.trim_end_matches('*');
    let folders = fs::read_dir(cache.join("injector/cluster"))
        .into_iter()
        .flatten()
        .flatten();
    let found = folders
        .filter(|folder| folder.file_name().to_string_lossy().starts_with(prefix))
        .map(|folder| folder.path().join(program))
        .find(|program| program.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "{place} is not below {}/injector/cluster; run: tests/cluster/build",
            cache.display()
        )
    })
}

/// The library that shifts a program's clock.
pub fn faketime() -> PathBuf {
    let arch = std::env::consts::ARCH;
    let library = PathBuf::from(format!(
        "/usr/lib/{arch}-linux-gnu/faketime/libfaketime.so.1"
    ));
    assert!(
        library.is_file(),
        "{} is not here; run: tests/cluster/build tools",
        library.display()
    );
    library
}

pub fn etcd_command(place: &Path, port: u16, peer: u16) -> Command {
    let mut command = Command::new(binary("debian-*/usr/bin/etcd"));
    command
        .arg("--data-dir")
        .arg(place.join("etcd"))
        .args(["--unsafe-no-fsync", "--log-level=warn"])
        .arg(format!("--listen-client-urls=http://127.0.0.1:{port}"))
        .arg(format!("--advertise-client-urls=http://127.0.0.1:{port}"))
        .arg(format!("--listen-peer-urls=http://127.0.0.1:{peer}"));
    command
}

pub fn api_command(place: &Path, etcd: u16, secure: u16) -> Command {
    let file = |flag: &str, name: &str| format!("--{flag}={}", place.join(name).display());
    let mut command = Command::new(binary("kubernetes-*/kube-apiserver"));
    command.args([
        format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        format!("--secure-port={secure}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--advertise-address=127.0.0.1".to_owned(),
        "--service-cluster-ip-range=10.99.0.0/24".to_owned(),
        "--service-account-issuer=https://x".to_owned(),
        "--authorization-mode=RBAC".to_owned(),
        "--allow-privileged=true".to_owned(),
        file("cert-dir", "certs"),
        file("service-account-key-file", "sa.pub"),
        file("service-account-signing-key-file", "sa.key"),
        file("token-auth-file", "tokens"),
    ]);
    command
}

/// What makes pods of a Deployment and deletes what is in a namespace.
pub fn controllers_command(place: &Path) -> Command {
    let file = |flag: &str, name: &str| format!("--{flag}={}", place.join(name).display());
    let mut command = Command::new(binary("kubernetes-*/kube-controller-manager"));
    command.args([
        file("kubeconfig", ADMIN),
        file("service-account-private-key-file", "sa.key"),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
    ]);
    command
}

pub fn write_keys(place: &Path) {
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl")
            .current_dir(place)
            .args(arguments)
            .output();
        let output = output.expect("openssl is missing; run: apt-get install openssl");
        assert!(output.status.success(), "{}", told(&output).1);
    };
    openssl(&[
        "ecparam",
        "-name",
        "prime256v1",
        "-genkey",
        "-noout",
        "-out",
        "sa.key",
    ]);
    openssl(&["ec", "-in", "sa.key", "-pubout", "-out", "sa.pub"]);
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-subj",
        "/CN=kubelet",
        "-days",
        "1",
        "-keyout",
        "kubelet.key",
        "-out",
        "kubelet.crt",
    ]);
}

/// Tokens and a kubeconfig each.
pub fn write_users(place: &Path, secure: u16) {
    let mut tokens = format!("token-{ADMIN},{ADMIN},0,\"system:masters\"\n");
    for (number, user) in USERS.into_iter().enumerate() {
        tokens.push_str(&format!("token-{user},{user},{},\n", number + 1));
    }
    fs::write(place.join("tokens"), tokens).expect("written");
    for user in USERS.into_iter().chain([ADMIN]) {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: \"https://127.0.0.1:{secure}\", insecure-skip-tls-verify: true}}}}]\n\
             users: [{{name: u, user: {{token: token-{user}}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
        );
        fs::write(place.join(user), text).expect("written");
    }
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").port()
}
