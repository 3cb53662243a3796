//! The API server: the only place that talks to it. Objects come and go as JSON; what they mean is known elsewhere.

pub mod access;
mod connect;
mod credentials;
mod error;
mod flags;
pub mod guarded;
pub mod kind;
mod patience;
mod portforward;

use std::sync::Arc;
use std::time::Duration;

use intercept_tunnel::with_causes;
use kube::core::Request;
use kube::core::params::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use credentials::Credentials;
pub use error::ClusterError;
pub use flags::KubeFlags;
pub use kind::Kind;
use patience::{PATIENCE, Patience};

/// An answer takes this long at most; then the API server counts as away.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Objects per page of a list.
const PAGE: u32 = 500;

/// A cluster, by way of its API server. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    credentials: Credentials,
    default_namespace: String,
    context_name: String,
    server: String,
    fingerprint: String,
    /// As the command line chose it, but the namespace is the context's own.
    chosen: KubeFlags,
    patience: Option<Arc<Patience>>,
}

/// How an object is applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Apply {
    /// Take fields over that another manager owns.
    pub force: bool,
    /// Check everything, keep nothing.
    pub dry_run: bool,
}

impl Cluster {
    /// The namespace where nothing else is said.
    pub fn namespace(&self) -> &str {
        &self.default_namespace
    }

    /// The flags that choose this API server and this namespace of it. The context's own namespace is left out.
    pub fn flags(&self, namespace: Option<&str>) -> KubeFlags {
        let own = self.chosen.namespace.as_deref();
        let namespace = namespace.filter(|namespace| Some(*namespace) != own);
        KubeFlags {
            namespace: namespace.map(str::to_owned),
            ..self.chosen.clone()
        }
    }

    /// The name of the kubeconfig's context.
    pub fn context(&self) -> &str {
        &self.context_name
    }

    /// The API server's URL, without a slash at the end.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Tells API servers apart whose contexts have one name, by their URLs and certificate authorities. Sends no request.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The same, and while it is just coming back it is asked again for a while; `told` says so to the user. For what must not be left half done.
    pub fn patient(self, told: fn(&str)) -> Self {
        self.patient_for(told, PATIENCE)
    }

    fn patient_for(self, told: fn(&str), limit: Duration) -> Self {
        let patience = Some(Arc::new(Patience::new(told, limit)));
        Self { patience, ..self }
    }

