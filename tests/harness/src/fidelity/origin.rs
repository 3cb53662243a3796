//! The program behind the port, in the cluster and on the developer's machine.
//!
//! Records requests as they were on the wire, and responds as the case says.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::case::{Case, Part, Step};
use super::frames::{self, Event, Reader};
use super::message::{End, Message, Version};
use super::wire::{Framing, Wire};

/// The header with the name of the case, which distinguishes concurrent cases.
pub(super) const CASE: &str = "x-case";

/// The role in which an origin received a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The application, from a port without an intercept.
    Direct,
    /// The developer's server.
    Developer,
    /// The application, after a fallback.
    Fallback,
}

/// One request that an origin received.
#[derive(Debug, Clone)]
pub struct Received {
    /// The role of the origin.
    pub role: Role,
    /// The request.
    pub message: Message,
    /// Was it served to the end of its script?
    pub is_served: bool,
}

/// The three origins.
#[derive(Debug)]
pub(super) struct Origin {
    shared: Arc<Shared>,
    addrs: HashMap<Role, SocketAddr>,
    accepting: Vec<JoinHandle<()>>,
}

/// The steps of a case in HTTP/1.1 and in HTTP/2.
type Script = (Vec<Step>, Vec<Part>);

#[derive(Debug)]
struct Shared {
    scripts: Mutex<HashMap<String, Script>>,
    received: Mutex<HashMap<String, Vec<Received>>>,
    /// origins → stage: a request was received or served.
    changed: watch::Sender<u64>,
}

impl Origin {
    /// Starts all three on free ports.
    pub(super) async fn start() -> Self {
        let shared = Arc::new(Shared {
            scripts: Mutex::default(),
            received: Mutex::default(),
            changed: watch::Sender::new(0),
        });
        let (mut addrs, mut accepting) = (HashMap::new(), Vec::new());
        for role in [Role::Direct, Role::Developer, Role::Fallback] {
            let any = (Ipv4Addr::LOCALHOST, 0);
            let listener = TcpListener::bind(any).await.expect("a free port");
            addrs.insert(role, listener.local_addr().expect("bound"));
            accepting.push(tokio::spawn(accept(listener, role, Arc::clone(&shared))));
        }
        Self {
            shared,
            addrs,
            accepting,
        }
    }

    pub(super) fn addr(&self, role: Role) -> SocketAddr {
        self.addrs[&role]
    }

    /// Registers a case under this name.
    pub(super) fn expect(&self, id: &str, case: &Case) {
        let scripts = (case.http1.clone(), case.http2.clone());
        let mut all = self.shared.scripts.lock().expect("no panic");
        all.insert(id.to_owned(), scripts);
    }

    /// The requests received under this name so far.
    pub(super) fn received(&self, id: &str) -> Vec<Received> {
        let received = self.shared.received.lock().expect("no panic");
        received.get(id).cloned().unwrap_or_default()
    }

    /// Changes with every request received or served.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        for accepting in &self.accepting {
            accepting.abort();
        }
    }
}

impl Shared {
    fn scripts(&self, message: &Message) -> (String, Vec<Step>, Vec<Part>) {
        let id = message.field(CASE).unwrap_or(b"nobody");
        let id = String::from_utf8_lossy(id).into_owned();
        let scripts = self.scripts.lock().expect("no panic");
        let (http1, http2) = scripts.get(&id).cloned().unwrap_or_default();
        (id, http1, http2)
    }

    fn begin(&self, id: &str, role: Role, message: &Message) -> usize {
        let mut received = self.received.lock().expect("no panic");
        let list = received.entry(id.to_owned()).or_default();
        list.push(Received {
            role,
            message: message.clone(),
            is_served: false,
        });
        let place = list.len() - 1;
        drop(received);
        self.changed.send_modify(|count| *count += 1);
        place
    }

    fn update(&self, id: &str, place: usize, message: &Message, is_served: bool) {
        let mut received = self.received.lock().expect("no panic");
        let list = received.get_mut(id).expect("begun");
        list[place].message = message.clone();
        list[place].is_served = is_served;
        drop(received);
        self.changed.send_modify(|count| *count += 1);
    }
}

async fn accept(listener: TcpListener, role: Role, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let mut start = [0; frames::PREFACE.len()];
            while let Ok(length @ 1..) = stream.peek(&mut start).await {
                if start[..length] != frames::PREFACE[..length] {
                    return serve_http1(stream, role, shared).await;
                }
                if length == start.len() {
                    return serve_http2(stream, role, shared).await;
                }
                // The rest of the preface is on its way: it is always written in one piece.
                tokio::task::yield_now().await;
            }
        });
    }
}

async fn serve_http1(stream: TcpStream, role: Role, shared: Arc<Shared>) {
    let mut wire = Wire::new(stream);
    loop {
        let mut message = Message::default();
        if !matches!(wire.head(&mut message).await, Ok(true)) {
            return;
        }
        let (id, script, _) = shared.scripts(&message);
        let place = shared.begin(&id, role, &message);
        let goes_on = run_http1(&mut wire, &script, &mut message).await;
        shared.update(&id, place, &message, true);
        if !goes_on {
            return;
        }
    }
}

