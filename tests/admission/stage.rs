//! A namespace with a prepared workload, and what is written there. Knows who bob and alice are, not what they may do.

use std::process::Command;
use std::sync::Once;
use std::time::{SystemTime, UNIX_EPOCH};

use injector::manifest::istio::install::cluster_objects;
use injector::manifest::istio::intercept::own_cluster;
use injector::manifest::istio::{
    INSTALLER, NewIntercept, Object, Workload, example, intercept_objects, workload_objects,
};
use intercept_core::Intercept;
use serde_json::{Value, json};

use super::api::{ADMIN, Api, BOB, Outcome};

pub const ALICE: &str = "alice@example.com";
pub const FOREIGN: &str = "spec.pluginConfig.intercepts: only your own entries may be removed";
pub const HOUR: u64 = 3600;

pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

pub fn workload(namespace: &str) -> Workload {
    Workload {
        namespace: namespace.to_owned(),
        ..example::workload()
    }
}

pub fn entry(name: &str, owner: &str) -> Intercept {
    Intercept {
        cluster: own_cluster(name, example::entry().port),
        owner: owner.to_owned(),
        created: now() - HOUR,
        expires: now() + HOUR,
        ..example::entry()
    }
}

/// What `injector intercept` applies, in its order.
pub fn objects(namespace: &str, name: &str, entry: &Intercept) -> Vec<Object> {
    let new = NewIntercept {
        name,
        entry,
        relay: 0,
    };
    intercept_objects(&example::install().mesh, &workload(namespace), new).unwrap()
}

/// The EnvoyFilter that `injector intercept` applies.
pub fn cluster(namespace: &str, name: &str, entry: &Intercept) -> Value {
    objects(namespace, name, entry)[0].value().clone()
}

pub fn plugin() -> String {
    example::workload().object_name()
}

/// Namespace, verb, resource, subresource.
type Right<'a> = (&'a str, &'a str, &'a str, &'a str);

/// A namespace with a prepared workload, in which bob is a developer.
pub struct Stage {
    pub api: Api,
    pub namespace: String,
}

impl Stage {
    pub fn new(name: &str) -> Self {
        static CLUSTER_PART: Once = Once::new();
        static POLICIES: Once = Once::new();
        let stage = Self {
            api: Api::new(),
            namespace: format!("{name}-{}", std::process::id()),
        };
        CLUSTER_PART.call_once(|| stage.apply_cluster_part());
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": stage.namespace}});
        let workload = workload(&stage.namespace);
        let objects =
            workload_objects(&example::install().mesh, &workload, &example::plugin()).unwrap();
        let mut all = vec![namespace, stage.binding("injector-developer", BOB)];
        all.extend(objects.iter().map(|object| object.value().clone()));
        stage.apply_all(&all);
        stage.wait_for_role();
        POLICIES.call_once(|| stage.wait_for_policies());
        stage
    }

    /// Once a process: the tests share it.
    fn apply_cluster_part(&self) {
        let objects = cluster_objects(&example::install()).unwrap();
        let about_rights = objects.iter().filter(|object| {
            let kind = object.kind();
            ["Namespace", "ClusterRole", "Role"].contains(&kind) || kind.starts_with("Validating")
        });
        let objects: Vec<Value> = about_rights.map(|object| object.value().clone()).collect();
        self.apply_all(&objects);
    }

    fn apply_all(&self, objects: &[Value]) {
        self.api.apply_all(ADMIN, INSTALLER, objects).must_pass();
    }

    pub fn bind(&self, role: &str, user: &str) {
        self.apply_all(&[self.binding(role, user)]);
    }

    fn binding(&self, role: &str, user: &str) -> Value {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": format!("{role}-{}", first_name(user)), "namespace": self.namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        })
    }