    /// An object; `None` where there is none of this name.
    pub async fn get(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<Value>, ClusterError> {
        let what = kind.label(namespace, name);
        let request = request(kind, namespace).get(name, &GetParams::default());
        absent(self.send(kind, what, request).await)
    }

    /// All objects of a kind, of all namespaces without one; `labels` as in kubectl's `--selector`. The objects bear neither `kind` nor `apiVersion`.
    pub async fn list(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        labels: Option<&str>,
    ) -> Result<Vec<Value>, ClusterError> {
        let mut parameters = ListParams::default().limit(PAGE);
        parameters.label_selector = labels.map(str::to_owned);
        let what = kind.label_of_all(namespace);
        let page = |parameters: &ListParams| request(kind, namespace).list(parameters);
        let pages = self.pages(&what, parameters, page).await;
        pages.map_err(|error| missing(kind, error))
    }

    /// The items of a list, page after page.
    async fn pages(
        &self,
        what: &str,
        mut parameters: ListParams,
        page: impl Fn(&ListParams) -> Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<Vec<Value>, ClusterError> {
        let mut items = Vec::new();
        loop {
            let mut page = self.answer(what, page(&parameters)).await?;
            if let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) {
                items.extend(more);
            }
            match page.pointer("/metadata/continue").and_then(Value::as_str) {
                Some(next) if !next.is_empty() => parameters.continue_token = Some(next.to_owned()),
                _ => return Ok(items),
            }
        }
    }

    /// Server-side apply; the object as it is afterwards.
    pub async fn apply(
        &self,
        object: &Value,
        field_manager: &str,
        how: Apply,
    ) -> Result<Value, ClusterError> {
        let Addressed {
            kind,
            namespace,
            name,
        } = addressed(object)?;
        let parameters = PatchParams {
            dry_run: how.dry_run,
            force: how.force,
            ..managed_by(field_manager)
        };
        let request = request(kind, namespace).patch(name, &parameters, &Patch::Apply(object));
        self.send(kind, kind.label(namespace, name), request).await
    }

    /// A new object; one of this name must not be there.
    pub async fn create(&self, object: &Value, field_manager: &str) -> Result<Value, ClusterError> {
        let Addressed {
            kind,
            namespace,
            name,
        } = addressed(object)?;
        let parameters = PostParams {
            field_manager: Some(field_manager.to_owned()),
            ..PostParams::default()
        };
        let data = object.to_string().into_bytes();
        let request = request(kind, namespace).create(&parameters, data);
        self.send(kind, kind.label(namespace, name), request).await
    }

    /// Changes single fields, all or none (RFC 6902: an array of operations). A `test` that does not hold is [`ClusterError::is_conflict`]; `None`: there is no such object.
    pub async fn patch_json(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        name: &str,
        patch: &Value,
        field_manager: &str,
    ) -> Result<Option<Value>, ClusterError> {
        let built =
            request(kind, namespace).patch(name, &managed_by(field_manager), &Patch::Merge(patch));
        // The library has a type for these patches only together with a crate that applies them, which is the API server's business.
        let built = built.map(|mut request| {
            let mime = http::HeaderValue::from_static("application/json-patch+json");
            request
                .headers_mut()
                .insert(http::header::CONTENT_TYPE, mime);
            request
        });
        absent(self.send(kind, kind.label(namespace, name), built).await)
    }

    /// Removes an object; `false`: it was not there.
    pub async fn delete(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<bool, ClusterError> {
        let request = request(kind, namespace).delete(name, &DeleteParams::background());
        let gone = self.send(kind, kind.label(namespace, name), request).await;
        Ok(absent(gone)?.is_some())
    }

    /// The library's own client, for watches: it fails when the API server is silent for longer than `read_timeout`.
    pub async fn watch_client(&self, read_timeout: Duration) -> Result<kube::Client, ClusterError> {
        let client = self.credentials.client_with(read_timeout).await;
        client.map_err(|error| self.unreachable(&error))
    }

    /// Forgets all connections: after one died without a word, others may have died with it.
    pub async fn reconnect(&self) {
        self.credentials.reconnect().await;
    }

    /// A merge patch of the status of an object.
    pub async fn patch_status(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        name: &str,
        patch: &Value,
        field_manager: &str,
    ) -> Result<Value, ClusterError> {
        let built = request(kind, namespace).patch_subresource(
            "status",
            name,
            &managed_by(field_manager),
            &Patch::Merge(patch),
        );
        self.send(kind, kind.label(namespace, name), built).await
    }

    /// The API server's clock, in seconds since the epoch: leases are counted by it and not by this machine's.
    pub async fn server_time(&self) -> Result<u64, ClusterError> {
        loop {
            match self.server_time_once().await {
                Err(error) if self.is_worth_another(&error).await => {}
                answer => return answer,
            }
        }
    }

    async fn server_time_once(&self) -> Result<u64, ClusterError> {
        let request = http::Request::get("/version").body(Vec::new());
        let request = request.map_err(|error| self.unreachable(&error))?;
        let client = self.credentials.client().await;
        let sent = client.send(request.map(kube::client::Body::from));
        let response = match tokio::time::timeout(TIMEOUT, sent).await {
            Ok(response) => response.map_err(|error| self.unreachable(&error))?,
            Err(late) => return Err(self.unreachable(&late)),
        };
        let date = response.headers().get(http::header::DATE);
        let date = date.and_then(|date| date.to_str().ok());
        date.and_then(seconds)
            .ok_or_else(|| ClusterError::Unreachable {
                server: self.server.clone(),
                reason: format!("expected a Date header with its answer, found {date:?}"),
                may_pass: false,
            })
    }

    /// The last lines that a container wrote.
    pub async fn pod_log(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        lines: u32,
    ) -> Result<String, ClusterError> {
        let what = format!("log of {}", kind::POD.label(Some(namespace), pod));
        let path = kind::POD.path(Some(namespace));
        let uri = format!("{path}/{pod}/log?container={container}&tailLines={lines}");
        let request = http::Request::get(uri).body(Vec::new());
        let request = request.map_err(|error| self.unreachable(&error))?;
        let client = self.credentials.client().await;
        match tokio::time::timeout(TIMEOUT, client.request_text(request)).await {
            Ok(Ok(text)) => Ok(text),
            Ok(Err(kube::Error::Api(status))) => Err(ClusterError::Refused { what, status }),
            Ok(Err(error)) => Err(self.unreachable(&error)),
            Err(late) => Err(self.unreachable(&late)),
        }
    }

    async fn send(
        &self,
        kind: &Kind,
        what: String,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<Value, ClusterError> {
        let answer = self.answer(&what, request).await;
        answer.map_err(|error| missing(kind, error))
    }

    /// What the API server says to it, of whatever kind. `what`: as errors name it.
    async fn answer(
        &self,
        what: &str,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<Value, ClusterError> {
        let refused = |status| ClusterError::Refused {
            what: what.to_owned(),
            status,
        };
        let request = request.map_err(|error| {
            refused(kube::core::Status::failure(&error.to_string(), "").boxed())
        })?;
        loop {
            let client = self.credentials.client().await;
            let sent = client.request::<Value>(request.clone());
            let answer = match tokio::time::timeout(TIMEOUT, sent).await {
                Ok(Ok(object)) => Ok(object),
                Ok(Err(kube::Error::Api(status))) => Err(refused(status)),
                Ok(Err(error)) => Err(self.unreachable(&error)),
                Err(late) => Err(self.unreachable(&late)),
            };
            match answer {
                Err(ClusterError::Refused { ref status, .. })
                    if status.code == 401 && self.credentials.refused().await => {}
                Err(error) if self.is_worth_another(&error).await => {}
                answer => {
                    if let (Ok(_), Some(patience)) = (&answer, &self.patience) {
                        patience.answered();
                    }
                    return answer;
                }
            }
        }
    }

    async fn is_worth_another(&self, error: &ClusterError) -> bool {
        let Some(patience) = &self.patience else {
            return false;
        };
        let client = self.credentials.client().await;
        patience.is_worthwhile(&client, error).await
    }

    fn unreachable(&self, error: &(dyn std::error::Error + 'static)) -> ClusterError {
        ClusterError::Unreachable {
            server: self.server.clone(),
            reason: with_causes(error),
            may_pass: patience::is_passing(error),
        }
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("context", &self.context_name)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

fn request(kind: &Kind, namespace: Option<&str>) -> Request {
    Request::new(kind.path(namespace))
}

/// A missing object has a name in the answer; a missing kind has not.
fn missing(kind: &Kind, error: ClusterError) -> ClusterError {
    let named = |details: &kube::core::response::StatusDetails| !details.name.is_empty();
    match error {
        ClusterError::Refused { what, status }
            if status.code == 404 && !status.details.as_ref().is_some_and(named) =>
        {
            ClusterError::NoSuchKind {
                what,
                api_version: kind.api_version(),
                kind: kind.name,
            }
        }
        error => error,
    }
}

fn managed_by(field_manager: &str) -> PatchParams {
    PatchParams {
        field_manager: Some(field_manager.to_owned()),
        ..PatchParams::default()
    }
}

fn absent(answer: Result<Value, ClusterError>) -> Result<Option<Value>, ClusterError> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(ClusterError::Refused { status, .. }) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

struct Addressed<'a> {
    kind: &'static Kind,
    namespace: Option<&'a str>,
    name: &'a str,
}

fn addressed(object: &Value) -> Result<Addressed<'_>, ClusterError> {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
    let unknown =
        || ClusterError::UnknownKind(json!([object["apiVersion"], object["kind"]]).to_string());
    Ok(Addressed {
        kind: Kind::of(object).ok_or_else(unknown)?,
        namespace: text("/metadata/namespace"),
        name: text("/metadata/name").unwrap_or_default(),
    })
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7).
fn seconds(date: &str) -> Option<u64> {
    let date = jiff::fmt::rfc2822::parse(date).ok()?;
    u64::try_from(date.timestamp().as_second()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn date_header_becomes_epoch_seconds() {
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(seconds("yesterday"), None);
    }

    #[test]
    fn missing_kind_differs_from_missing_object() {
        let status = |name: &str| {
            let details = json!({"name": name, "kind": "wasmplugins"});
            let status =
                json!({"code": 404, "message": "m", "reason": "NotFound", "details": details});
            Box::new(serde_json::from_value(status).unwrap())
        };
        let answer = |name| {
            let what = "WasmPlugin shop/x".to_owned();
            let status = status(name);
            missing(&kind::WASM_PLUGIN, ClusterError::Refused { what, status })
        };
        assert!(absent(Err(answer("x"))).unwrap().is_none());
        let error = absent(Err(answer(""))).unwrap_err().to_string();
        assert_eq!(
            error,
            "WasmPlugin shop/x: the API server has no extensions.istio.io/v1alpha1 WasmPlugin"
        );
    }
}
