//! A request of any kind: sends it, reads the response to its end, judges and counts it.

use std::time::{Duration, Instant};

use harness::app::{ANSWERED_BY, Do, Seen};
use harness::client::{Ask, Client};
use harness::websocket::Socket;
use http::HeaderMap;
use http_body_util::BodyExt;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::contract::{Kind, Outcome, Verdict, judge, judge_unmatched};
use crate::ledger::Told;
use crate::world::{Lane, Person, World};

/// The end of a stream.
#[derive(Debug, Clone)]
pub enum Until {
    /// After this many messages.
    Count(u64),
    /// Once this is true.
    Told(watch::Receiver<bool>),
}

impl Until {
    /// Does the stream end after this many messages?
    fn is_over(&self, messages: u64) -> bool {
        match self {
            Self::Count(count) => messages >= *count,
            Self::Told(told) => *told.borrow(),
        }
    }
}

/// A request to send.
#[derive(Debug, Clone)]
pub struct Shot {
    pub kind: Kind,
    pub to: Do,
    /// Bytes of a POST's body.
    pub length: usize,
    /// Messages of a stream.
    pub until: Until,
    /// The pause between two messages of a stream.
    pub pause: Duration,
    /// The timeout.
    pub limit: Duration,
    /// Over HTTP/2 if both versions are possible.
    pub is_h2: bool,
}

impl Shot {
    pub fn new(kind: Kind, to: Do) -> Self {
        Self {
            kind,
            to,
            length: 1_000,
            until: Until::Count(3),
            pause: Duration::ZERO,
            limit: Duration::from_secs(60),
            is_h2: false,
        }
    }
}

/// The result of a shot.
#[derive(Debug)]
pub struct Fired {
    pub verdict: Verdict,
    pub outcome: Outcome,
    pub took: Duration,
    /// The messages of a stream, and the longest time between two.
    pub messages: u64,
    pub longest_gap: Duration,
}

/// Sends it, as `person`'s or unmatched, and counts the outcome.
pub async fn fire(world: &World, lane: &Lane, person: Option<&Person>, shot: Shot) -> Fired {
    let number = world.ledger.next();
    let mut stream = Stream::new(&shot);
    let began = Instant::now();
    let sent = send(lane, person, &shot, number, &mut stream);
    let outcome = match timeout(shot.limit, sent).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::Failed(format!("nothing for {:?}", shot.limit)),
    };
    let ended = Instant::now();
    let verdict = match person {
        None => judge_unmatched(&outcome),
        Some(person) => {
            let met = person.timeline.during(began, ended);
            let breaks = person.breaks.during(began, ended);
            let verdict = judge(shot.kind, person.name, met, &breaks, &outcome);
            if let Verdict::Deviation(what) = verdict {
                let name = person.name;
                let took = ended - began;
                world.deviates(
                    what,
                    &format!(
                        "{} {} {number} for {name} ({}), {took:?} {met:?} {breaks:?}: {outcome:?}",
                        lane.name,
                        shot.kind.name(),
                        shot.to
                    ),
                );
            }
            verdict
        }
    };
    if let (None, Verdict::Deviation(what)) = (person, &verdict) {
        let (kind, took) = (shot.kind.name(), ended - began);
        let example = format!(
            "{} {kind} {number} ({}), {took:?}: {outcome:?}",
            lane.name, shot.to
        );
        world.deviates(what, &example);
    }
    let told = match verdict {
        Verdict::Cluster | Verdict::Suspect => Told::App,
        Verdict::Developer => Told::Server,
        _ => Told::Error,
    };
    world.ledger.told(number, told, shot.kind.is_safe());
    world.count(lane.name, person.is_some(), shot.kind, &verdict);
    Fired {
        verdict,
        outcome,
        took: ended - began,
        messages: stream.messages,
        longest_gap: stream.longest_gap,
    }
}

/// The messages of a stream so far.
struct Stream {
    until: Until,
    pause: Duration,
    messages: u64,
    last: Instant,
    longest_gap: Duration,
}

