//! gRPC without a protobuf compiler.
//!
//! The health service (unary, server stream) and the reflection service (bidirectional), both from tonic.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use http::{Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tower_service::Service;

use crate::app::{ANSWERED_BY, Body, BoxError};
use crate::endpoint::Endpoint;

/// Is this a gRPC call?
pub fn is_asked_for<B>(request: &Request<B>) -> bool {
    request
        .headers()
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Answers a call to the health or the reflection service.
pub async fn answer(request: Request<Incoming>) -> Result<Response<Body>, BoxError> {
    let response = if request.uri().path().starts_with("/grpc.health.v1.") {
        health().call(request).await?
    } else {
        let mut reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        reflection.call(request).await?
    };
    Ok(response.map(|body| body.map_err(BoxError::from).boxed_unsync()))
}

fn health() -> HealthServer<impl Health> {
    static REPORTER: OnceLock<tonic_health::server::HealthReporter> = OnceLock::new();
    let reporter = REPORTER.get_or_init(tonic_health::server::HealthReporter::new);
    HealthServer::new(tonic_health::server::HealthService::from_health_reporter(
        reporter.clone(),
    ))
}

/// A client of both services that reports which app responded.
#[derive(Debug, Clone)]
pub struct Grpc {
    origin: Uri,
    headers: MetadataMap,
    client: Client<Endpoint, tonic::body::Body>,
}

/// The result of a call: the name of the app that responded, or the status.
pub type Called = Result<String, tonic::Status>;

impl Grpc {
    /// A client that sends these headers with every call.
    pub fn new(endpoint: impl Into<Endpoint>, headers: &[(&str, &str)]) -> Self {
        let mut metadata = MetadataMap::new();
        for (name, value) in headers {
            let key = MetadataKey::from_bytes(name.to_ascii_lowercase().as_bytes());
            metadata.append(
                key.expect("a header name"),
                MetadataValue::try_from(*value).expect("a header value"),
            );
        }
        let endpoint = endpoint.into();
        let origin = format!("http://{}", endpoint.authority());
        let client = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .retry_canceled_requests(false)
            .build(endpoint);
        Self {
            origin: origin.parse().expect("an authority"),
            headers: metadata,
            client,
        }
    }

    /// The same client with another header on every call.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        let value = MetadataValue::try_from(value).expect("a header value");
        self.headers.append(name, value);
        self
    }

    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        *request.metadata_mut() = self.headers.clone();
        request
    }

    /// One message each way: requests the health of the whole server.
    pub async fn unary(&self) -> Called {
        let mut health = HealthClient::with_origin(self.client.clone(), self.origin.clone());
        let request = self.request(HealthCheckRequest {
            service: String::new(),
        });
        let response = health.check(request).await?;
        Ok(answered_by(response.metadata()))
    }

    /// Reads the first message of an endless stream.
    pub async fn server_stream(&self) -> Called {
        let mut health = HealthClient::with_origin(self.client.clone(), self.origin.clone());
        let request = self.request(HealthCheckRequest {
            service: String::new(),
        });
        let mut response = health.watch(request).await?;
        let by = answered_by(response.metadata());
        response
            .get_mut()
            .message()
            .await?
            .ok_or_else(|| tonic::Status::unknown("the stream ended without a message"))?;
        Ok(by)
    }

    /// Sends `count` questions on one stream, each after the answer to the previous one.
    ///
    /// Data flows both ways while it is open.
    pub async fn ping_pong(&self, count: usize) -> Called {
        self.converse(Duration::ZERO, |asked| asked < count).await
    }

    /// The same with a pause after each answer, while `goes_on` is true.
    pub async fn ping_pong_while(&self, pause: Duration, goes_on: &AtomicBool) -> Called {
        self.converse(pause, |_| goes_on.load(Ordering::SeqCst))
            .await
    }

    /// The same; `has_more` is called after each answer with the number of questions so far.
    pub async fn converse(
        &self,
        pause: Duration,
        mut has_more: impl FnMut(usize) -> bool,
    ) -> Called {
        let mut reflection =
            ServerReflectionClient::with_origin(self.client.clone(), self.origin.clone());
        let (questions_tx, questions_rx) = tokio::sync::mpsc::channel(1); // test → stream: one question at a time
        let question = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        questions_tx
            .try_send(question.clone())
            .expect("room for one");
        let questions = tokio_stream::wrappers::ReceiverStream::new(questions_rx);
        let response = reflection
            .server_reflection_info(self.request(questions))
            .await?;
        let by = answered_by(response.metadata());
        let mut answers = response.into_inner();
        for asked in 1.. {
            let answer = answers.next().await;
            answer.ok_or_else(|| tonic::Status::unknown(format!("ended after {asked}")))??;
            if !has_more(asked) {
                break;
            }
            tokio::time::sleep(pause).await;
            // Fails if the call has ended, which the next answer will show.
            let _ = questions_tx.try_send(question.clone());
        }
        drop(questions_tx);
        match answers.next().await {
            None => Ok(by),
            Some(more) => Err(more
                .err()
                .unwrap_or_else(|| tonic::Status::unknown("one answer too many"))),
        }
    }
}

fn answered_by(metadata: &MetadataMap) -> String {
    metadata
        .get(ANSWERED_BY)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("nobody")
        .to_owned()
}