/// Runs the script of a request. Returns whether another one may follow on the connection.
async fn run_http1(wire: &mut Wire<TcpStream>, script: &[Step], message: &mut Message) -> bool {
    let mut was_read = false;
    for step in script {
        match step {
            Step::ReadBody => {
                let framing = Framing::of_request(message);
                wire.body(framing, message).await;
                was_read = true;
            }
            Step::Send(bytes) => {
                if wire.stream.write_all(bytes).await.is_err() {
                    return false;
                }
            }
            Step::Close => {
                let _ = wire.stream.shutdown().await;
                while matches!(wire.fill().await, Ok(true)) {
                    wire.ahead.clear();
                }
                return false;
            }
            Step::Reset => {
                wire.stream.set_zero_linger().expect("SO_LINGER");
                return false;
            }
            Step::Echo => loop {
                if !wire.ahead.is_empty() {
                    let said = std::mem::take(&mut wire.ahead);
                    message.body.extend(&said);
                    if wire.stream.write_all(&said).await.is_err() {
                        return false;
                    }
                }
                if !matches!(wire.fill().await, Ok(true)) {
                    // However the client disconnected, its framing had no end.
                    message.end = End::Whole(false);
                    return false;
                }
            },
            Step::AwaitHead => {}
        }
    }
    was_read
}

/// The streams of a connection, by channels for their frames.
type Streams = HashMap<u32, mpsc::UnboundedSender<Event>>;

async fn serve_http2(mut stream: TcpStream, role: Role, shared: Arc<Shared>) {
    let mut preface = [0; frames::PREFACE.len()];
    let preface = tokio::io::AsyncReadExt::read_exact(&mut stream, &mut preface).await;
    if preface.is_err() {
        return;
    }
    let (read, write) = stream.into_split();
    let (frames_tx, frames_rx) = mpsc::unbounded_channel(); // streams → writer: whole frames
    let writing = tokio::spawn(write_frames(write, frames_rx));
    let _ = frames_tx.send(frames::opening());
    let mut reader = Reader::new(read);
    let mut streams = Streams::new();
    while let Ok(Some(event)) = reader.next().await {
        let _ = frames_tx.send(reader.reply(&event));
        let stream = match &event {
            Event::Fields { stream, .. } => *stream,
            Event::Frame(frame) => frame.stream,
        };
        if let Some(events_tx) = streams.get(&stream) {
            let _ = events_tx.send(event);
        } else if let Event::Fields { .. } = event {
            let (events_tx, events_rx) = mpsc::unbounded_channel(); // connection → stream: its frames
            let _ = events_tx.send(event);
            streams.insert(stream, events_tx);
            let serving = serve_stream(
                stream,
                role,
                events_rx,
                frames_tx.clone(),
                Arc::clone(&shared),
            );
            tokio::spawn(serving);
        }
    }
    writing.abort();
}

async fn write_frames(mut write: OwnedWriteHalf, mut frames: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(bytes) = frames.recv().await {
        if write.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn serve_stream(
    stream: u32,
    role: Role,
    mut events: mpsc::UnboundedReceiver<Event>,
    frames: mpsc::UnboundedSender<Vec<u8>>,
    shared: Arc<Shared>,
) {
    let mut message = Message {
        version: Version::Http2,
        ..Message::default()
    };
    let Some(Event::Fields {
        fields,
        ends_stream,
        ..
    }) = events.recv().await
    else {
        return;
    };
    message.fields = fields;
    if ends_stream {
        message.end = End::Whole(true);
    }
    let (id, _, script) = shared.scripts(&message);
    let place = shared.begin(&id, role, &message);
    for part in &script {
        let bytes = match part {
            Part::Head(fields, ends) => frames::headers(stream, fields, *ends),
            Part::Data(body, ends) => frames::data(stream, body, *ends),
            Part::Reset(code) => frames::frame(frames::RST_STREAM, 0, stream, &code.to_be_bytes()),
            Part::ReadBody => {
                read_body(&mut events, &mut message, None).await;
                continue;
            }
            Part::Echo => {
                read_body(&mut events, &mut message, Some((stream, &frames))).await;
                message.end = End::Whole(false);
                continue;
            }
            Part::AwaitHead => continue,
        };
        let _ = frames.send(bytes);
    }
    shared.update(&id, place, &message, true);
}

/// Reads a stream to its end, and echoes each piece if `echo` says where to.
async fn read_body(
    events: &mut mpsc::UnboundedReceiver<Event>,
    message: &mut Message,
    echo: Option<(u32, &mpsc::UnboundedSender<Vec<u8>>)>,
) {
    while message.end == End::Endless {
        let Some(event) = events.recv().await else {
            message.end = End::Closed;
            return;
        };
        match event {
            Event::Fields {
                fields,
                ends_stream,
                ..
            } => {
                message.trailers = fields;
                message.end = if ends_stream {
                    End::Whole(false)
                } else {
                    End::Garbled
                };
            }
            Event::Frame(frame) if frame.kind == frames::DATA => {
                message.body.extend(&frame.payload);
                if frame.ends_stream() {
                    message.end = End::Whole(false);
                }
                if let Some((stream, frames_tx)) = echo {
                    let _ =
                        frames_tx.send(frames::data(stream, &frame.payload, frame.ends_stream()));
                }
            }
            Event::Frame(frame) if frame.kind == frames::RST_STREAM => {
                let code = frame.payload.try_into().map(u32::from_be_bytes);
                message.end = End::StreamReset(code.unwrap_or_default());
            }
            Event::Frame(_) => {}
        }
    }
}
