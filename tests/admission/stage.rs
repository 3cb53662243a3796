//! A namespace with a prepared workload, and what is written there. Knows who bob and alice are, not what they may do.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use injector::manifest::istio::install::cluster_objects;
use injector::manifest::istio::intercept::own_cluster;
use injector::manifest::istio::{
    INSTALLER, NewIntercept, Object, Workload, example, intercept_objects, names, workload_objects,
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
    names::of_workload(&example::workload())
}

/// A namespace with a prepared workload, in which bob is a developer.
pub struct Stage {
    pub api: Api,
    pub namespace: String,
}

impl Stage {
    pub fn new(name: &str) -> Self {
        let api = Api::new();
        let install = example::install();
        for object in cluster_objects(&install).unwrap() {
            let kind = object.kind();
            if ["Namespace", "ClusterRole", "Role"].contains(&kind)
                || kind.starts_with("Validating")
            {
                api.apply(ADMIN, INSTALLER, object.value()).must_pass();
            }
        }
        let namespace = format!("{name}-{}", std::process::id());
        api.apply(
            ADMIN,
            INSTALLER,
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        )
        .must_pass();
        let stage = Self { api, namespace };
        stage.bind("injector-developer", BOB);
        for object in workload_objects(
            &install.mesh,
            &workload(&stage.namespace),
            &example::plugin(),
        )
        .unwrap()
        {
            stage
                .api
                .apply(ADMIN, INSTALLER, object.value())
                .must_pass();
        }
        stage.wait_for_policies();
        stage
    }

    pub fn bind(&self, role: &str, user: &str) {
        let name = format!("{role}-{}", user.split('@').next().unwrap());
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": name, "namespace": self.namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        });
        self.api.apply(ADMIN, INSTALLER, &binding).must_pass();
    }

    /// The API server takes a moment to know its policies, and a binding.
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

impl Drop for Stage {
    fn drop(&mut self) {
        // The namespace itself stays behind where no controller runs; nothing waits for it.
        let _ = Command::new("kubectl")
            .args(["delete", "namespace", "--wait=false", &self.namespace])
            .output();
    }
}
