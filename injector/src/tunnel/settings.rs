//! The HTTP settings of every connection of the tunnel, with where each number comes from. Owns numbers only.

use std::time::Duration;

/// Bytes one stream may have under way. Throughput on a real link is this over the round trip: 4 MiB gave 70 MB/s at 40 ms, 64 KiB gave 1 MB/s.
pub(super) const STREAM_WINDOW: u32 = 4 * MIB;

/// The same in a tunnel with this connection window: at most a quarter of it, so that one reader that stalls never holds up the others.
pub(super) fn stream_window(connection: u32) -> u32 {
    (connection / 4).min(STREAM_WINDOW)
}

/// Bytes all streams of one tunnel may have under way. 16 times a stream's, so that a few readers that stall do not block the others.
pub(super) const CONNECTION_WINDOW: u32 = 64 * MIB;

/// The least connection window a tunnel is opened with, when many are open: HTTP/2's own (RFC 9113 §6.9.2), which no peer can be asked to go below.
pub(super) const LEAST_WINDOW: u32 = 64 * 1024;

/// The largest window there is (RFC 9113 §6.9.1).
pub(super) const WIDEST_WINDOW: u32 = (1 << 31) - 1;

/// Tunnels that one relay takes. A workload may have 1 000 intercepts, and one of two relays may have to hold all of them.
pub(super) const TUNNELS: u32 = 2_048;

/// Control connections that may be open at once without having become a tunnel. Who opens them cannot be told apart: on a mesh they are all port-forwards,
/// from 127.0.0.1, and what they say of themselves is free. So all of them together are bounded, to [`CONTROL_BUFFER`] each and half a minute.
pub(super) const UNOPENED: usize = 1_024;

/// The read buffer of a control connection. A request for a tunnel has less than 1 KiB.
pub(super) const CONTROL_BUFFER: usize = 16 * 1024;

/// From the upgrade of a control connection to a tunnel that takes requests. A port-forward needs several round trips.
pub(super) const OPENING: Duration = Duration::from_secs(10);

/// Tunnels of one address that take no requests any more, while some still run on them.
pub(super) const DRAINING: usize = 8;

/// The memory beyond everybody's least is spent as if this many more tunnels were to come: of 1 GiB, the first gets the whole of [`CONNECTION_WINDOW`],
/// 40 tunnels get [`STREAM_WINDOW`] or more each, 90 get 1 MiB or more.
pub(super) const WIDE_TUNNELS: u32 = 14;

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

/// Windows of the relay's data side. The round trip inside a cluster is far below 1 ms, so a stream needs little; the connection has room for 256 stalled streams.
pub(super) const DATA_STREAM_WINDOW: u32 = 256 * 1024;

/// See [`DATA_STREAM_WINDOW`].
pub(super) const DATA_CONNECTION_WINDOW: u32 = 64 * MIB;

/// How long an HTTP/1.1 connection on the data side may idle. Above Envoy's own default of one hour: the side that sends must be the one that closes,
/// or a POST races with the close and cannot be repeated.
pub(super) const DATA_IDLE: Duration = Duration::from_secs(2 * 3_600);

/// What is read and thrown away of a request's body after an early answer: Envoy's retry buffer, so whatever it could still repeat.
pub(super) const DRAIN: usize = MIB as usize;

/// How long such a body is read at most.
pub(super) const DRAIN_TIME: Duration = Duration::from_secs(10);

/// Time for a developer's server to take a connection on the loopback; a full accept queue would otherwise hold the request, and with it the fallback, for minutes.
pub(super) const LOCAL_CONNECT: Duration = Duration::from_secs(2);

const MIB: u32 = 1024 * 1024;
