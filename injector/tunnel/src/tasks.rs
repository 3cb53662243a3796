//! The tasks of hyper that send bodies. Owns a way to end such a task from within its body.
//!
//! A body that ends with an error ends its connection or stream at once, before the data that hyper holds is sent, including the response head. Dropping the
//! task instead releases its stream, which h2 then resets after the head; and while the task waits for window, nothing else can end it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use futures_util::future::{AbortHandle, Abortable};
use hyper::rt::Executor;

tokio::task_local! {
    static CURRENT: AbortHandle;
}

/// Spawns the tasks of one hyper connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tasks;

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        let (handle, registration) = AbortHandle::new_pair();
        tokio::spawn(within(handle, Abortable::new(task, registration)));
    }
}

/// Runs a future in which [`current`] returns this handle.
pub(super) fn within<F: Future>(handle: AbortHandle, future: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(handle, future)
}

/// The handle of the task that polls this, if it is one of ours.
pub(super) fn current() -> Option<AbortHandle> {
    CURRENT.try_with(Clone::clone).ok()
}

/// The state of a request body, for the rest of its request.
#[derive(Default)]
pub(super) struct Upload {
    has_ended: AtomicBool,
    /// The task that sends it. While the task waits for window, it does not poll the body.
    sending: OnceLock<AbortHandle>,
}

impl Upload {
    /// Records the polling task as the one that sends the body.
    pub(super) fn sending(&self) {
        if let Some(task) = current().filter(|_| self.sending.get().is_none()) {
            let _ = self.sending.set(task);
        }
    }

    /// Records that all of the body was read.
    pub(super) fn ended(&self) {
        self.has_ended.store(true, Relaxed);
    }

    /// Was all of the body read?
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Relaxed)
    }

    /// Stops sending the body, wherever it stands.
    pub(super) fn stop(&self) {
        if let Some(sending) = self.sending.get() {
            sending.abort();
        }
    }
}
