//! How many requests a developer machine is busy with: from a request's arrival to the end of its answer, or of the WebSocket that it became.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

use crate::tunnel::{Body, BoxError};

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
        let counted = |body| CountedBody {
            body,
            _counted: self,
        };
        response.map(|body| counted(body).boxed_unsync())
    }
}

struct CountedBody {
    body: Body,
    _counted: Counted,
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::text_body;

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
