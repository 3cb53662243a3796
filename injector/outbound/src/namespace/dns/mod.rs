//! Names: the cluster's are answered by the cluster, all others by the host's resolvers. Messages pass as they are.

mod cache;
mod host;
mod message;
mod resolver;
mod server;
mod transport;

pub use self::resolver::Resolver;
pub use self::server::{serve_datagrams, serve_listener, serve_stream};
pub use self::transport::Transport;
