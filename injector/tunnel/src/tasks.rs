//! The tasks of hyper that carry bodies. Owns a way to end such a task from within the body that it carries.
//!
//! A body that ends in an error ends its connection or its stream at once, before what hyper was given of it went out, the answer's head included. A task that
//! is dropped lets go of its stream, which h2 then resets behind the head; and while it waits for window, nothing else can end it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use futures_util::future::{AbortHandle, Abortable};
use hyper::rt::Executor;

tokio::task_local! {
    static CURRENT: AbortHandle;
}

/// Spawns the tasks of one of hyper's connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tasks;

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        let (handle, registration) = AbortHandle::new_pair();
        tokio::spawn(within(handle, Abortable::new(task, registration)));
    }
}

/// Runs a future in which [`current`] is this handle.
pub(super) fn within<F: Future>(handle: AbortHandle, future: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(handle, future)
}

/// Ends the task that polls this, if it is one of ours.
pub(super) fn current() -> Option<AbortHandle> {
    CURRENT.try_with(Clone::clone).ok()
}

/// A request's body as the rest of its request knows it.
#[derive(Default)]
pub(super) struct Upload {
    has_ended: AtomicBool,
    /// The task that sends it. While it waits for window, it asks the body for nothing.
    sending: OnceLock<AbortHandle>,
}

impl Upload {
    /// The body is asked for data: the connection that asks sends it.
    pub(super) fn sending(&self) {
        if let Some(task) = current().filter(|_| self.sending.get().is_none()) {
            let _ = self.sending.set(task);
        }
    }

    /// All of it was read.
    pub(super) fn ended(&self) {
        self.has_ended.store(true, Relaxed);
    }

    /// Whether all of it was read.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Relaxed)
    }

    /// Sends no more of it, wherever it stands.
    pub(super) fn stop(&self) {
        if let Some(sending) = self.sending.get() {
            sending.abort();
        }
    }
}
