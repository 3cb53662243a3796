//! The `Intercept` resource: what a developer asks for, and what the controller says about it. Its schema bounds every list and text; what they mean is checked by the controller.

use intercept_core::{Intercept as Entry, MatchBaggage, MatchHeader, MatchPath};
use jiff::Timestamp;
use kube::{CustomResource, CustomResourceExt, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::kind::Kind;
use super::object::Object;
use crate::cluster;

/// The longest lease, in seconds. The filter takes none that is longer unless the operator allows it.
pub const MAX_LEASE_SECONDS: u32 = 86_400;

/// The shortest lease, in seconds: it has to outlive a pause of the controller.
pub const MIN_LEASE_SECONDS: u32 = 300;

/// One developer's intercept of one workload, in the workload's namespace.
///
/// Only `renewTime` can be changed after creation.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "injector.dev",
    version = "v1alpha1",
    kind = "Intercept",
    namespaced,
    status = "InterceptStatus",
    derive = "PartialEq",
    doc = "A developer's intercept: requests to a workload that match go to the developer's machine.",
    selectable = ".spec.owner",
    selectable = ".spec.workload.name",
    printcolumn(name = "Workload", type_ = "string", json_path = ".spec.workload.name"),
    printcolumn(name = "Port", type_ = "integer", json_path = ".spec.port"),
    printcolumn(name = "Owner", type_ = "string", json_path = ".spec.owner"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Accepted")].reason"#
    ),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Programmed")].status"#
    ),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.expires"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')")
        .message("metadata.name: must be a DNS label (lower-case letters, digits and '-', at most 63)")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "self.owner == oldSelf.owner && self.workload == oldSelf.workload && self.port == oldSelf.port && \
         self.match == oldSelf.match && self.tunnel == oldSelf.tunnel && self.leaseSeconds == oldSelf.leaseSeconds && \
         has(self.allowOverlap) == has(oldSelf.allowOverlap) && (!has(self.allowOverlap) || self.allowOverlap == oldSelf.allowOverlap)"
    ).message("spec is immutable except for renewTime")
)]
pub struct InterceptSpec {
    /// The user who creates it, as the API server names them; an admission policy compares the two.
    #[schemars(length(min = 1, max = 253))]
    pub owner: String,
    /// The workload whose requests are intercepted.
    pub workload: WorkloadRef,
    /// The container port whose requests are intercepted.
    #[schemars(range(min = 1, max = 65_535), extend("format" = "int32"))]
    pub port: u16,
    /// Which requests. All conditions must be met.
    pub r#match: Match,
    /// Where they go.
    pub tunnel: Tunnel,
    /// How long the intercept lives after `renewTime` last changed, in seconds.
    #[schemars(range(min = MIN_LEASE_SECONDS, max = MAX_LEASE_SECONDS), extend("format" = "int32"))]
    pub lease_seconds: u32,
    /// Changed by the developer's command to renew the lease; only the change counts, by the controller's clock. Without it the lease is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40), extend("format" = "date-time"))]
    pub renew_time: Option<String>,
    /// Accept it although an older intercept can match the same requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_overlap: Option<bool>,
}

/// A workload in the same namespace.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkloadRef {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub name: String,
}

impl WorkloadRef {
    /// `Deployment/orders`.
    pub fn label(&self) -> String {
        format!("{}/{}", self.kind.name(), self.name)
    }
}

/// The conditions of an intercept.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
pub struct Match {
    /// Header conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub headers: Vec<Header>,
    /// Conditions on members of the W3C `baggage` header.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub baggage: Vec<Baggage>,
    /// The condition on the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Path>,
}

/// A header has a value that a regex matches entirely.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its name, in any case.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// The regex.
    #[schemars(length(min = 1, max = 1024))]
    pub value: String,
}

/// A member of the `baggage` header has a value that a regex matches entirely.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Baggage {
    /// Its key.
    #[schemars(length(min = 1, max = 256))]
    pub key: String,
    /// The regex.
    #[schemars(length(min = 1, max = 1024))]
    pub value: String,
}

