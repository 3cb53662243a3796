//! Who is asking, and what they may do. The API server decides; nothing is guessed from roles.

use serde_json::{Value, json};

use super::{Cluster, ClusterError, Kind, kind, request};

/// Something that a user may or may not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Right<'a> {
    /// `get`, `create`, …
    pub verb: &'a str,
    /// On objects of this kind.
    pub kind: &'a Kind,
    /// `portforward` of a pod, for instance.
    pub subresource: Option<&'a str>,
    /// In this namespace; in all of them without one.
    pub namespace: Option<&'a str>,
    /// On the object of this name; on all of them without one.
    pub name: Option<&'a str>,
}

/// The caller's identity according to the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user's name.
    pub name: String,
    /// The user's groups.
    pub groups: Vec<String>,
}

impl<'a> Right<'a> {
    /// To do this to objects of this kind in this namespace.
    pub fn new(verb: &'a str, kind: &'a Kind, namespace: Option<&'a str>) -> Self {
        Self {
            verb,
            kind,
            subresource: None,
            namespace,
            name: None,
        }
    }

    /// On the object of this name only.
    pub fn on(self, name: &'a str) -> Self {
        let name = Some(name);
        Self { name, ..self }
    }

    /// On this subresource.
    pub fn of(self, subresource: &'a str) -> Self {
        let subresource = Some(subresource);
        Self {
            subresource,
            ..self
        }
    }

    fn review(&self) -> Value {
        json!({
            "apiVersion": kind::SELF_SUBJECT_ACCESS_REVIEW.api_version(),
            "kind": kind::SELF_SUBJECT_ACCESS_REVIEW.name,
            "spec": {"resourceAttributes": {
                "verb": self.verb,
                "group": self.kind.group,
                "resource": self.kind.plural,
                "subresource": self.subresource.unwrap_or_default(),
                "namespace": self.namespace.unwrap_or_default(),
                "name": self.name.unwrap_or_default(),
            }},
        })
    }
}

/// As it stands in a sentence: `create envoyfilters in shop`.
impl std::fmt::Display for Right<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} {}", self.verb, self.kind.plural)?;
        if let Some(subresource) = self.subresource {
            write!(f, "/{subresource}")?;
        }
        if let Some(name) = self.name {
            write!(f, " {name}")?;
        }
        match self.namespace {
            Some(namespace) => write!(f, " in {namespace}"),
            None => Ok(()),
        }
    }
}

impl Cluster {
    /// May the caller do this?
    pub async fn can(&self, right: &Right<'_>) -> Result<bool, ClusterError> {
        let answer = self
            .ask(
                &kind::SELF_SUBJECT_ACCESS_REVIEW,
                right.to_string(),
                &right.review(),
            )
            .await?;
        Ok(answer.pointer("/status/allowed") == Some(&Value::Bool(true)))
    }

    /// Who the caller is.
    pub async fn whoami(&self) -> Result<User, ClusterError> {
        let kind = &kind::SELF_SUBJECT_REVIEW;
        let review = json!({"apiVersion": kind.api_version(), "kind": kind.name});
        let answer = self.ask(kind, "who am I".to_owned(), &review).await?;
        let info = |key: &str| &answer["status"]["userInfo"][key];
        let groups = info("groups").as_array().into_iter().flatten();
        Ok(User {
            name: info("username").as_str().unwrap_or_default().to_owned(),
            groups: groups
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
        })
    }

    async fn ask(&self, kind: &Kind, what: String, review: &Value) -> Result<Value, ClusterError> {
        let data = review.to_string().into_bytes();
        let built = request(kind, None).create(&kube::core::params::PostParams::default(), data);
        self.send(kind, what, built).await
    }
}
