//! Running requests when an intercept ends, and what each client must get.
//!
//! The same cases for the sandbox and for a mesh.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use http::{Method, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use rustix::process::Signal;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::app::{App, BoxError, Do, GO};
use crate::client::{Answer, Ask, Client, collect, wait_answered};
use crate::endpoint::Endpoint;
use crate::intercept::{Developer, Intercept};
use crate::wait;
use crate::websocket::Socket;

/// The name of the developer's server.
pub const SERVER: &str = "server";

/// How long a client waits for the outcome: longer than any way to end an intercept takes.
const OUTCOME: Duration = Duration::from_secs(90);

/// The kind of a client's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A GET without a response so far.
    Get,
    /// A HEAD.
    Head,
    /// A POST whose body has arrived.
    Post,
    /// A unary gRPC call, over HTTP/2.
    Grpc,
    /// A GET with a response in progress: server-sent events.
    Events,
    /// An open WebSocket.
    WebSocket,
}

/// All kinds.
pub const KINDS: [Kind; 6] = [
    Kind::Get,
    Kind::Head,
    Kind::Post,
    Kind::Grpc,
    Kind::Events,
    Kind::WebSocket,
];

/// Does the developer's server answer before the tunnel closes?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    Holds,
    Answers,
}

/// A way to end an intercept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A signal.
    Signal(Signal),
    /// Two signals, the second one while the command waits.
    Twice(Signal),
    /// `kill -9`.
    Kill,
    /// `leave` from the same home directory.
    Leave,
    /// `leave` from another machine of the same developer.
    LeaveElsewhere,
    /// `leave --all`.
    LeaveAll,
    /// `leave` of an intercept in the background.
    Detached,
    /// Another command replaces it.
    Replaced,
    /// The command behind `--` exits.
    ChildEnds,
    /// `uninstall --force`.
    Uninstalled,
}

/// Ways by signal.
pub const SIGNALS: [Way; 6] = [
    Way::Signal(Signal::INT),
    Way::Signal(Signal::TERM),
    Way::Signal(Signal::HUP),
    Way::Twice(Signal::INT),
    Way::Twice(Signal::TERM),
    Way::Kill,
];

/// Ways by command.
pub const COMMANDS: [Way; 6] = [
    Way::Leave,
    Way::LeaveElsewhere,
    Way::LeaveAll,
    Way::Detached,
    Way::Replaced,
    Way::ChildEnds,
];

impl Way {
    /// Do running requests get some seconds to end?
    fn has_grace(self) -> bool {
        !matches!(self, Self::Kill | Self::Twice(_))
    }

    /// The name of the developer who leaves in this way.
    pub fn developer(self) -> String {
        let debug = format!("{self:?}");
        let letters = debug.chars().filter(char::is_ascii_alphabetic);
        let name: String = letters.collect();
        name.replace("Signal", "").to_lowercase()
    }

    /// The intercept's name.
    pub fn intercept(self) -> String {
        format!("orders-{}", self.developer())
    }
}

/// The place of the intercepts.
pub struct Place<'p> {
    /// Creates a developer of this name.
    pub developer: &'p (dyn Fn(&str) -> Developer + Sync),
    /// The text after the port in `--port`.
    pub service: &'static str,
    /// The destination of the clients.
    pub endpoint: Endpoint,
    /// The kinds of requests.
    pub kinds: &'static [Kind],
    /// Does the intercept of this name have an entry?
    pub has_entry: &'p (dyn Fn(&str) -> bool + Sync),
    /// The command `uninstall --force`.
    pub uninstall: &'p (dyn Fn() -> Command + Sync),
    /// A directory for files.
    pub scratch: &'p Path,
}

impl Place<'_> {
    /// Ends intercepts in all these ways at once, each by its own developer.
    ///
    /// Panics unless every client gets the right result.
    pub async fn leave(&self, ways: &[Way]) {
        let cells = join_all(ways.iter().map(|way| Cell::start(self, *way))).await;
        let left = join_all(cells.into_iter().map(|cell| cell.leave(self))).await;
        let deviations = left.concat();
        assert!(deviations.is_empty(), "{}", deviations.join("\n"));
        for way in ways {
            let client = Client::h1(self.endpoint.clone());
            let answer = client.get("/", &[("coder", &way.developer())]).await;
            let served_by = answer.header("x-intercept-served-by");
            assert_eq!(
                (answer.status.as_u16(), served_by),
                (200, None),
                "{way:?}: after it"
            );
        }
    }
}

/// One developer with running requests.
struct Cell {
    way: Way,
    developer: Developer,
    intercept: Option<Intercept>,
    under_way: UnderWay,
    /// The command behind `--` exits once this file exists.
    file: PathBuf,
    _background: Option<Background>,
}

/// Ends a background intercept if the test does not.
struct Background(Command);

impl Drop for Background {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.output();
        }
    }
}

