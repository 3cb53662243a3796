//! An API server with Intercepts, one controller for all tests that run at the same time, and namespaces with a prepared workload.

use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use intercept_manifest::istio::{Kind, Workload, example, names, workload_objects};
use serde_json::{Value, json};

use super::super::rbac;
use super::super::server::Server;
use super::super::support::Running;
use super::proxies::Proxies;

/// How long anything may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// The WasmPlugin of the workload.
pub const PLUGIN: &str = "injector-deployment-orders";

/// The server with its controller.
pub struct Control {
    pub server: Server,
}

/// That which other tests use at the moment, or a new one.
pub fn control() -> Arc<Control> {
    static SHARED: Mutex<Weak<Control>> = Mutex::new(Weak::new());
    let mut shared = SHARED
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(control) = shared.upgrade() {
        return control;
    }
    let control = Arc::new(Control::start(Server::bare()));
    *shared = Arc::downgrade(&control);
    control
}

impl Control {
    pub fn start(server: Server) -> Self {
        server.install();
        server.start_controller();
        Self { server }
    }

    /// One more, beside the one that runs.
    pub fn another_controller(&self) -> Running {
        self.server.another_controller()
    }

    /// Kills the controller.
    pub fn stop(&self) {
        self.server.stop_controller();
    }

    /// Kills the controller, does something meanwhile, and starts another one.
    pub fn restart(&self, meanwhile: impl FnOnce()) {
        self.stop();
        meanwhile();
        self.server.start_controller();
    }
}

/// A namespace with a prepared workload of two replicas, where bob and alice are developers.
pub struct Shop {
    pub control: Arc<Control>,
    pub namespace: String,
    pub proxies: Proxies,
}

impl Shop {
    pub fn new(namespace: &str) -> Self {
        Self::on(control(), namespace)
    }

    pub fn on(control: Arc<Control>, namespace: &str) -> Self {
        let mesh = example::install().mesh;
        let shop = Self {
            proxies: Proxies::start(&control.server, namespace),
            namespace: namespace.to_owned(),
            control,
        };
        let mut objects = Server::namespace_objects(namespace).to_vec();
        let prepared = workload_objects(&mesh, &shop.workload(), &example::plugin());
        let prepared = prepared.expect("rendered").into_iter();
        // The gate is no business of the controller's.
        let prepared = prepared.filter(|object| object.kind() != "EnvoyFilter");
        objects.extend(prepared.map(|object| object.value().clone()));
        for user in ["bob", "alice"] {
            objects.push(rbac::binding(
                namespace,
                user,
                "ClusterRole",
                "injector-developer",
            ));
        }
        shop.server().apply_all(&objects);
        shop.proxies.run(shop.server(), namespace);
        shop
    }

    pub fn server(&self) -> &Server {
        &self.control.server
    }

    fn workload(&self) -> Workload {
        Workload {
            namespace: self.namespace.clone(),
            ..example::workload()
        }
    }

    /// kubectl as this user, in this namespace. Did it work, and what was said?
    pub fn kubectl(&self, user: &str, arguments: &[&str], input: Option<&Value>) -> (bool, String) {
        let kubeconfig = match user {
            "controller" => self.control.server.account(),
            user => self.server().kubeconfig(user, &self.namespace),
        };
        let kubeconfig = kubeconfig.to_str().expect("a path");
        let flags = ["--kubeconfig", kubeconfig, "-n", &self.namespace];
        self.server().kubectl(&[&flags, arguments].concat(), input)
    }

    #[track_caller]
    pub fn must(&self, user: &str, arguments: &[&str], input: Option<&Value>) -> String {
        let (passed, text) = self.kubectl(user, arguments, input);
        assert!(passed, "{user}: kubectl {arguments:?}: {text}");
        text
    }

    #[track_caller]
    pub fn create(&self, user: &str, intercept: &Value) {
        self.must(user, &["create"], Some(intercept));
    }

    pub fn get(&self, name: &str) -> Option<Value> {
        self.server().object(&self.namespace, "intercept", name)
    }

    pub fn plugin(&self) -> Value {
        self.server().get(&self.namespace, "wasmplugin", PLUGIN)
    }

    pub fn text(&self) -> String {
        let plugin = self.plugin();
        let text = &plugin["spec"]["pluginConfig"]["intercepts"];
        text.as_str().unwrap_or_default().to_owned()
    }

    /// The EnvoyFilter of the intercept of [`intercept`] of this name.
    pub fn filter(&self, name: &str) -> Option<Value> {
        self.server()
            .object(&self.namespace, "envoyfilter", &filter_name(name))
    }

    /// Waits until a condition has this status and reason; its message.
    #[track_caller]
    pub fn until(&self, name: &str, kind: &str, expected: &str) -> String {
        let mut found = String::new();
        let mut message = String::new();
        self.wait(&format!("{name}: {kind}: {expected}"), || {
            let status = self.get(name).unwrap_or_default()["status"].clone();
            let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
            let condition = conditions
                .into_iter()
                .find(|one| one["type"] == kind)
                .unwrap_or_default();
            let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
            found = format!("{} {}", text("status"), text("reason"));
            message = text("message");
            (found == expected)
                .then_some(())
                .ok_or_else(|| format!("{found}: {message}"))
        });
        message
    }

    #[track_caller]
    pub fn wait<T>(&self, what: &str, mut check: impl FnMut() -> Result<T, String>) -> T {
        let until = Instant::now() + DEADLINE;
        loop {
            match check() {
                Ok(value) => return value,
                Err(found) => assert!(Instant::now() < until, "{what}: {found}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// What the EnvoyFilter of the intercept of [`intercept`] of this name is called.
pub fn filter_name(name: &str) -> String {
    names::of_intercept(name, (Kind::Deployment, "orders"), 8080, 0)
}

/// An Intercept of `Coder: NAME`, with a tunnel of its own: two of one test that have name and owner in common share it.
pub fn intercept(name: &str, owner: &str) -> Value {
    let test = std::thread::current().name().map(str::to_owned);
    let address =
        intercept_manifest::digest::sha256(format!("{name} {owner} {test:?}"))[..32].to_owned();
    json!({
        "apiVersion": "injector.dev/v1alpha1",
        "kind": "Intercept",
        "metadata": {"name": name},
        "spec": {
            "owner": owner,
            "workload": {"kind": "Deployment", "name": "orders"},
            "port": 8080,
            "match": {"headers": [{"name": "Coder", "value": name}]},
            "tunnel": {"relay": 0, "address": address},
            "leaseSeconds": 3600,
            "renewTime": "2026-11-30T09:00:00Z",
        },
    })
}

/// The same with one field of the spec changed; `null` removes it.
pub fn with(mut intercept: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    let key = &key.replace("~1", "/");
    let parent = intercept.pointer_mut(parent).expect("a parent");
    match value {
        Value::Null => drop(parent.as_object_mut().expect("a map").remove(key)),
        value => parent[key] = value,
    }
    intercept
}