    /// Binds this user to the Role of this name in the relays' namespace, for as long as the guard lives.
    pub fn bind_beside_the_relays(&self, role: &str, user: &str) -> Bound<'_> {
        let mut binding = self.binding(role, user);
        let name = format!("{}-{}", first_name(user), self.namespace);
        let namespace = example::install().mesh.namespace;
        binding["metadata"] = json!({"name": name, "namespace": namespace});
        binding["roleRef"]["kind"] = json!("Role");
        self.apply_all(&[binding]);
        Bound {
            api: &self.api,
            namespace,
            name,
        }
    }

    /// The API server takes a moment to know a binding.
    fn wait_for_role(&self) {
        let may = |verb, resource| self.api.can(BOB, &self.namespace, verb, resource, None);
        self.api.until("bob is a developer", || {
            may("patch", "wasmplugins.extensions.istio.io")
                && may("delete", "envoyfilters.networking.istio.io")
        });
    }

    /// And to know its policies.
    fn wait_for_policies(&self) {
        self.api.until("the policies for entries are in force", || {
            self.patch(
                BOB,
                "merge",
                &json!({"spec": {"url": "http://evil/x.wasm"}}),
                true,
            )
            .is_refused("nothing of a WasmPlugin but")
        });
        let mut foreign = cluster(&self.namespace, "foreign", &entry("foreign", BOB));
        foreign["metadata"]["name"] = json!("foreign");
        self.api
            .until("the policies for clusters are in force", || {
                self.api
                    .try_apply(BOB, "foreign", &foreign)
                    .is_refused("a developer may write only EnvoyFilters `intercept-NAME`")
            });
        self.api.until("the policy for deletions is in force", || {
            self.delete(BOB, &plugin(), true)
                .is_refused("a developer may delete only EnvoyFilters of intercepts")
        });
        let probe = cluster(&self.namespace, "alice-probe", &entry("alice-probe", ALICE));
        self.api.apply(ADMIN, "alice-probe", &probe).must_pass();
        self.api
            .until("the policy for leftover clusters is in force", || {
                self.delete(BOB, "intercept-alice-probe", true)
                    .is_refused("only your own EnvoyFilters may be deleted")
            });
        self.delete(ADMIN, "intercept-alice-probe", false)
            .must_pass();
        self.put("alice-probe", &entry("alice-probe", ALICE));
        self.api
            .until("the policy for leftover entries is in force", || {
                self.remove(BOB, "alice-probe", true).is_refused(FOREIGN)
            });
        self.remove(ADMIN, "alice-probe", false).must_pass();
    }

    /// Asks the API server for each: namespace, verb, resource, subresource or nothing.
    #[track_caller]
    pub fn check_rights(&self, user: &str, given: &[Right<'_>], refused: &[Right<'_>]) {
        let may = |(namespace, verb, resource, part): &Right<'_>| {
            let part = Some(*part).filter(|part| !part.is_empty());
            self.api.can(user, namespace, verb, resource, part)
        };
        let missing: Vec<_> = given.iter().filter(|right| !may(right)).collect();
        let too_much: Vec<_> = refused.iter().filter(|right| may(right)).collect();
        assert!(
            missing.is_empty() && too_much.is_empty(),
            "{user}: missing: {missing:?}, too much: {too_much:?}"
        );
    }

    /// An entry that is simply there.
    pub fn put(&self, name: &str, entry: &Intercept) {
        self.patch(
            ADMIN,
            "merge",
            &json!({"spec": {"pluginConfig": {"intercepts": {name: entry}}}}),
            false,
        )
        .must_pass();
    }

    pub fn patch(&self, user: &str, kind: &str, patch: &Value, is_dry: bool) -> Outcome {
        self.api.patch(
            user,
            &self.namespace,
            "wasmplugin",
            &plugin(),
            kind,
            patch,
            is_dry,
        )
    }

    /// As `leave` does: the address is tested first.
    pub fn remove(&self, user: &str, name: &str, is_dry: bool) -> Outcome {
        let path = format!("/spec/pluginConfig/intercepts/{name}");
        let patch = json!([
            {"op": "test", "path": format!("{path}/address"), "value": example::entry().address},
            {"op": "remove", "path": path},
        ]);
        self.patch(user, "json", &patch, is_dry)
    }

    pub fn delete(&self, user: &str, envoy_filter: &str, is_dry: bool) -> Outcome {
        self.api
            .delete(user, &self.namespace, "envoyfilter", envoy_filter, is_dry)
    }

    /// A map without entries is the same as none.
    pub fn spec(&self) -> Value {
        let mut spec = self.api.get(&self.namespace, "wasmplugin", &plugin())["spec"].clone();
        let config = spec["pluginConfig"].as_object_mut().unwrap();
        config.retain(|key, value| key != "intercepts" || *value != json!({}));
        spec
    }

    pub fn intercepts(&self) -> Value {
        self.api.get(&self.namespace, "wasmplugin", &plugin())["spec"]["pluginConfig"]["intercepts"]
            .clone()
    }
}

/// A binding in the relays' namespace, which is everybody's.
pub struct Bound<'a> {
    api: &'a Api,
    namespace: String,
    name: String,
}

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        let (namespace, name) = (&self.namespace, &self.name);
        let _ = self
            .api
            .delete(ADMIN, namespace, "rolebinding", name, false);
    }
}

fn first_name(user: &str) -> &str {
    user.split('@').next().unwrap_or(user)
}

impl Drop for Stage {
    fn drop(&mut self) {
        // The namespace itself stays behind where no controller runs; nothing waits for it.
        let _ = Command::new("kubectl")
            .args(["delete", "namespace", "--wait=false", &self.namespace])
            .output();
    }
}