/// A condition on the path, without the query string.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// The whole path.
    Equal(#[schemars(length(min = 1, max = 2048))] String),
    /// How the path begins.
    Prefix(#[schemars(length(min = 1, max = 2048))] String),
    /// A regex that matches the whole path.
    Regex(#[schemars(length(min = 1, max = 2048))] String),
}

/// The developer machine's tunnel.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// The number of the relay at which it ends.
    #[schemars(range(max = 63), extend("format" = "int32"))]
    pub relay: u16,
    /// Its name there: a hash of the secret that opens it.
    #[schemars(regex(pattern = "^[0-9a-f]{32}$"))]
    pub address: String,
}

/// The condition "it is in the workload's configuration".
pub const ACCEPTED: &str = "Accepted";

/// The condition "the proxies of all ready replicas have it".
pub const PROGRAMMED: &str = "Programmed";

/// The reason of [`PROGRAMMED`] where the API server refuses what the controller writes for it.
pub const WRITE_REFUSED: &str = "WriteRefused";

/// What the controller says about an intercept.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct InterceptStatus {
    /// `Accepted`: it is in the workload's configuration. `Programmed`: the proxies of all ready replicas have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The end of the lease by the controller's clock, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub expires: Option<String>,
    /// The `renewTime` from which `expires` was counted: a restart of the controller prolongs no lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub observed_renew_time: Option<String>,
    /// How many of the workload's ready replicas have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Replicas>,
}

/// Replicas of a workload.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replicas {
    /// Those whose proxy has the intercept.
    #[schemars(extend("format" = "int32"))]
    pub programmed: u32,
    /// All that are ready and have a sidecar.
    #[schemars(extend("format" = "int32"))]
    pub total: u32,
}

