//! Names: the cluster's are answered by the cluster, all others by the host's resolvers. Messages pass as they are.

mod cache;
mod host;
mod message;
mod resolver;
mod server;

pub use self::resolver::{Resolver, Transport};
pub use self::server::{serve_datagrams, serve_listener, serve_stream};