impl Stream {
    fn new(shot: &Shot) -> Self {
        Self {
            until: shot.until.clone(),
            pause: shot.pause,
            messages: 0,
            last: Instant::now(),
            longest_gap: Duration::ZERO,
        }
    }

    fn message(&mut self) {
        let now = Instant::now();
        if self.messages > 0 {
            self.longest_gap = self.longest_gap.max(now - self.last);
        }
        self.last = now;
        self.messages += 1;
    }

    fn is_over(&self) -> bool {
        self.until.is_over(self.messages)
    }

    /// Pauses between two messages, at most until the stream has to end.
    async fn rest(&mut self) {
        match &mut self.until {
            Until::Told(told) => {
                let told = told.wait_for(|told| *told);
                let _ = timeout(self.pause, told).await;
            }
            Until::Count(_) => tokio::time::sleep(self.pause).await,
        }
    }
}

async fn send(
    lane: &Lane,
    person: Option<&Person>,
    shot: &Shot,
    number: u32,
    stream: &mut Stream,
) -> Outcome {
    let client = match shot.is_h2 {
        true => lane.web.last(),
        false => lane.web.first(),
    };
    let client = client.expect("one at least");
    let with = |ask: Ask| {
        let ask = ask.id(number).to(shot.to);
        match person {
            Some(person) => ask.header("coder", person.name),
            None => ask,
        }
    };
    match shot.kind {
        Kind::Get => get(client, with(Ask::get("/soak")), shot).await,
        Kind::Post => post(client, with(Ask::post("/soak", shot.length)), shot).await,
        Kind::Events => events(client, with(Ask::get("/events")), stream).await,
        Kind::Socket => socket(lane, person, number, stream).await,
        Kind::Call | Kind::Talk => call(lane, person, shot, number, stream).await,
    }
}

async fn get(client: &Client, ask: Ask, shot: &Shot) -> Outcome {
    let Answer { by, marks, body } = match whole(client, ask).await {
        Ok(answer) => answer,
        Err(outcome) => return outcome,
    };
    match shot.to {
        Do::Bytes(count) if body.len() as u64 != count => {
            Outcome::Failed(format!("{} bytes for {count} by {by}", body.len()))
        }
        _ => Outcome::Answered { by, marks },
    }
}

async fn post(client: &Client, ask: Ask, shot: &Shot) -> Outcome {
    let sent = ask.body().clone();
    let Answer { by, marks, body } = match whole(client, ask).await {
        Ok(answer) => answer,
        Err(outcome) => return outcome,
    };
    let is_right = match shot.to {
        Do::Echo => body == sent,
        _ => Seen::parse(&body).length == sent.len() as u64,
    };
    match is_right {
        true => Outcome::Answered { by, marks },
        false => Outcome::Failed(format!("another body than was sent, by {by}")),
    }
}

/// A complete response with status 200.
struct Answer {
    by: String,
    marks: Option<[Option<String>; 2]>,
    body: bytes::Bytes,
}

async fn whole(client: &Client, ask: Ask) -> Result<Answer, Outcome> {
    let response = client.open(ask).await;
    let response = response.map_err(|error| Outcome::Failed(format!("{error:?}")))?;
    let (parts, body) = response.into_parts();
    let (by, marks) = heads(&parts.headers);
    let status = parts.status.as_u16();
    let body = body.collect().await;
    if status != 200 {
        let text = body.map(|body| body.to_bytes()).unwrap_or_default();
        return Err(Outcome::Refused {
            status,
            is_explained: parts.headers.contains_key("x-intercept-error"),
            text: format!("by {by} {:?} {text:?}", parts.headers),
        });
    }
    match body {
        Ok(body) => Ok(Answer {
            by,
            marks,
            body: body.to_bytes(),
        }),
        Err(error) => Err(Outcome::Broken(format!("by {by}: {error:?}"))),
    }
}

/// The name of the app, and our marks.
fn heads(headers: &HeaderMap) -> (String, Option<[Option<String>; 2]>) {
    let text = |name: &str| {
        let value = headers.get(name)?.to_str().ok()?;
        Some(value.to_owned())
    };
    let by = text(ANSWERED_BY).unwrap_or_else(|| "nobody".to_owned());
    let marks = ["x-intercept", "x-intercept-served-by"].map(text);
    (by, Some(marks))
}

