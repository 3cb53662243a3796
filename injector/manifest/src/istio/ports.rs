//! Where the relays and the module server listen.

/// Where a relay takes matched requests in HTTP/1.1, WebSockets included.
pub const HTTP_PORT: u16 = 8080;

/// Where a relay takes matched requests in HTTP/2, which is gRPC too.
pub const H2_PORT: u16 = 8081;

/// Where a relay takes tunnels, on its own loopback: reached by port-forward and by nothing else.
pub const CONTROL_PORT: u16 = 7070;

/// Where pods ask a relay whether a tunnel is up.
pub const PRESENCE_PORT: u16 = 7073;

/// Where developers' connections into the cluster arrive, on the pod's loopback: reached by port-forward and by nothing else.
pub const OUTBOUND_PORT: u16 = 7072;

/// Where the filter is fetched.
pub const MODULE_PORT: u16 = 8000;
