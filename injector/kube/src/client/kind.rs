//! The kinds of objects that are read and written, and where the API server keeps them. A table and no discovery: the versions that are written are fixed, and a look-up would cost a round trip per kind.

use serde_json::Value;

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// The API group; empty for the core.
    pub group: &'static str,
    /// The version of the group.
    pub version: &'static str,
    /// As it stands in `kind`.
    pub name: &'static str,
    /// As it stands in URLs and in roles.
    pub plural: &'static str,
    /// Does an object of it live in a namespace?
    pub namespaced: bool,
}

macro_rules! kinds {
    ($($constant:ident = $scope:ident $group:literal $version:literal $name:literal $plural:literal;)*) => {
        $(
            #[doc = concat!("`", $name, "`")]
            pub const $constant: Kind = Kind { group: $group, version: $version, name: $name, plural: $plural, namespaced: kinds!(@ $scope) };
        )*
        /// All of them.
        pub const ALL: &[Kind] = &[$($constant),*];
    };
    (@ namespaced) => { true };
    (@ cluster) => { false };
}

kinds! {
    NAMESPACE = cluster "" "v1" "Namespace" "namespaces";
    NODE = cluster "" "v1" "Node" "nodes";
    POD = namespaced "" "v1" "Pod" "pods";
    SERVICE = namespaced "" "v1" "Service" "services";
    SERVICE_ACCOUNT = namespaced "" "v1" "ServiceAccount" "serviceaccounts";
    CONFIG_MAP = namespaced "" "v1" "ConfigMap" "configmaps";
    SECRET = namespaced "" "v1" "Secret" "secrets";
    EVENT = namespaced "" "v1" "Event" "events";
    DEPLOYMENT = namespaced "apps" "v1" "Deployment" "deployments";
    STATEFUL_SET = namespaced "apps" "v1" "StatefulSet" "statefulsets";
    DAEMON_SET = namespaced "apps" "v1" "DaemonSet" "daemonsets";
    POD_DISRUPTION_BUDGET = namespaced "policy" "v1" "PodDisruptionBudget" "poddisruptionbudgets";
    NETWORK_POLICY = namespaced "networking.k8s.io" "v1" "NetworkPolicy" "networkpolicies";
    ENDPOINT_SLICE = namespaced "discovery.k8s.io" "v1" "EndpointSlice" "endpointslices";
    ROLE = namespaced "rbac.authorization.k8s.io" "v1" "Role" "roles";
    ROLE_BINDING = namespaced "rbac.authorization.k8s.io" "v1" "RoleBinding" "rolebindings";
    CLUSTER_ROLE = cluster "rbac.authorization.k8s.io" "v1" "ClusterRole" "clusterroles";
    CLUSTER_ROLE_BINDING = cluster "rbac.authorization.k8s.io" "v1" "ClusterRoleBinding" "clusterrolebindings";
    ADMISSION_POLICY = cluster "admissionregistration.k8s.io" "v1" "ValidatingAdmissionPolicy" "validatingadmissionpolicies";
    ADMISSION_POLICY_BINDING = cluster "admissionregistration.k8s.io" "v1" "ValidatingAdmissionPolicyBinding" "validatingadmissionpolicybindings";
    CUSTOM_RESOURCE_DEFINITION = cluster "apiextensions.k8s.io" "v1" "CustomResourceDefinition" "customresourcedefinitions";
    SELF_SUBJECT_ACCESS_REVIEW = cluster "authorization.k8s.io" "v1" "SelfSubjectAccessReview" "selfsubjectaccessreviews";
    SELF_SUBJECT_REVIEW = cluster "authentication.k8s.io" "v1" "SelfSubjectReview" "selfsubjectreviews";
    INTERCEPT = namespaced "injector.dev" "v1alpha1" "Intercept" "intercepts";
    WASM_PLUGIN = namespaced "extensions.istio.io" "v1alpha1" "WasmPlugin" "wasmplugins";
    ENVOY_FILTER = namespaced "networking.istio.io" "v1alpha3" "EnvoyFilter" "envoyfilters";
    DESTINATION_RULE = namespaced "networking.istio.io" "v1" "DestinationRule" "destinationrules";
    SIDECAR = namespaced "networking.istio.io" "v1" "Sidecar" "sidecars";
    PEER_AUTHENTICATION = namespaced "security.istio.io" "v1" "PeerAuthentication" "peerauthentications";
    AUTHORIZATION_POLICY = namespaced "security.istio.io" "v1" "AuthorizationPolicy" "authorizationpolicies";
}

impl Kind {
    /// The kind of an object, by its `apiVersion` and `kind`.
    pub fn of(object: &Value) -> Option<&'static Self> {
        let text = |key| object.get(key).and_then(Value::as_str);
        let (api_version, name) = (text("apiVersion")?, text("kind")?);
        ALL.iter()
            .find(|kind| kind.name == name && kind.api_version() == api_version)
    }

    /// As it stands in `apiVersion`.
    pub fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// Where its objects are; without a namespace, those of all namespaces.
    pub(super) fn path(&self, namespace: Option<&str>) -> String {
        let prefix = match self.group {
            "" => "/api".to_owned(),
            group => format!("/apis/{group}"),
        };
        let within = match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("/namespaces/{namespace}"),
            None => String::new(),
        };
        format!("{prefix}/{}{within}/{}", self.version, self.plural)
    }

    /// `deployments in shop`, as errors name a list.
    pub(super) fn label_of_all(&self, namespace: Option<&str>) -> String {
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("{} in {namespace}", self.plural),
            None => self.plural.to_owned(),
        }
    }

    /// `Deployment shop/orders`, as errors name an object.
    pub fn label(&self, namespace: Option<&str>, name: &str) -> String {
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("{} {namespace}/{name}", self.name),
            None => format!("{} {name}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kind_of_object_by_version_and_kind() {
        let object = json!({"apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin"});
        assert_eq!(Kind::of(&object), Some(&WASM_PLUGIN));
        let other = json!({"apiVersion": "extensions.istio.io/v1", "kind": "WasmPlugin"});
        assert_eq!(Kind::of(&other), None);
    }

    #[test]
    fn paths_match_the_api_server() {
        assert_eq!(POD.path(Some("shop")), "/api/v1/namespaces/shop/pods");
        assert_eq!(POD.path(None), "/api/v1/pods");
        assert_eq!(NAMESPACE.path(Some("shop")), "/api/v1/namespaces");
        assert_eq!(
            ENVOY_FILTER.path(Some("shop")),
            "/apis/networking.istio.io/v1alpha3/namespaces/shop/envoyfilters"
        );
    }
}
