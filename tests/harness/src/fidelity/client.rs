//! A client that sends exactly what a case says, and records every byte received.
//!
//! Neither retries nor repairs.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{mpsc, watch};

use super::case::{Case, Part, Sent, Step};
use super::frames::{self, Event, Reader};
use super::message::{End, Fields, Message, Version};
use super::origin::CASE;
use super::wire::{Framing, Wire};

/// Timeout of a case, far above what any needs: a missing end is a result, too.
const DEADLINE: Duration = Duration::from_secs(20);

/// The result of a client.
#[derive(Debug, Clone, Default)]
pub(super) struct Got {
    pub(super) answers: Vec<Message>,
    /// Bytes after the last response.
    pub(super) extra: Vec<u8>,
}

/// Sends the case to that address under this name.
pub(super) async fn send(addr: SocketAddr, id: &str, case: &Case) -> Got {
    let mut got = Got::default();
    // After a timeout, the result so far stays.
    let _ = match &case.sent {
        Sent::Http1(steps) => {
            tokio::time::timeout(DEADLINE, http1(addr, id, case, steps, &mut got)).await
        }
        Sent::Http2(parts) => {
            tokio::time::timeout(DEADLINE, http2(addr, id, parts, &mut got)).await
        }
    };
    got
}

async fn http1(addr: SocketAddr, id: &str, case: &Case, steps: &[Step], got: &mut Got) {
    let stream = TcpStream::connect(addr).await.expect("a listener");
    stream.set_nodelay(true).expect("TCP_NODELAY");
    let (read, write) = stream.into_split();
    let (heads_tx, heads_rx) = watch::channel(0); // reader → writer: how many heads came
    let steps: Vec<Step> = steps.iter().map(|step| named(step, id)).collect();
    let methods = methods(&steps);
    let writing = tokio::spawn(write_http1(write, steps, heads_rx));
    let mut wire = Wire::new(read);
    for place in 0..case.answers {
        got.answers.push(Message::default());
        let answer = &mut got.answers[place];
        let is_head = methods.get(place).is_some_and(|method| method == b"HEAD");
        if !read_answer(&mut wire, is_head, answer, &heads_tx).await {
            break;
        }
    }
    got.extra = wire.ahead;
    writing.abort();
}

/// The step with the line that names the case.
fn named(step: &Step, id: &str) -> Step {
    const PLACE: &[u8] = b"{case}";
    let Step::Send(bytes) = step else {
        return step.clone();
    };
    let line = format!("{CASE}: {id}");
    let mut named = Vec::with_capacity(bytes.len() + line.len());
    let mut rest = bytes.as_slice();
    while let Some(at) = rest.windows(PLACE.len()).position(|part| part == PLACE) {
        named.extend(&rest[..at]);
        named.extend(line.as_bytes());
        rest = &rest[at + PLACE.len()..];
    }
    named.extend(rest);
    Step::Send(named)
}

/// The method of each request whose first line begins a step or follows an empty line.
fn methods(steps: &[Step]) -> Vec<Vec<u8>> {
    let sent = steps.iter().filter_map(|step| match step {
        Step::Send(bytes) => Some(bytes),
        _ => None,
    });
    let all: Vec<u8> = sent.flatten().copied().collect();
    let lines = all.split(|byte| *byte == b'\n');
    let firsts = lines.filter(|line| line.windows(6).any(|part| part == b" HTTP/"));
    let words = firsts.map(|line| line.split(|byte| *byte == b' ').next());
    words
        .map(|word| word.unwrap_or_default().to_vec())
        .collect()
}

async fn write_http1(mut write: OwnedWriteHalf, steps: Vec<Step>, mut heads: watch::Receiver<u32>) {
    let mut awaited = 0;
    for step in steps {
        match step {
            // The other side may respond and close before it has read everything.
            Step::Send(bytes) if write.write_all(&bytes).await.is_err() => break,
            Step::AwaitHead => {
                awaited += 1;
                if heads.wait_for(|count| *count >= awaited).await.is_err() {
                    return;
                }
            }
            _ => {}
        }
    }
    // Kept open, because Envoy treats a client that closes its sending side as gone.
    std::future::pending::<()>().await;
}

/// Reads a response. Returns whether another one may follow.
async fn read_answer<S: tokio::io::AsyncRead + Unpin>(
    wire: &mut Wire<S>,
    is_head: bool,
    answer: &mut Message,
    heads: &watch::Sender<u32>,
) -> bool {
    loop {
        match wire.head(answer).await {
            Ok(true) => {}
            Ok(false) => {
                answer.end = End::Closed;
                return false;
            }
            Err(_) => {
                answer.end = End::ConnectionReset;
                return false;
            }
        }
        heads.send_modify(|count| *count += 1);
        if !matches!(answer.status(), Some(100 | 102..=199)) {
            break;
        }
        let start = std::mem::take(&mut answer.start);
        let fields = std::mem::take(&mut answer.fields);
        answer.interim.push((start, fields));
    }
    let framing = if answer.status() == Some(101) {
        // Echoed text ends with a full stop.
        while answer.body.last() != Some(&b'.') {
            answer.body.append(&mut wire.ahead);
            if answer.body.last() != Some(&b'.') && !matches!(wire.fill().await, Ok(true)) {
                answer.end = End::Closed;
                return false;
            }
        }
        Framing::Nothing
    } else {
        Framing::of_response(answer, is_head)
    };
    wire.body(framing, answer).await;
    let goes_on = matches!(answer.end, End::Whole(_)) && framing != Framing::UntilClose;
    if goes_on && answer.lists("connection", "close") {
        // It announced a close, so it must close.
        while matches!(wire.fill().await, Ok(true)) {}
        return false;
    }
    goes_on
}