/// A condition as Kubernetes has them (`metav1.Condition`).
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Accepted` or `Programmed`.
    #[schemars(length(max = 64))]
    pub r#type: String,
    /// `True`, `False` or `Unknown`.
    #[schemars(extend("enum" = ["True", "False", "Unknown"]))]
    pub status: String,
    /// Why, in one word.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Why, for people.
    #[schemars(length(max = 2048))]
    pub message: String,
    /// When `status` last changed, in RFC 3339.
    #[schemars(length(max = 40), extend("format" = "date-time"))]
    pub last_transition_time: String,
}

impl Intercept {
    /// Its name.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Its uid: an object of the same name made later is another one.
    pub fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    /// When it was created, in seconds since the epoch, by the API server's clock.
    pub fn created(&self) -> u64 {
        let created = self.metadata.creation_timestamp.as_ref();
        created
            .and_then(|time| u64::try_from(time.0.as_second()).ok())
            .unwrap_or(0)
    }

    /// The condition of this type, once the controller has said something of it.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.status.as_ref()?.condition(kind)
    }

    /// The condition that keeps it out of the proxies until its cause changes: it is not accepted, or cannot be written.
    pub fn obstacle(&self) -> Option<&Condition> {
        let accepted = self.condition(ACCEPTED)?;
        if accepted.status != "True" {
            return Some(accepted);
        }
        self.condition(PROGRAMMED)
            .filter(|programmed| programmed.reason == WRITE_REFUSED)
    }

    /// Why it is kept out of the proxies.
    pub fn refusal(&self) -> Option<&str> {
        self.obstacle().map(|condition| condition.message.as_str())
    }

    /// The end of its lease as the controller said it, in seconds since the epoch by the controller's clock.
    pub fn recorded_expiry(&self) -> Option<u64> {
        let expires: Timestamp = self.status.as_ref()?.expires.as_deref()?.parse().ok()?;
        u64::try_from(expires.as_second()).ok()
    }

    /// The same; before the controller has seen it, a full lease after its creation.
    pub fn expires(&self) -> u64 {
        let full = || {
            self.created()
                .saturating_add(self.spec.lease_seconds.into())
        };
        self.recorded_expiry().unwrap_or_else(full)
    }

    /// The entry that the filter is given for it, with this end of the lease in seconds since the epoch.
    pub fn entry(&self, expires: u64) -> Entry {
        let spec = &self.spec;
        let headers = spec.r#match.headers.iter().map(|header| MatchHeader {
            name: header.name.clone(),
            value: header.value.clone(),
        });
        let baggage = spec.r#match.baggage.iter().map(|member| MatchBaggage {
            key: member.key.clone(),
            value: member.value.clone(),
        });
        let path = spec.r#match.path.as_ref().map(|path| match path {
            Path::Equal(text) => MatchPath::Equal(text.clone()),
            Path::Prefix(text) => MatchPath::Prefix(text.clone()),
            Path::Regex(text) => MatchPath::Regex(text.clone()),
        });
        Entry {
            port: spec.port,
            cluster: cluster::mesh_intercept_name(spec.port, self.name(), spec.tunnel.relay),
            address: spec.tunnel.address.clone(),
            owner: spec.owner.clone(),
            created: self.created(),
            headers: headers.collect(),
            baggage: baggage.collect(),
            path,
            expires,
        }
    }
}

impl Match {
    /// The conditions of an entry.
    pub fn of(entry: &Entry) -> Self {
        let headers = entry.headers.iter().map(|header| Header {
            name: header.name.clone(),
            value: header.value.clone(),
        });
        let baggage = entry.baggage.iter().map(|member| Baggage {
            key: member.key.clone(),
            value: member.value.clone(),
        });
        let path = entry.path.as_ref().map(|path| match path {
            MatchPath::Equal(text) => Path::Equal(text.clone()),
            MatchPath::Prefix(text) => Path::Prefix(text.clone()),
            MatchPath::Regex(text) => Path::Regex(text.clone()),
        });
        Self {
            headers: headers.collect(),
            baggage: baggage.collect(),
            path,
        }
    }
}

impl InterceptStatus {
    /// The condition of this type.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|one| one.r#type == kind)
    }
}

/// The CustomResourceDefinition.
pub fn definition() -> Object {
    let mut definition = serde_json::to_value(Intercept::crd()).unwrap_or_default();
    definition["metadata"]["labels"] = super::names::labels("injector");
    remove_nulls(&mut definition);
    Object::new(
        "What a developer asks for. Generated from the type in `injector/manifest/src/istio/resource.rs`.",
        definition,
    )
    .note("/spec/versions/0/selectableFields", "`kubectl get intercepts --field-selector spec.owner=bob@example.com`, and deletion of all of one's own.")
    .note("/spec/versions/0/subresources", "What a developer sends as status is dropped.")
}

/// The API server drops a `null`, and the two sides would differ for ever.
fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(remove_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Value {
        let definition = definition();
        let version = &definition.value()["spec"]["versions"][0];
        version["schema"]["openAPIV3Schema"].clone()
    }

    /// Calls `check` for every part of the schema, with its path.
    fn walk(at: &str, schema: &Value, check: &mut impl FnMut(&str, &Value)) {
        check(at, schema);
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            walk(&format!("{at}.{name}"), property, check);
        }
        if schema["items"].is_object() {
            walk(&format!("{at}[]"), &schema["items"], check);
        }
    }

    #[test]
    fn every_list_and_text_is_bounded() {
        let mut texts = 0;
        for part in ["spec", "status"] {
            walk(
                part,
                &schema()["properties"][part],
                &mut |at, schema| match schema["type"].as_str() {
                    Some("string") => {
                        let bounds = ["maxLength", "pattern", "enum"];
                        assert!(
                            bounds.iter().any(|bound| !schema[bound].is_null()),
                            "{at}: {schema}"
                        );
                        texts += 1;
                    }
                    Some("array") => assert!(schema["maxItems"].is_u64(), "{at}: {schema}"),
                    Some("integer") => assert!(
                        schema["maximum"].is_number() || at.starts_with("status"),
                        "{at}: {schema}"
                    ),
                    Some("object") => {
                        assert!(schema["additionalProperties"].is_null(), "{at}: {schema}")
                    }
                    _ => {}
                },
            );
        }
        assert!(texts > 15, "{texts}");
    }

    #[test]
    fn every_field_but_renew_time_is_immutable() {
        let schema = schema();
        let spec = &schema["properties"]["spec"];
        let rule = spec["x-kubernetes-validations"][0]["rule"]
            .as_str()
            .unwrap();
        let required: Vec<_> = spec["required"].as_array().unwrap().iter().collect();
        for field in spec["properties"].as_object().unwrap().keys() {
            let is_compared = rule.contains(&format!("self.{field} == oldSelf.{field}"));
            assert_eq!(is_compared, field != "renewTime", "{field}");
            // Comparing a missing field is an error.
            let is_guarded = rule.contains(&format!("has(self.{field})"));
            assert!(
                field == "renewTime"
                    || is_guarded != required.contains(&&Value::from(field.as_str())),
                "{field}"
            );
        }
    }

    #[test]
    fn definition_has_status_and_selectable_fields() {
        let definition = definition();
        let version = &definition.value()["spec"]["versions"][0];
        assert!(version["subresources"]["status"].is_object());
        let fields: Vec<_> = version["selectableFields"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| &one["jsonPath"])
            .collect();
        assert_eq!(fields, [".spec.owner", ".spec.workload.name"]);
        let expires = version["additionalPrinterColumns"].as_array().unwrap();
        let expires = expires
            .iter()
            .find(|column| column["name"] == "Expires")
            .unwrap();
        // `date` prints <invalid> for times to come.
        assert_eq!(expires["type"], "string");
        assert_eq!(
            version["schema"]["openAPIV3Schema"]["x-kubernetes-validations"][0]["rule"]
                .as_str()
                .map(|rule| rule.starts_with("self.metadata.name.matches")),
            Some(true)
        );
    }
}
