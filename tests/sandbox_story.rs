//! `injector sandbox` for a new user.
//!
//! Its printed lines work when pasted, and Ctrl-C leaves nothing behind.

use std::process::Command;

use harness::app::App;
use harness::client::Client;
use harness::examples::EXAMPLES;
use harness::sandbox::{Sandbox, is_running};
use harness::wait;
use rustix::process::Signal;

#[tokio::test(flavor = "multi_thread")]
async fn every_example_works_in_the_sandbox_and_leaves_it_as_it_was() {
    let server = App::start("server").await;
    let sandbox = Sandbox::start().await;
    let client = Client::h1(sandbox.addr());
    for (number, (line, path, header)) in EXAMPLES.into_iter().enumerate() {
        let developer = sandbox.developer(&format!("bob-{number}"));
        let line = line.replace("--port 3000", &format!("--port {}", server.port()));
        let intercept = developer.start(developer.shell(&line)).await;
        let (curl, id) = (intercept.curl(), intercept.automatic_id());
        let header = header.unwrap_or_else(|| {
            let id = id.as_deref().expect("an automatic header");
            ("x-intercept-id", id)
        });
        assert_eq!(client.get(path, &[header]).await.by(), "server", "{line}");
        let output = Command::new("sh")
            .args(["-c", &format!("{curl} -s -i")])
            .output()
            .expect("sh starts");
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("answered-by: server"),
            "{curl}: {output:?}"
        );

        assert_eq!(intercept.leave().await.code(), Some(0), "{line}");
        assert_eq!(
            client.get(path, &[header]).await.header("x-intercept"),
            None,
            "{line}: after it"
        );
        let list = developer.run(&["list", "-o", "name"]);
        assert_eq!(
            (list.status.code(), list.stdout.as_slice()),
            (Some(0), &b""[..]),
            "{line}"
        );
    }
}

async fn assert_leaves_nothing(signal: Signal) {
    let mut sandbox = Sandbox::start().await;
    let processes = sandbox.descendants();
    assert!(!processes.is_empty(), "an Envoy at least");
    assert!(
        !sandbox.files().is_empty(),
        "the files that Envoy watches at least"
    );
    assert_eq!(
        Client::h1(sandbox.addr())
            .get("/api/version", &[])
            .await
            .status,
        200
    );

    sandbox.process.signal(signal);
    let status = sandbox.process.wait().await;
    assert_eq!(status.code(), Some(0), "{}", sandbox.process.output());
    for process in processes {
        assert!(!is_running(process), "process {process} is left");
    }
    assert_eq!(sandbox.files(), Vec::<std::path::PathBuf>::new());
    assert!(
        std::net::TcpStream::connect(sandbox.addr()).is_err(),
        "somebody still listens"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_leaves_no_process_and_no_file() {
    assert_leaves_nothing(Signal::INT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_termination_leaves_no_process_and_no_file() {
    assert_leaves_nothing(Signal::TERM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intercept_survives_other_users_and_names_the_sandboxes_end() {
    let server = App::start("server").await;
    let mut sandbox = Sandbox::start().await;
    let alice = sandbox
        .developer("alice")
        .intercept(&server, &["--http-header=Coder=Alice"])
        .await;
    let bob = sandbox
        .developer("bob")
        .intercept(&server, &["--http-header=Coder=Bob"])
        .await;
    let client = Client::h1(sandbox.addr());
    assert_eq!(alice.leave().await.code(), Some(0));
    assert_eq!(client.get("/", &[("coder", "Bob")]).await.by(), "server");
    sandbox.process.signal(Signal::INT);
    assert_eq!(sandbox.process.wait().await.code(), Some(0));
    wait::until("the sandbox is gone", async || {
        std::net::TcpStream::connect(sandbox.addr()).is_err()
    })
    .await;
    let mut bob = bob;
    assert_eq!(bob.process.wait().await.code(), Some(1));
    let told = bob.process.output();
    assert!(
        told.ends_with("error: orders-bob: the sandbox has ended\n\nhint: injector sandbox\n"),
        "{told}"
    );
    assert_eq!(sandbox.files(), Vec::<std::path::PathBuf>::new());
}