async fn http2(addr: SocketAddr, id: &str, parts: &[Part], got: &mut Got) {
    const STREAM: u32 = 1;
    let mut stream = TcpStream::connect(addr).await.expect("a listener");
    stream.set_nodelay(true).expect("TCP_NODELAY");
    let opening = [frames::PREFACE, &frames::opening()].concat();
    stream.write_all(&opening).await.expect("a new connection");
    let (read, write) = stream.into_split();
    let (frames_tx, frames_rx) = mpsc::unbounded_channel(); // reader and script → writer: whole frames
    let (heads_tx, heads_rx) = watch::channel(0); // reader → script: how many heads came
    let writing = tokio::spawn(write_frames(write, frames_rx));
    let script = script_http2(STREAM, named_parts(parts, id), frames_tx.clone(), heads_rx);
    let scripting = tokio::spawn(script);
    let mut reader = Reader::new(read);
    got.answers.push(Message {
        version: Version::Http2,
        ..Message::default()
    });
    let answer = &mut got.answers[0];
    while answer.end == End::Endless {
        match reader.next().await {
            Ok(Some(event)) => {
                let _ = frames_tx.send(reader.reply(&event));
                take(event, STREAM, answer, &heads_tx);
            }
            Ok(None) => answer.end = End::Closed,
            Err(_) => answer.end = End::ConnectionReset,
        }
    }
    scripting.abort();
    writing.abort();
}

fn named_parts(parts: &[Part], id: &str) -> Vec<Part> {
    let mut parts = parts.to_vec();
    if let Some(Part::Head(fields, _)) = parts.first_mut() {
        let pseudo = fields.iter().take_while(|(name, _)| name.starts_with(b":"));
        let place = pseudo.count();
        fields.insert(place, (CASE.as_bytes().to_vec(), id.as_bytes().to_vec()));
    }
    parts
}

async fn script_http2(
    stream: u32,
    parts: Vec<Part>,
    frames: mpsc::UnboundedSender<Vec<u8>>,
    mut heads: watch::Receiver<u32>,
) {
    let mut awaited = 0;
    for part in parts {
        let bytes = match part {
            Part::Head(fields, ends) => frames::headers(stream, &fields, ends),
            Part::Data(body, ends) => frames::data(stream, &body, ends),
            Part::Reset(code) => frames::frame(frames::RST_STREAM, 0, stream, &code.to_be_bytes()),
            Part::AwaitHead => {
                awaited += 1;
                if heads.wait_for(|count| *count >= awaited).await.is_err() {
                    return;
                }
                continue;
            }
            Part::ReadBody | Part::Echo => continue,
        };
        let _ = frames.send(bytes);
    }
}

async fn write_frames(mut write: OwnedWriteHalf, mut frames: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(bytes) = frames.recv().await {
        if write.write_all(&bytes).await.is_err() {
            break;
        }
    }
    std::future::pending::<()>().await;
}

/// Records an event in the response.
fn take(event: Event, stream: u32, answer: &mut Message, heads: &watch::Sender<u32>) {
    match event {
        Event::Fields {
            stream: of,
            fields,
            ends_stream,
        } if of == stream => {
            heads.send_modify(|count| *count += 1);
            take_fields(fields, ends_stream, answer);
        }
        Event::Frame(frame) if frame.kind == frames::GOAWAY => {
            // An error of the connection ends it at once (RFC 9113 section 5.4.1).
            let code = frame.payload.get(4..8).unwrap_or_default();
            if code != [0; 4] {
                answer.end = End::Garbled;
            }
        }
        Event::Frame(frame) if frame.stream == stream && frame.kind == frames::DATA => {
            answer.body.extend(&frame.payload);
            if frame.ends_stream() {
                answer.end = End::Whole(false);
            }
        }
        Event::Frame(frame) if frame.stream == stream && frame.kind == frames::RST_STREAM => {
            let code = frame.payload.try_into().map(u32::from_be_bytes);
            answer.end = End::StreamReset(code.unwrap_or_default());
        }
        _ => {}
    }
}

fn take_fields(fields: Fields, ends_stream: bool, answer: &mut Message) {
    let is_first = answer.fields.is_empty();
    if !is_first {
        answer.trailers = fields;
        answer.end = End::Whole(false);
        return;
    }
    answer.fields = fields;
    if matches!(answer.status(), Some(100..=199)) {
        let fields = std::mem::take(&mut answer.fields);
        answer.interim.push((Vec::new(), fields));
    } else if ends_stream {
        answer.end = End::Whole(true);
    }
}
