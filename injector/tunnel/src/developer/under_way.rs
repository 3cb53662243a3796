//! Counts the running requests of a developer machine.
//!
//! From their arrival to the end of the response or of the WebSocket.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Response;
use http_body_util::BodyExt;

use crate::{Body, Guarded};

/// The number of running requests over all tunnels of one developer machine.
#[derive(Clone, Debug, Default)]
pub struct UnderWay(Arc<AtomicUsize>);

/// One request, counted until the last clone of this is dropped.
#[derive(Clone)]
pub(super) struct Counted {
    _one: Arc<One>,
}

struct One(UnderWay);

impl UnderWay {
    /// The current number.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one more request.
    pub(super) fn enter(&self) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted {
            _one: Arc::new(One(self.clone())),
        }
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counted {
    /// Keeps the request counted until the body of its response ends.
    pub(super) fn answer(self, response: Response<Body>) -> Response<Body> {
        let counted = |body| Guarded { body, _guard: self };
        response.map(|body| counted(body).boxed_unsync())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text_body;

    #[tokio::test]
    async fn counts_until_body_and_clones_are_dropped() {
        let under_way = UnderWay::default();
        let (one, other) = (under_way.enter(), under_way.enter());
        let socket = one.clone();
        let answer = one.answer(Response::new(text_body("hello".to_owned())));
        assert_eq!(under_way.count(), 2);
        drop(other);
        assert_eq!(under_way.count(), 1);
        assert_eq!(answer.collect().await.unwrap().to_bytes(), "hello");
        assert_eq!(under_way.count(), 1);
        drop(socket);
        assert_eq!(under_way.count(), 0);
    }
}