async fn events(client: &Client, ask: Ask, stream: &mut Stream) -> Outcome {
    let response = match client.open(ask).await {
        Ok(response) => response,
        Err(error) => return Outcome::Failed(format!("{error:?}")),
    };
    let (parts, mut body) = response.into_parts();
    let (by, marks) = heads(&parts.headers);
    if parts.status != 200 {
        return Outcome::Refused {
            status: parts.status.as_u16(),
            is_explained: parts.headers.contains_key("x-intercept-error"),
            text: format!("by {by} {:?}", parts.headers),
        };
    }
    // One piece may contain several events, and one event may span several pieces.
    let (mut text, mut expected) = (String::new(), 0_u64);
    while !stream.is_over() {
        match body.frame().await {
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                text.push_str(&String::from_utf8_lossy(&data));
            }
            Some(Err(error)) => {
                return Outcome::Broken(format!("by {by} at {expected}: {error:?}"));
            }
            None => return Outcome::Broken(format!("by {by} at {expected}: it ended")),
        }
        while let Some(end) = text.find("\n\n") {
            let event: String = text.drain(..end + 2).collect();
            if event != format!("data: {expected}\n\n") {
                return Outcome::Failed(format!("{event:?} in the place of event {expected}"));
            }
            expected += 1;
            stream.message();
        }
    }
    Outcome::Answered { by, marks }
}

async fn socket(lane: &Lane, person: Option<&Person>, number: u32, stream: &mut Stream) -> Outcome {
    let id = number.to_string();
    let mut headers = vec![("test-id", id.as_str())];
    headers.extend(person.map(|person| ("coder", person.name)));
    let mut socket = match Socket::open(lane.endpoint.clone(), &headers).await {
        Ok(socket) => socket,
        Err(error) => return Outcome::Failed(format!("the handshake: {error:?}")),
    };
    let (by, marks) = heads(socket.response.headers());
    while !stream.is_over() {
        let text = format!("message {}", stream.messages);
        match socket.ask(&text).await {
            Ok(back) if back == text => stream.message(),
            Ok(back) => return Outcome::Failed(format!("{back:?} in the place of {text:?}")),
            Err(error) => return Outcome::Broken(format!("by {by} at {text}: {error:?}")),
        }
        stream.rest().await;
    }
    match socket.close().await {
        Ok(()) => Outcome::Answered { by, marks },
        Err(error) => Outcome::Broken(format!("by {by}, closing: {error:?}")),
    }
}

async fn call(
    lane: &Lane,
    person: Option<&Person>,
    shot: &Shot,
    number: u32,
    stream: &mut Stream,
) -> Outcome {
    let mut grpc = lane.calls.clone().with("test-id", &number.to_string());
    if let Some(person) = person {
        grpc = grpc.with("coder", person.name);
    }
    let called = match shot.kind {
        Kind::Call => grpc.unary().await,
        _ => {
            let pause = shot.pause;
            grpc.converse(pause, |_| {
                stream.message();
                !stream.is_over()
            })
            .await
        }
    };
    match called {
        Ok(by) => Outcome::Answered { by, marks: None },
        Err(status) => refused(&status, stream.messages > 0),
    }
}

/// The HTTP equivalent of a gRPC status.
///
/// 13 with our reason is our 502, and 14 is Envoy's equivalent of 503.
fn refused(status: &tonic::Status, has_begun: bool) -> Outcome {
    let text = format!("{status:?}");
    // The head arrived, but no message.
    let is_headed = status.message().contains("reading a body");
    if has_begun || is_headed {
        return Outcome::Broken(text);
    }
    let (status, is_explained) = match status.code() {
        tonic::Code::Internal if status.metadata().contains_key("x-intercept-error") => (502, true),
        tonic::Code::Unavailable => (503, false),
        _ => (500, false),
    };
    Outcome::Refused {
        status,
        is_explained,
        text,
    }
}
