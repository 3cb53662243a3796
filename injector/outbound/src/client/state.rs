//! What is known of the connection to the cluster's end.

use std::sync::Arc;

use h2::client::SendRequest;
use tokio::task::JoinHandle;

use crate::chunk::Chunk;
use crate::config::ClusterConfig;

/// Handles of the connection that is up.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) requests: SendRequest<Chunk>,
    pub(super) config: Arc<ClusterConfig>,
}

/// What is known of the connection.
#[derive(Clone)]
pub(super) enum State {
    Away,
    Up(Live),
    Rejected,
}

/// A task that ends with its owner.
pub(super) struct AbortOnDrop<T>(pub(super) JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