impl Cell {
    async fn start(place: &Place<'_>, way: Way) -> Self {
        let name = way.developer();
        let developer = (place.developer)(&name);
        let server = App::start(SERVER).await;
        let file = place.scratch.join(format!("{name}{}", place.service));
        let port = format!("{}{}", server.port(), place.service);
        let header = format!("--http-header=Coder={name}");
        let mut line = vec!["intercept", "orders", "--port", &port, &header];
        let script = format!("until [ -e '{}' ]; do sleep 0.05; done", file.display());
        match way {
            Way::Detached => line.push("--detach"),
            Way::ChildEnds => line.extend(["--", "sh", "-c", &script]),
            _ => {}
        }
        let (mut intercept, mut background) = (None, None);
        if way == Way::Detached {
            background = Some(Background(developer.command(&["leave", "--all"])));
            let ran = run(developer.command(&line)).await;
            assert!(ran.status.success(), "{ran:?}");
        } else {
            intercept = Some(developer.start(developer.command(&line)).await);
        }
        let header = ("coder", name.as_str());
        // Not every developer can see when the proxies have the intercept.
        wait_answered(&place.endpoint, "it is live", "/", &[header], |answer| {
            answer.by() == SERVER
        })
        .await;
        let under_way = UnderWay::start(
            &way.intercept(),
            &place.endpoint,
            header,
            place.kinds,
            server,
        )
        .await;
        Self {
            way,
            developer,
            intercept,
            under_way,
            file,
            _background: background,
        }
    }

    /// Ends the intercept. Returns all deviations.
    async fn leave(mut self, place: &Place<'_>) -> Vec<String> {
        let name = self.way.intercept();
        let mut command = None;
        match self.way {
            Way::Signal(signal) => self.process().signal(signal),
            Way::Twice(signal) => {
                let process = self.process();
                process.signal(signal);
                // The first signal must have been handled: two at once count as one.
                process.wait_output("Ctrl-C again to stop now").await;
                process.signal(signal);
            }
            Way::Kill => self.process().kill(),
            Way::Leave | Way::Detached => command = Some(self.developer.command(&["leave", &name])),
            Way::LeaveAll => command = Some(self.developer.command(&["leave", "--all"])),
            Way::LeaveElsewhere => {
                let mut leave = self.developer.command(&["leave", &name]);
                leave.env("HOME", self.file.with_extension("home"));
                command = Some(leave);
            }
            Way::Replaced => return self.replaced(place).await,
            Way::ChildEnds => std::fs::write(&self.file, "").expect("a writable directory"),
            Way::Uninstalled => command = Some((place.uninstall)()),
        }
        let command = command.map(|command| tokio::spawn(run(command)));
        if self.way.has_grace() {
            wait::until(&format!("{name} has no entry"), async || {
                !(place.has_entry)(&name)
            })
            .await;
            self.under_way.answer();
        }
        let deviations = self.outcome().await;
        if let Some(command) = command {
            let ran = command.await.expect("no panic");
            assert!(ran.status.success(), "{ran:?}");
        }
        deviations
    }

    fn process(&mut self) -> &mut crate::command::Process {
        &mut self.intercept.as_mut().expect("in the foreground").process
    }

    async fn replaced(self, place: &Place<'_>) -> Vec<String> {
        let header = format!("--http-header=Coder={}", self.way.developer());
        let port = format!("1{}", place.service);
        let line = ["intercept", "orders", "--port", &port, "--replace", &header];
        let replacing = self.developer.start(self.developer.command(&line)).await;
        self.under_way.answer();
        let deviations = self.outcome().await;
        replacing.leave().await;
        deviations
    }

    async fn outcome(mut self) -> Vec<String> {
        if self.intercept.is_some() {
            self.process().wait().await;
        }
        self.under_way.deviations(self.way.has_grace()).await
    }
}

async fn run(mut command: Command) -> Output {
    wait::blocking(move || command.output().expect("it starts")).await
}

/// The running requests of one intercept.
struct UnderWay {
    intercept: String,
    cells: Vec<(Kind, Server, JoinHandle<String>)>,
    server: App,
}

impl UnderWay {
    /// Sends the requests, and returns once the developer's server has all of them.
    ///
    /// `server` is called [`SERVER`], and gets no other requests.
    async fn start(
        intercept: &str,
        endpoint: &Endpoint,
        header: (&str, &str),
        kinds: &[Kind],
        server: App,
    ) -> Self {
        let (mut cells, mut streams, before) = (Vec::new(), 0, server.total());
        let begun = Arc::new(AtomicUsize::new(0));
        for kind in kinds {
            let servers: &[Server] = match kind {
                Kind::Events | Kind::WebSocket => &[Server::Holds],
                _ => &[Server::Holds, Server::Answers],
            };
            streams += usize::from(matches!(kind, Kind::Events | Kind::WebSocket));
            for at in servers {
                let header = (header.0.to_owned(), header.1.to_owned());
                let begun = Arc::clone(&begun);
                let client = tokio::spawn(client(*kind, *at, endpoint.clone(), header, begun));
                cells.push((*kind, *at, client));
            }
        }
        wait::until("the developer's server has all requests", async || {
            server.total() - before == cells.len() && begun.load(Ordering::SeqCst) == streams
        })
        .await;
        Self {
            intercept: intercept.to_owned(),
            cells,
            server,
        }
    }

