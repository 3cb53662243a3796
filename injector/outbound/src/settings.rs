//! The numbers of the connection between the two ends, with where each comes from.

use std::time::Duration;

/// The version of what the two ends say to each other. Another one is refused.
pub const VERSION: u32 = 1;

/// Bytes that one stream may have under way to the developer. Throughput is this over the round trip: 39 MiB/s at 40 ms.
pub(crate) const DEVELOPER_STREAM_WINDOW: u32 = 2 * MIB;

/// Bytes that all streams may have under way to the developer. 20 readers that stall stop no other one; with 16 MiB they did.
pub(crate) const DEVELOPER_CONNECTION_WINDOW: u32 = 256 * MIB;

/// Bytes that one stream may have under way into the cluster.
pub(crate) const CLUSTER_STREAM_WINDOW: u32 = 256 * 1024;

/// Bytes that all streams of a connection may have under way into the cluster: 256 destinations that do not read.
pub(crate) const CLUSTER_CONNECTION_WINDOW: u32 = 64 * MIB;

/// 64 KiB frames cost 30 % less CPU per byte than the default of 16 KiB.
pub(crate) const FRAME: u32 = 64 * 1024;

/// Bytes that are read or sent at once.
pub(crate) const CHUNK: usize = FRAME as usize;

/// Streams that HTTP/2 allows at once. What a developer may have open is less, and answered with a reason.
pub(crate) const STREAMS: u32 = 16_384;

/// With h2's default of 20, a burst of connections that are given up drops the whole connection.
pub(crate) const PENDING_RESETS: usize = STREAMS as usize;

/// Bytes of one stream that wait for the socket.
pub(crate) const SEND_BUFFER: usize = 256 * 1024;

/// The largest header list of a request or response between the two ends, in bytes.
pub(crate) const HEADER_LIST: u32 = 16 * 1024;

/// How long the cluster's end dials.
pub const DIAL: Duration = Duration::from_secs(20);

/// How often the cluster's end asks whether a developer's intercept still lives.
pub const RECHECK: Duration = Duration::from_secs(15);

/// How long an intercept may be away before its connections are reset.
pub const ABSENCE: Duration = Duration::from_secs(60);

/// How long a new dial waits for a connection that is lost.
pub const RECONNECT: Duration = Duration::from_secs(5);

/// How long data may take to leave before the reset that follows it.
pub(crate) const FLUSH: Duration = Duration::from_secs(5);

/// The largest DNS message (RFC 1035, section 4.2.2).
pub(crate) const DNS_MESSAGE: usize = 65_535;

/// How each end shows that it lives, and takes the other for dead. Tests shorten it.
#[derive(Debug, Clone, Copy)]
pub struct Tempo {
    /// The developer's end asks something this often.
    pub beat: Duration,
    /// An end of which nothing was read for this long is dead.
    pub silence: Duration,
}

impl Default for Tempo {
    fn default() -> Self {
        Self {
            beat: Duration::from_secs(2),
            silence: Duration::from_secs(8),
        }
    }
}

const MIB: u32 = 1024 * 1024;
