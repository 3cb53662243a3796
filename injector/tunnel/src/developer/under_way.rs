//! How many requests a developer machine is busy with: from a request's arrival to the end of its answer, or of the WebSocket that it became.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Response;
use http_body_util::BodyExt;

use crate::{Body, Guarded};

/// Counts the requests of all tunnels of one developer machine.
#[derive(Clone, Debug, Default)]
pub struct UnderWay(Arc<AtomicUsize>);

/// One request, counted until the last clone of this is dropped.
#[derive(Clone)]
pub(super) struct Counted {
    _one: Arc<One>,
}

struct One(UnderWay);

impl UnderWay {
    /// How many there are at the moment.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// One more.
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
    /// The answer, whose body is counted to its end.
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
