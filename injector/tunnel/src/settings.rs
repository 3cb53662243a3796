//! The HTTP settings of the tunnel's connections, with the source of each number.

use std::time::Duration;

/// Bytes in flight per stream, which a stalled reader may pin.
///
/// Throughput on a real link is this over the round trip: 2 MiB gave 40 MB/s at 40 ms, 4 MiB 60 to 75.
pub(super) const STREAM_WINDOW: u32 = 2 * MIB;

/// Bytes in flight per connection.
///
/// HTTP/2's maximum (RFC 9113 §6.9.1), so that no stream ever waits for another one's reader.
/// [`super::memory`] limits what is pinned.
pub(super) const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// The most that a body with a stalled reader pins.
///
/// Its window, and the buffer of its HTTP/1.1 connection.
pub(super) const PINNED: u64 = STREAM_WINDOW as u64 + H1_BUFFER as u64;

/// The largest window (RFC 9113 §6.9.1).
pub(super) const WIDEST_WINDOW: u32 = (1 << 31) - 1;

/// The maximum of tunnels per relay.
///
/// A workload may have 1 000 intercepts, and one of two relays may have to hold all of them.
pub(super) const TUNNELS: usize = 2_048;

/// Bytes that uploads may pin on a developer machine while its server does not read them.
pub(super) const DEVELOPER_MEMORY: u64 = 512 * MIB as u64;

/// Control connections that may be open at once without having become a tunnel.
///
/// Their clients cannot be distinguished: on a mesh they are all port-forwards from 127.0.0.1, and clients can claim anything.
/// So all of them share this limit, with at most [`CONTROL_BUFFER`] each and half a minute.
pub(super) const UNOPENED: usize = 1_024;

/// Connections to the presence port that may be open at once. All come from the relay's sidecar, so who opened them cannot be told apart.
pub(super) const QUESTIONS: usize = 256;

/// How long such a connection may last: one question and its answer.
pub(super) const QUESTION: Duration = Duration::from_secs(5);

/// Its read buffer. A question has less than 200 bytes.
pub(super) const QUESTION_BUFFER: usize = 8 * 1024;

/// The read buffer of a control connection. A request for a tunnel has less than 1 KiB.
pub(super) const CONTROL_BUFFER: usize = 16 * 1024;

/// Timeout from the upgrade of a control connection to a tunnel that accepts requests.
///
/// A port-forward needs several round trips.
pub(super) const OPENING: Duration = Duration::from_secs(10);

/// The maximum of draining tunnels per address.
pub(super) const DRAINING: usize = 8;

/// 64 KiB frames cost 30 % less CPU per byte than the default of 16 KiB.
pub(super) const FRAME: u32 = 64 * 1024;

/// Streams open at once on one tunnel.
///
/// Further requests are unavailable at once, never queued: a hot service must not hang on a busy tunnel.
pub(super) const STREAMS: u32 = 16_384;

/// With h2's default of 20, a burst of cancelled requests ends the whole tunnel.
pub(super) const PENDING_RESETS: usize = STREAMS as usize;

/// h2's buffer per stream on top of the windows. A larger one gained nothing.
pub(super) const SEND_BUFFER: usize = 256 * 1024;

/// The largest header list that passes (names, values and 32 bytes each, RFC 9113 §6.5.2).
///
/// Envoy's default is 60 KiB, the relay's sidecar accepts 128.
pub(super) const HEADER_LIST: usize = 256 * 1024;

/// The largest number of header fields that passes.
pub(super) const HEADER_FIELDS: usize = 1_000;

/// The largest header list that an end *reads*.
///
/// More than passes, so that a large one gets a marked response instead of hyper's bare 431.
pub(super) const HEADER_LIST_READ: u32 = 512 * 1024;

/// The largest number of header fields that an end reads over HTTP/1.1.
///
/// No more than needed: for each head hyper fills tables of that many (32 bytes each, twice).
pub(super) const HEADER_FIELDS_READ: usize = HEADER_FIELDS + 24;

/// The read buffer of an HTTP/1.1 connection; a whole header list must fit.
pub(super) const H1_BUFFER: usize = HEADER_LIST_READ as usize;

/// The timing of liveness checks.
///
/// Production values by default; tests that simulate hours shorten them.
#[derive(Clone, Copy, Debug)]
pub struct Tempo {
    /// Interval of the beats of each end.
    pub beat: Duration,
    /// After this silence, a developer machine gets no requests that cannot be repeated.
    ///
    /// Two beats, and a retransmission.
    pub suspect: Duration,
    /// After this silence, an end counts as dead.
    pub silence: Duration,
    /// Requests after which a new tunnel replaces this one: HTTP/2 has at most 2³⁰ stream numbers.
    pub requests: u64,
}

impl Default for Tempo {
    fn default() -> Self {
        Self {
            beat: Duration::from_millis(500),
            suspect: Duration::from_millis(1_200),
            silence: Duration::from_secs(6),
            requests: 1 << 29,
        }
    }
}

/// Bytes in flight per stream of the relay's data side.
///
/// The round trip inside a cluster is far below 1 ms, so a stream needs little.
pub(super) const DATA_STREAM_WINDOW: u32 = 256 * 1024;

/// Idle timeout of an HTTP/1.1 connection on the data side.
///
/// Above Envoy's default of one hour: the sending side must be the one that closes, or a POST races with the close and cannot be repeated.
pub(super) const DATA_IDLE: Duration = Duration::from_secs(2 * 3_600);

/// How long a head that has begun may take on a data connection.
pub(super) const HEAD: Duration = Duration::from_secs(60);

/// Idle time before keep-alive probes on a data connection, and their interval.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long a client that closed its connection may leave bytes unread before it counts as gone.
pub(super) const ABANDONED: Duration = Duration::from_millis(150);

/// How long a relay that ends waits for responses to requests that it has cut off.
pub(super) const LAST_ANSWERS: Duration = Duration::from_secs(3);

/// How long to read and discard what a client sends after the last response.
///
/// Envoy gives up an upload as soon as it is answered.
pub(super) const LINGER: Duration = Duration::from_secs(10);

/// How much to read of an unwanted request body, to save its connection.
pub(super) const SKIP: usize = 64 * 1024;

/// How long that may take: a longer body costs the connection, and delays no fallback.
pub(super) const SKIP_TIME: Duration = Duration::from_millis(5);

/// Connect timeout of a developer's server on the loopback.
///
/// Otherwise a full accept queue would hold up the request, and its fallback, for minutes.
pub(super) const LOCAL_CONNECT: Duration = Duration::from_secs(2);

/// How long a connection to the developer's server waits for its next request.
///
/// Well below every server's own limit (gunicorn 2 s, Node.js 5 s), and short enough for a server that serves one connection at a time.
pub(super) const LOCAL_IDLE: Duration = Duration::from_millis(200);

/// How long a connection to the developer's server is used for new requests.
///
/// Then others that wait for one of the server's threads have their turn.
pub(super) const LOCAL_USE: Duration = Duration::from_secs(1);

/// Connections to the developer's server that may wait at once.
pub(super) const LOCAL_IDLE_COUNT: usize = 64;

const MIB: u32 = 1024 * 1024;
