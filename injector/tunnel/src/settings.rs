//! The HTTP settings of every connection of the tunnel, with where each number comes from. Owns numbers only.

use std::time::Duration;

/// Bytes one stream may have under way, and one reader that stalls may pin. Throughput on a real link is this over the round trip: 2 MiB gave 40 MB/s at 40 ms, 4 MiB 60 to 75.
pub(super) const STREAM_WINDOW: u32 = 2 * MIB;

/// Bytes all streams of a connection may have under way: as many as HTTP/2 can say (RFC 9113 §6.9.1), so that no stream ever waits for another one's reader.
/// What is pinned is bounded by [`super::memory`].
pub(super) const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// What a body pins at most whose reader stalls: its window, and the buffer of the HTTP/1.1 connection that it goes to.
pub(super) const PINNED: u64 = STREAM_WINDOW as u64 + H1_BUFFER as u64;

/// The largest window there is (RFC 9113 §6.9.1).
pub(super) const WIDEST_WINDOW: u32 = (1 << 31) - 1;

/// Tunnels that one relay takes. A workload may have 1 000 intercepts, and one of two relays may have to hold all of them.
pub(super) const TUNNELS: usize = 2_048;

/// Bytes that uploads may pin in a developer machine while the developer's server does not read them.
pub(super) const DEVELOPER_MEMORY: u64 = 512 * MIB as u64;

/// Control connections that may be open at once without having become a tunnel. Who opens them cannot be told apart: on a mesh they are all port-forwards,
/// from 127.0.0.1, and what they say of themselves is free. So all of them together are bounded, to [`CONTROL_BUFFER`] each and half a minute.
pub(super) const UNOPENED: usize = 1_024;

/// Connections to the presence port that may be open at once. All come from the relay's sidecar, so who opened them cannot be told apart.
pub(super) const QUESTIONS: usize = 256;

/// How long such a connection may last: one question and its answer.
pub(super) const QUESTION: Duration = Duration::from_secs(5);

/// Its read buffer. A question has less than 200 bytes.
pub(super) const QUESTION_BUFFER: usize = 8 * 1024;

/// The read buffer of a control connection. A request for a tunnel has less than 1 KiB.
pub(super) const CONTROL_BUFFER: usize = 16 * 1024;

/// From the upgrade of a control connection to a tunnel that takes requests. A port-forward needs several round trips.
pub(super) const OPENING: Duration = Duration::from_secs(10);

/// Tunnels of one address that take no requests any more, while some still run on them.
pub(super) const DRAINING: usize = 8;

/// 64 KiB frames cost 30 % less CPU per byte than the default of 16 KiB.
pub(super) const FRAME: u32 = 64 * 1024;

/// Streams open at once on one tunnel. What comes beyond is unavailable at once, never queued: a hot service must not hang on a busy tunnel.
pub(super) const STREAMS: u32 = 16_384;

/// With h2's default of 20 a burst of cancelled requests drops the whole tunnel.
pub(super) const PENDING_RESETS: usize = STREAMS as usize;

/// What h2 may buffer per stream on top of the windows. A larger one gained nothing.
pub(super) const SEND_BUFFER: usize = 256 * 1024;

/// The largest header list (names, values and 32 bytes each, RFC 9113 §6.5.2) that passes. Envoy's own default is 60 KiB, the relay's sidecar takes 128.
pub(super) const HEADER_LIST: usize = 256 * 1024;

/// The largest number of header fields that passes.
pub(super) const HEADER_FIELDS: usize = 1_000;

/// What an end *reads* of a header list: more than passes, so that what is too large can be answered with a mark instead of hyper's bare 431.
pub(super) const HEADER_LIST_READ: u32 = 512 * 1024;

/// What an end reads of header fields over HTTP/1.1; see [`HEADER_LIST_READ`].
pub(super) const HEADER_FIELDS_READ: usize = 4_000;

/// The read buffer of an HTTP/1.1 connection; a whole header list must fit.
pub(super) const H1_BUFFER: usize = HEADER_LIST_READ as usize;

/// How an end of a tunnel shows that it lives, and takes the other for dead. Production values by default; tests that live through hours shorten them.
#[derive(Clone, Copy, Debug)]
pub struct Tempo {
    /// Each end sends something this often.
    pub beat: Duration,
    /// A developer machine of which nothing was read for this long gets no requests that could not be repeated: two beats, and a retransmission.
    pub suspect: Duration,
    /// An end of which no byte at all was read for this long is dead.
    pub silence: Duration,
    /// Requests after which a tunnel is followed by a new one, since HTTP/2 numbers 2³⁰ of them at most.
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

/// Bytes one stream of the relay's data side may have under way. The round trip inside a cluster is far below 1 ms, so a stream needs little.
pub(super) const DATA_STREAM_WINDOW: u32 = 256 * 1024;

/// How long an HTTP/1.1 connection on the data side may idle. Above Envoy's own default of one hour: the side that sends must be the one that closes,
/// or a POST races with the close and cannot be repeated.
pub(super) const DATA_IDLE: Duration = Duration::from_secs(2 * 3_600);

/// How long a head that has begun may take on a data connection.
pub(super) const HEAD: Duration = Duration::from_secs(60);

/// How often the other kernel is asked whether it still knows a data connection on which nothing moves.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long a client that closed its connection may leave bytes unread there before it counts as gone.
pub(super) const ABANDONED: Duration = Duration::from_millis(150);

/// How long a relay that ends waits for the answers to requests that its grace period has cut off.
pub(super) const LAST_ANSWERS: Duration = Duration::from_secs(3);

/// How long what a client still sends is read and thrown away behind the last answer, until it has seen the end. Envoy gives up an upload at once when it is answered.
pub(super) const LINGER: Duration = Duration::from_secs(10);

/// What is read of a request's body that goes nowhere, to save its connection.
pub(super) const SKIP: usize = 64 * 1024;

/// How long that may take: a longer body costs the connection, and delays no fallback.
pub(super) const SKIP_TIME: Duration = Duration::from_millis(5);

/// Time for a developer's server to take a connection on the loopback; a full accept queue would otherwise hold the request, and with it the fallback, for minutes.
pub(super) const LOCAL_CONNECT: Duration = Duration::from_secs(2);

const MIB: u32 = 1024 * 1024;