    /// Lets the developer's server respond, where it does.
    fn answer(&self) {
        self.server.say(GO);
    }

    /// All deviations, one line each.
    async fn deviations(self, has_grace: bool) -> Vec<String> {
        let mut deviations = Vec::new();
        for (kind, server, client) in self.cells {
            let got = client.await.expect("no panic");
            let expected = expected(kind, server, has_grace);
            if got != expected {
                deviations.push(format!(
                    "{}: {kind:?}, the server {server:?}: {got}; expected {expected}",
                    self.intercept
                ));
            }
        }
        deviations
    }
}

fn expected(kind: Kind, server: Server, has_grace: bool) -> &'static str {
    match (kind, server) {
        (Kind::Events | Kind::WebSocket, _) => "broken off",
        (_, Server::Answers) if has_grace => "200 by the developer",
        (Kind::Get | Kind::Head, _) => "200 by the cluster",
        (Kind::Post, _) => "502 of ours",
        (Kind::Grpc, _) => "grpc-status 13 of ours",
    }
}

/// Runs a client. `begun` counts the responses that have begun.
async fn client(
    kind: Kind,
    at: Server,
    endpoint: Endpoint,
    (name, value): (String, String),
    begun: Arc<AtomicUsize>,
) -> String {
    let what = match at {
        Server::Holds => Do::HoldAt(SERVER),
        Server::Answers => Do::WaitAt(SERVER),
    };
    let outcome = async {
        let ask = match kind {
            Kind::Get => Ask::get("/"),
            Kind::Head => Ask::get("/").method(Method::HEAD),
            Kind::Post => Ask::post("/", 1_000),
            Kind::Grpc => grpc(),
            Kind::Events => return events(endpoint, (&name, &value), &begun).await,
            Kind::WebSocket => return web_socket(endpoint, (&name, &value), &begun).await,
        };
        let client = match kind {
            Kind::Grpc => Client::h2c(endpoint),
            _ => Client::h1(endpoint),
        };
        let answer = client.ask(ask.header(&name, &value).to(what)).await?;
        Ok(describe(&answer))
    };
    match timeout(OUTCOME, outcome).await {
        Ok(outcome) => outcome.unwrap_or_else(|error: BoxError| format!("no answer: {error}")),
        Err(_) => format!("nothing within {OUTCOME:?}"),
    }
}

/// A call with an empty message.
fn grpc() -> Ask {
    Ask::post("/grpc.health.v1.Health/Check", 5)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

async fn events(
    endpoint: Endpoint,
    header: (&str, &str),
    begun: &AtomicUsize,
) -> Result<String, BoxError> {
    let ask = Ask::get("/events")
        .header(header.0, header.1)
        .to(Do::Events);
    let response = Client::h1(endpoint).open(ask).await?;
    begun.fetch_add(1, Ordering::SeqCst);
    match response.status().as_u16() {
        200 => Ok(ended(read(response).await)),
        _ => Ok(describe(&collect(response).await?)),
    }
}

async fn read(response: Response<Incoming>) -> Result<(), BoxError> {
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(())
}

async fn web_socket(
    endpoint: Endpoint,
    header: (&str, &str),
    begun: &AtomicUsize,
) -> Result<String, BoxError> {
    let mut socket = Socket::open(endpoint, &[header]).await?;
    assert_eq!(socket.ask("hello").await?, "hello");
    begun.fetch_add(1, Ordering::SeqCst);
    Ok(ended(socket.ended().await))
}

fn ended(end: Result<(), BoxError>) -> String {
    match end {
        Ok(()) => "ended in good order".to_owned(),
        Err(_) => "broken off".to_owned(),
    }
}

fn describe(answer: &Answer) -> String {
    let status = answer.status.as_u16();
    let is_ours = answer.header("x-intercept-error").is_some();
    let is_served = answer.header("x-intercept-served-by").is_some();
    match (status, answer.header("grpc-status")) {
        (200, Some("13")) if is_ours => "grpc-status 13 of ours".to_owned(),
        (502, None) if is_ours => "502 of ours".to_owned(),
        (200, None) if is_served && answer.by() == SERVER => "200 by the developer".to_owned(),
        (200, None) if !is_served && !is_ours && answer.by() != SERVER => {
            "200 by the cluster".to_owned()
        }
        _ => format!("{answer:?}"),
    }
}
