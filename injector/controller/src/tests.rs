//! The decision, case by case. The tests apply each plan to the snapshot, as the API server would.

use std::sync::Arc;

use intercept_core::{Limits, Matcher, config_hash, parse};
use intercept_manifest::istio::preparation::{ControlledPlugin, read};
use intercept_manifest::istio::resource::*;
use intercept_manifest::istio::{
    Kind, Object, Port, example, intercept_objects, names, workload_objects,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::DynamicObject;
use serde_json::{Value, json};

use super::lease::timestamp;
use super::model::{PodReport, PodState, Unwritten, Write};
use super::*;

const NOW: u64 = 1_800_000_000;
const PLUGIN: &str = "injector-deployment-orders";

struct World {
    snapshot: Snapshot,
    memory: Memory,
    created: u64,
}

impl World {
    /// The example's workload, prepared.
    fn new() -> Self {
        let mut world = Self {
            snapshot: Snapshot {
                now: NOW,
                ..Snapshot::default()
            },
            memory: Memory::default(),
            created: 0,
        };
        world.prepare("shop");
        world
    }

    fn prepare(&mut self, namespace: &str) {
        let mut workload = example::workload();
        workload.namespace = namespace.to_owned();
        let mesh = example::install().mesh;
        let objects = workload_objects(&mesh, &workload, &example::plugin()).unwrap();
        let mut object = Object::of_kind(&objects, "WasmPlugin")
            .unwrap()
            .value()
            .clone();
        object["metadata"]["uid"] = json!("plugin");
        object["metadata"]["resourceVersion"] = json!("1");
        let plugin = read(&object).unwrap().unwrap();
        self.snapshot
            .plugins
            .insert(Key::new(namespace, PLUGIN), Ok(plugin));
    }

    fn plugin(&mut self) -> &mut ControlledPlugin {
        let plugin = self.snapshot.plugins.get_mut(&Key::new("shop", PLUGIN));
        plugin.unwrap().as_mut().unwrap()
    }

    fn text(&mut self) -> String {
        self.plugin().text.clone().unwrap_or_default()
    }

    /// Creates an Intercept of bob's on `Coder: NAME`, with `change` applied.
    fn create(&mut self, name: &str, change: impl FnOnce(&mut Intercept)) {
        self.created += 1;
        let spec = InterceptSpec {
            owner: "bob@example.com".to_owned(),
            workload: WorkloadRef {
                kind: Kind::Deployment,
                name: "orders".to_owned(),
            },
            port: 8080,
            r#match: header("Coder", name),
            tunnel: Tunnel {
                relay: 0,
                address: format!("{:032x}", self.created),
            },
            lease_seconds: 3_600,
            renew_time: Some(timestamp(NOW)),
            allow_overlap: None,
        };
        let mut intercept = Intercept::new(name, spec);
        intercept.metadata.namespace = Some("shop".to_owned());
        intercept.metadata.uid = Some(format!("uid-{:04}", self.created));
        intercept.metadata.creation_timestamp =
            Some(Time(timestamp(self.snapshot.now).parse().unwrap()));
        change(&mut intercept);
        self.snapshot.intercepts.push(Arc::new(intercept));
    }

    fn place(&self, name: &str) -> usize {
        let mut intercepts = self.snapshot.intercepts.iter();
        intercepts
            .position(|one| one.metadata.name.as_deref() == Some(name))
            .unwrap()
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut Intercept)) {
        let place = self.place(name);
        change(Arc::make_mut(&mut self.snapshot.intercepts[place]));
    }

    fn delete(&mut self, name: &str) {
        let place = self.place(name);
        self.snapshot.intercepts.remove(place);
    }

    /// Decides, and applies the plan.
    fn step(&mut self) -> Plan {
        let plan = decide(&self.snapshot, &mut self.memory);
        for Write { key, body, .. } in &plan.filters {
            let filter: DynamicObject = serde_json::from_value(body.clone()).unwrap();
            self.snapshot.filters.insert(key.clone(), Arc::new(filter));
        }
        for Write { key, body, .. } in &plan.texts {
            let plugin = self
                .snapshot
                .plugins
                .get_mut(key)
                .unwrap()
                .as_mut()
                .unwrap();
            plugin.text = body
                .pointer("/spec/pluginConfig/intercepts")
                .and_then(Value::as_str)
                .map(str::to_owned);
        }
        for Write { key, body, .. } in &plan.statuses {
            let mut status = body["status"].clone();
            status
                .as_object_mut()
                .unwrap()
                .retain(|_, value| !value.is_null());
            let (name, status) = (key.name.clone(), serde_json::from_value(status).unwrap());
            let mut intercepts = self.snapshot.intercepts.iter_mut();
            let one = intercepts.find(|one| {
                one.metadata.name.as_ref() == Some(&name)
                    && one.metadata.namespace.as_ref() == Some(&key.namespace)
            });
            Arc::make_mut(one.unwrap()).status = Some(status);
        }
        for removal in &plan.ended {
            self.snapshot
                .intercepts
                .retain(|one| one.metadata.uid.as_ref() != Some(&removal.uid));
        }
        for removal in &plan.leftovers {
            self.snapshot.filters.remove(&removal.key);
        }
        plan
    }

    fn wait(&mut self, seconds: u64) {
        self.snapshot.now += seconds;
    }

    /// Waits this many seconds, and decides.
    fn after(&mut self, seconds: u64) -> Plan {
        self.wait(seconds);
        self.step()
    }

    /// Restarts the controller.
    fn restart(&mut self) {
        self.memory = Memory::default();
    }

    /// Makes two replicas report the current text as the filter reads it.
    fn propagate(&mut self) {
        let state = Ok(self.state());
        self.report(&[state.clone(), state]);
    }

    fn state(&mut self) -> PodState {
        let config =
            json!({"version": 2, "limits": self.plugin().limits, "intercepts": self.text()});
        let (config, _) = parse(config.to_string().as_bytes());
        let hash = config.hash;
        let active = Matcher::compile(config).0.active(self.snapshot.now) as u64;
        PodState { hash, active }
    }

    fn report(&mut self, states: &[Result<PodState, String>]) {
        let pods = states.iter().enumerate().map(|(number, state)| PodReport {
            name: format!("orders-{number}"),
            state: state.clone(),
        });
        let reports = Ok(pods.collect());
        self.snapshot
            .reports
            .insert(Key::new("shop", PLUGIN), reports);
    }

    fn status(&self, name: &str) -> InterceptStatus {
        self.snapshot.intercepts[self.place(name)]
            .status
            .clone()
            .unwrap_or_default()
    }

    /// Status, reason and message.
    fn condition(&self, name: &str, kind: &str) -> [String; 3] {
        let status = self.status(name);
        let condition = status
            .condition(kind)
            .cloned()
            .unwrap_or_else(|| panic!("{name}: no {kind}"));
        [condition.status, condition.reason, condition.message]
    }

    #[track_caller]
    fn assert_condition(&self, name: &str, kind: &str, expected: &str, message: &str) {
        let [status, reason, found] = self.condition(name, kind);
        assert_eq!(format!("{status} {reason}"), expected, "{name}: {found}");
        assert!(found.contains(message), "{name}: {found}");
    }

    #[track_caller]
    fn assert_accepted(&self, name: &str) {
        self.assert_condition(name, ACCEPTED, "True Accepted", "");
    }

    /// The names in the text, in its order.
    fn active(&mut self) -> Vec<String> {
        let config = json!({"version": 2, "intercepts": self.text()}).to_string();
        let (config, rejected) = parse(config.as_bytes());
        assert_eq!(rejected, []);
        config
            .intercepts
            .into_iter()
            .map(|(name, _)| name)
            .collect()
    }

    /// The name of its EnvoyFilter.
    fn filter(&self, name: &str) -> String {
        let spec = &self.snapshot.intercepts[self.place(name)].spec;
        let workload = (spec.workload.kind, spec.workload.name.as_str());
        names::of_intercept(name, workload, spec.port, spec.tunnel.relay)
    }

    fn filters(&self) -> Vec<&str> {
        self.snapshot
            .filters
            .keys()
            .map(|key| key.name.as_str())
            .collect()
    }
}

fn header(name: &str, value: &str) -> Match {
    Match {
        headers: vec![Header {
            name: name.to_owned(),
            value: value.to_owned(),
        }],
        ..Match::default()
    }
}

fn is_idle(plan: &Plan) -> bool {
    plan.filters.is_empty()
        && plan.texts.is_empty()
        && plan.statuses.is_empty()
        && plan.ended.is_empty()
        && plan.leftovers.is_empty()
}

#[test]
fn accepted_intercept_gets_entry_and_cluster() {
    let mut world = World::new();
    world.create("bob", |_| {});
    let plan = world.step();
    world.assert_accepted("bob");
    assert_eq!(world.active(), ["bob"]);
    // As `injector intercept` renders them, apart from these differences.
    let entry = parse(
        json!({"version": 2, "intercepts": world.text()})
            .to_string()
            .as_bytes(),
    )
    .0
    .intercepts
    .remove(0)
    .1;
    let plugin = world.plugin().clone();
    let asked = world.snapshot.intercepts[0].clone();
    let objects = intercept_objects(&plugin, &asked, &entry).unwrap();
    let expected = objects[1].value();
    assert_eq!(plan.filters[0].body, *expected);
    let written = &plan.texts[0].body;
    assert_eq!(
        written["spec"]["pluginConfig"]
            .as_object()
            .unwrap()
            .keys()
            .collect::<Vec<_>>(),
        ["intercepts"]
    );
    assert_eq!(written["metadata"]["uid"], "plugin");
    assert_eq!(world.status("bob").expires, Some(timestamp(NOW + 3_600)));
    assert!(is_idle(&world.step()), "nothing changed");
}

#[test]
fn nothing_is_written_without_intercepts() {
    let mut world = World::new();
    assert!(is_idle(&world.step()));
    world.create("bob", |_| {});
    world.step();
    world.delete("bob");
    world.step();
    assert_eq!(world.text(), "{}");
    assert!(is_idle(&world.step()));
}

#[test]
fn older_intercept_wins_a_conflict() {
    let mut world = World::new();
    world.create("young", |one| {
        one.spec.r#match = header("Coder", "B.*");
        one.metadata.creation_timestamp = Some(Time(timestamp(NOW + 1).parse().unwrap()));
    });
    world.create("old", |one| one.spec.r#match = header("Coder", "Bob"));
    let plan = world.step();
    world.assert_accepted("old");
    world.assert_condition(
        "young",
        ACCEPTED,
        "False Conflict",
        "old of bob@example.com matches the same requests, for example GET / with Coder: Bob",
    );
    world.assert_condition("young", PROGRAMMED, "False NotAccepted", "");
    assert_eq!(world.active(), ["old"]);
    assert_eq!(world.filters(), [world.filter("old")]);
    let events: Vec<_> = plan
        .statuses
        .iter()
        .flat_map(|write| &write.events)
        .collect();
    assert_eq!(events.len(), 2, "{events:?}");
    assert!(is_idle(&world.step()));
    // It is accepted as soon as possible.
    world.delete("old");
    world.step();
    world.assert_accepted("young");
}

#[test]
fn ties_are_broken_by_uid() {
    let mut world = World::new();
    for (name, uid) in [("first", "b"), ("second", "a")] {
        world.create(name, |one| {
            one.metadata.uid = Some(uid.to_owned());
            one.spec.r#match = header("Coder", "Bob");
        });
    }
    world.step();
    world.assert_accepted("second");
    world.assert_condition("first", ACCEPTED, "False Conflict", "second of");
}

#[test]
fn running_intercept_is_not_taken_over() {
    for is_restarted in [false, true] {
        let mut world = World::new();
        world.create("bob", |one| one.spec.r#match = header("Coder", "Bob"));
        world.step();
        if is_restarted {
            world.restart();
        }
        // Created in the same second, with a smaller uid.
        world.create("alice", |one| {
            one.metadata.uid = Some("a".to_owned());
            one.spec.r#match = header("Coder", "Bob");
        });
        world.step();
        world.assert_accepted("bob");
        world.assert_condition("alice", ACCEPTED, "False Conflict", "bob of");
    }
}

/// bob is older than carol, and lost against alice, who has left.
fn outlived() -> World {
    let mut world = World::new();
    for (name, coder) in [("alice", "a|b"), ("bob", "b|c"), ("carol", "c")] {
        world.create(name, |one| one.spec.r#match = header("Coder", coder));
    }
    world.step();
    assert_eq!(world.active(), ["alice", "carol"]);
    world.delete("alice");
    world
}

#[test]
fn running_intercept_outlasts_an_older_rival() {
    type Meanwhile = fn(&mut World);
    let cases: [Meanwhile; 3] = [
        |_| {},
        World::restart,
        // Killed between the text and the status.
        |world| {
            world.change("carol", |one| one.status = None);
            world.restart();
        },
    ];
    for meanwhile in cases {
        let mut world = outlived();
        meanwhile(&mut world);
        world.step();
        assert_eq!(world.active(), ["carol"]);
        world.assert_accepted("carol");
        world.assert_condition("bob", ACCEPTED, "False Conflict", "carol of");
    }
    // A new Intercept of the same name is not running.
    let mut world = outlived();
    world.change("carol", |one| {
        one.status = None;
        one.spec.tunnel.address = format!("{:032x}", 9);
    });
    world.restart();
    world.step();
    world.assert_accepted("bob");
    world.assert_condition("carol", ACCEPTED, "False Conflict", "bob of");
}

#[test]
fn running_intercept_keeps_its_room() {
    for is_restarted in [false, true] {
        let mut world = World::new();
        world.create("alice", |one| {
            one.spec.owner = "alice@example.com".to_owned();
            one.spec.r#match = header("Coder", "a|b");
        });
        world.create("rival", |one| one.spec.r#match = header("Coder", "b"));
        for number in 0..20 {
            world.create(&format!("bob-{number:02}"), |_| {});
        }
        world.step();
        world.assert_condition("rival", ACCEPTED, "False Conflict", "alice of");
        world.assert_accepted("bob-19");
        if is_restarted {
            world.restart();
        }
        world.delete("alice");
        world.step();
        world.assert_accepted("bob-19");
        world.assert_condition("rival", ACCEPTED, "False TooMany", "at most 20");
        world.delete("bob-03");
        world.step();
        world.assert_accepted("rival");
        assert!(is_idle(&world.step()));
    }
}

#[test]
fn name_used_again_elsewhere_gets_another_cluster() {
    type Change = fn(&mut Intercept);
    let cases: [Change; 2] = [|one| one.spec.port = 9090, |one| one.spec.tunnel.relay = 1];
    for change in cases {
        let mut world = World::new();
        world.plugin().preparation.workload.ports.push(Port {
            number: 9090,
            ..example::workload().ports.remove(0)
        });
        world.create("bob", |_| {});
        let old = world.filter("bob");
        world.step();
        let key = Key::new("shop", &old);
        let before = world.snapshot.filters[&key].data["spec"].clone();
        world.delete("bob");
        world.step();
        world.create("bob", change);
        let new = world.filter("bob");
        world.step();
        let spec = |name: &str| &world.snapshot.filters[&Key::new("shop", name)].data["spec"];
        assert_eq!(spec(&old), &before);
        let cluster = |name: &str| {
            spec(name)
                .pointer("/configPatches/0/patch/value/name")
                .cloned()
        };
        assert_ne!(cluster(&old), cluster(&new));
        let entries: Value = serde_json::from_str(&world.text()).unwrap();
        let spec = &world.snapshot.filters[&Key::new("shop", &new)].data["spec"];
        assert_eq!(
            spec.pointer("/configPatches/0/patch/value/name"),
            Some(&entries["bob"]["cluster"])
        );
        world.after(29);
        assert_eq!(world.filters().len(), 2);
        world.after(1);
        assert_eq!(world.filters(), [new.as_str()]);
    }
}

#[test]
fn refused_write_is_told() {
    let mut world = World::new();
    world.create("bob", |_| {});
    let key = Key::new("shop", &world.filter("bob"));
    let refuse = |world: &mut World, key: &Key, is_refused: bool| {
        let why = format!("{}: denied: not today", key.name);
        let failure = Unwritten { why, is_refused };
        world.snapshot.unwritten.insert(key.clone(), failure);
    };
    world.step();
    world.snapshot.filters.clear();
    world.propagate();
    refuse(&mut world, &key, false);
    // The test's API server accepts the write; this reverts it.
    let step = |world: &mut World| {
        world.step();
        world.snapshot.filters.remove(&key);
    };
    step(&mut world);
    world.assert_condition("bob", PROGRAMMED, "False Pending", "not today");
    refuse(&mut world, &key, true);
    step(&mut world);
    world.assert_accepted("bob");
    world.assert_condition("bob", PROGRAMMED, "False WriteRefused", "not today");
    let intercept = &world.snapshot.intercepts[0];
    assert!(intercept.refusal().unwrap().contains("not today"));
    world.snapshot.unwritten.clear();
    world.step();
    world.step();
    world.assert_condition("bob", PROGRAMMED, "True Programmed", "2/2");

    // Intercepts in the text that the proxies have continue.
    let before = world.plugin().text.clone();
    world.create("alice", |_| {});
    refuse(&mut world, &Key::new("shop", PLUGIN), true);
    for _ in 0..2 {
        world.plugin().text.clone_from(&before);
        world.step();
    }
    world.assert_condition("bob", PROGRAMMED, "True Programmed", "2/2");
    world.assert_condition("alice", PROGRAMMED, "False WriteRefused", "not today");
}

#[test]
fn overlap_is_accepted_where_asked_for() {
    let mut world = World::new();
    world.create("bob", |one| one.spec.r#match = header("Coder", "Bob"));
    world.create("alice", |one| {
        one.spec.r#match = header("Coder", "Bob");
        one.spec.allow_overlap = Some(true);
    });
    world.step();
    world.assert_accepted("alice");
    assert_eq!(world.active(), ["bob", "alice"]);
}

#[test]
fn refused_intercepts_say_why() {
    type Change = fn(&mut Intercept);
    let cases: [(Change, &str, &str); 16] = [
        (
            |one| one.spec.workload.name = "carts".to_owned(),
            "NotPrepared",
            "Deployment/carts is not prepared",
        ),
        (
            |one| one.spec.workload.kind = Kind::StatefulSet,
            "NotPrepared",
            "StatefulSet/orders is not prepared",
        ),
        (
            |one| one.metadata.namespace = Some("billing".to_owned()),
            "NotPrepared",
            "not prepared",
        ),
        (
            |one| one.spec.port = 9090,
            "NotPrepared",
            "port 9090 of Deployment/orders",
        ),
        (
            |one| one.spec.tunnel.relay = 63,
            "Invalid",
            "spec.tunnel.relay: 63: there are 2, counted from 0",
        ),
        (
            |one| one.spec.tunnel.address = format!("{:032x}", 1),
            "AddressInUse",
            "it is the tunnel of older",
        ),
        (
            |one| one.spec.r#match.headers[0].value = "a\nb".to_owned(),
            "Invalid",
            "spec.match.headers[0].value: has a control",
        ),
        (
            |one| one.spec.r#match.headers[0].value = "a\u{1b}[2J".to_owned(),
            "Invalid",
            "control",
        ),
        (
            |one| one.spec.r#match.headers[0].value = "a\u{202e}b".to_owned(),
            "Invalid",
            "control or format character",
        ),
        (
            |one| one.spec.r#match.headers[0].name = "a\u{202e}b".to_owned(),
            "Invalid",
            "spec.match.headers[0].name",
        ),
        (
            |one| one.spec.r#match.headers[0].value = "(".to_owned(),
            "Invalid",
            "spec.match.headers[0].value",
        ),
        (
            |one| one.spec.r#match.headers[0].name = "x-intercept".to_owned(),
            "Invalid",
            "reserved",
        ),
        (
            |one| one.spec.r#match.path = Some(Path::Regex("[".to_owned())),
            "Invalid",
            "spec.match.path.regex",
        ),
        (
            |one| one.spec.r#match.path = Some(Path::Prefix("api".to_owned())),
            "Invalid",
            "spec.match.path",
        ),
        (
            |one| one.spec.r#match.headers.clear(),
            "Forbidden",
            "limits.allow_all",
        ),
        (
            |one| one.spec.r#match = header("X-Team", "red"),
            "Forbidden",
            "limits.header_names",
        ),
    ];
    for (change, reason, message) in cases {
        let mut world = World::new();
        world.plugin().limits = Limits {
            max_lease_seconds: 7_200,
            header_names: Some(vec!["coder".to_owned()]),
            ..Limits::default()
        };
        world.create("older", |_| {});
        world.create("bad", change);
        let plan = world.step();
        world.assert_condition("bad", ACCEPTED, &format!("False {reason}"), message);
        world.assert_accepted("older");
        assert_eq!(world.active(), ["older"], "{message}");
        let warnings = plan
            .statuses
            .iter()
            .flat_map(|write| &write.events)
            .filter(|event| event.is_warning);
        assert_eq!(
            warnings
                .map(|event| event.reason.as_str())
                .collect::<Vec<_>>(),
            [reason]
        );
        assert!(is_idle(&world.step()), "{message}");
    }
}

#[test]
fn unreadable_preparation_is_reported() {
    let mut world = World::new();
    world.snapshot.plugins.insert(
        Key::new("shop", PLUGIN),
        Err("WasmPlugin x: odd".to_owned()),
    );
    world.create("bob", |_| {});
    let plan = world.step();
    world.assert_condition("bob", ACCEPTED, "False NotPrepared", "WasmPlugin x: odd");
    assert!(plan.texts.is_empty() && plan.filters.is_empty());
}

#[test]
fn address_is_held_across_namespaces() {
    let mut world = World::new();
    world.prepare("billing");
    world.create("bob", |_| {});
    world.create("eve", |one| {
        one.metadata.namespace = Some("billing".to_owned());
        one.spec.tunnel.address = format!("{:032x}", 1);
    });
    world.step();
    world.assert_condition("eve", ACCEPTED, "False AddressInUse", "the tunnel of bob");
}

#[test]
fn one_owner_has_twenty() {
    let mut world = World::new();
    for number in 0..21 {
        world.create(&format!("bob-{number:02}"), |_| {});
    }
    world.create("alice", |one| {
        one.spec.owner = "alice@example.com".to_owned()
    });
    world.step();
    world.assert_condition("bob-20", ACCEPTED, "False TooMany", "at most 20 intercepts");
    assert_eq!(world.active().len(), 21);
    world.assert_accepted("alice");
    world.delete("bob-03");
    world.step();
    world.assert_accepted("bob-20");
}

#[test]
fn byte_budget_leaves_out_the_owner_with_most() {
    let mut world = World::new();
    let big = |one: &mut Intercept, owner: usize| {
        one.spec.owner = format!("dev-{owner}");
        let name = one.metadata.name.clone().unwrap();
        one.spec.r#match.headers = (0..16)
            .map(|number| Header {
                name: format!("x-{number}"),
                value: format!("{name}{}", "y".repeat(1_000)),
            })
            .collect();
    };
    // 16 kB each: room for 31.
    for number in 0..40 {
        world.create(&format!("a-{number:02}"), |one| big(one, number % 2));
    }
    world.create("small", |one| one.spec.owner = "carol".to_owned());
    let plan = world.step();
    world.assert_accepted("small");
    let text = world.text();
    assert!(
        text.len() <= admit::BYTE_BUDGET && text.len() > admit::BYTE_BUDGET - 20_000,
        "{}",
        text.len()
    );
    let refused = plan
        .statuses
        .iter()
        .filter(|write| write.body["status"]["conditions"][0]["reason"] == "TooMany");
    let refused: Vec<&str> = refused.map(|write| write.key.name.as_str()).collect();
    assert_eq!(refused.len(), 41 - world.active().len());
    // The youngest of both owners.
    assert!(refused.iter().all(|name| *name >= "a-30"), "{refused:?}");
    assert!(is_idle(&world.step()));
}

#[test]
fn deleted_intercept_with_a_finalizer_counts_as_gone() {
    let mut world = World::new();
    world.create("bob", |_| {});
    world.step();
    world.change("bob", |one| {
        one.metadata.deletion_timestamp = Some(Time(timestamp(NOW).parse().unwrap()))
    });
    world.create("alice", |one| one.spec.r#match = header("Coder", "bob"));
    let plan = world.step();
    assert_eq!(world.active(), ["alice"]);
    world.assert_accepted("alice");
    assert!(plan.ended.is_empty());
}

#[test]
fn lease_ends_by_the_controllers_clock() {
    for renew_time in ["9999-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "no time"] {
        let mut world = World::new();
        world.create("bob", |one| {
            one.spec.renew_time = Some(renew_time.to_owned())
        });
        let plan = world.step();
        assert_eq!(plan.next, Some(NOW + 3_600), "{renew_time}");
        world.after(3_599);
        assert_eq!(world.active(), ["bob"]);
        world.after(1);
        assert_eq!(world.text(), "{}");
    }
}

#[test]
fn only_a_change_of_renew_time_renews() {
    let mut world = World::new();
    world.create("bob", |_| {});
    world.step();
    world.after(1_000);
    assert_eq!(world.status("bob").expires, Some(timestamp(NOW + 3_600)));
    // A clock that was set back renews as well.
    world.change("bob", |one| {
        one.spec.renew_time = Some(timestamp(NOW - 50_000))
    });
    world.step();
    let status = world.status("bob");
    assert_eq!(status.expires, Some(timestamp(NOW + 4_600)));
    assert_eq!(status.observed_renew_time, Some(timestamp(NOW - 50_000)));
}

#[test]
fn lease_is_no_longer_than_the_operator_allows() {
    let mut world = World::new();
    world.create("bob", |one| one.spec.lease_seconds = 7_200);
    world.step();
    assert_eq!(world.status("bob").expires, Some(timestamp(NOW + 7_200)));
    world.plugin().limits.max_lease_seconds = 600;
    world.step();
    world.assert_accepted("bob");
    assert_eq!(world.status("bob").expires, Some(timestamp(NOW + 600)));
}

#[test]
fn lost_update_is_repeated_once() {
    let mut world = World::new();
    world.create("bob", |_| {});
    world.step();
    let text = world.text();
    let behind = PodState { hash: 7, active: 0 };
    world.report(&[Ok(behind)]);
    assert!(world.step().texts.is_empty(), "it may be on its way");
    world.snapshot.now += 3;
    assert_eq!(world.step().texts.len(), 1);
    assert_eq!(world.text(), format!("{text} "));
    world.snapshot.now += 60;
    assert!(world.step().texts.is_empty());
}

#[test]
fn restart_prolongs_no_lease() {
    let mut world = World::new();
    world.create("bob", |_| {});
    world.step();
    for _ in 0..35 {
        world.restart();
        world.after(100);
    }
    assert_eq!(world.status("bob").expires, Some(timestamp(NOW + 3_600)));
    world.restart();
    // A renewal during the controller's absence counts.
    world.change("bob", |one| one.spec.renew_time = Some("later".to_owned()));
    world.step();
    assert_eq!(world.status("bob").expires, Some(timestamp(NOW + 7_100)));
}

#[test]
fn expiry_from_a_clock_that_was_ahead_is_cut() {
    let mut world = World::new();
    world.create("bob", |one| {
        one.status = Some(InterceptStatus {
            expires: Some(timestamp(NOW + 90_000)),
            observed_renew_time: one.spec.renew_time.clone(),
            ..InterceptStatus::default()
        });
    });
    world.step();
    assert_eq!(world.status("bob").expires, Some(timestamp(NOW + 3_600)));
}

#[test]
fn renewals_are_written_together() {
    let mut world = World::new();
    for number in 0..10 {
        world.create(&format!("dev-{number}"), |_| {});
    }
    world.step();
    let (mut writes, mut renewals) = (0, 0);
    // Each one every 20 minutes, one after the other, for four hours.
    for minute in 0..240 {
        let place = minute % 20;
        if place < 10 {
            renewals += 1;
            world.change(&format!("dev-{place}"), |one| {
                one.spec.renew_time = Some(minute.to_string())
            });
        }
        writes += world.after(60).texts.len();
        assert_eq!(world.active().len(), 10, "minute {minute}");
        let config = json!({"version": 2, "intercepts": world.text()}).to_string();
        for (name, entry) in parse(config.as_bytes()).0.intercepts {
            let left = entry.expires - world.snapshot.now;
            assert!(left >= 600, "{name}: {left} s left in minute {minute}");
            let one = &world.snapshot.intercepts[world.place(&name)];
            let lease = one.recorded_expiry().unwrap();
            assert!(entry.expires <= lease, "{name} outlives its lease");
        }
    }
    assert_eq!(renewals, 120);
    assert!((4..=24).contains(&writes), "{writes}");
}

#[test]
fn renewal_is_written_without_another_event() {
    let mut world = World::new();
    world.create("bob", |_| {});
    world.step();
    world.change("bob", |one| one.spec.renew_time = Some("later".to_owned()));
    let plan = world.after(600);
    assert!(plan.texts.is_empty());
    let next = plan.next.expect("a time to write it");
    assert!(next <= NOW + 3_000, "{next}");
    world.snapshot.now = next;
    assert_eq!(world.step().texts.len(), 1);
}

#[test]
fn filter_stays_half_a_minute() {
    let mut world = World::new();
    world.create("bob", |_| {});
    let bobs = world.filter("bob");
    world.step();
    world.delete("bob");
    let plan = world.step();
    assert_eq!((world.text().as_str(), plan.next), ("{}", Some(NOW + 30)));
    world.after(29);
    assert_eq!(world.filters(), [bobs.as_str()]);
    // Creating the same name again cancels the removal, and a later delete restarts the grace period.
    world.create("bob", |_| {});
    assert!(world.step().filters.is_empty());
    world.delete("bob");
    world.after(29);
    world.after(29);
    assert_eq!(world.filters(), [bobs.as_str()]);
    let plan = world.after(1);
    assert_eq!(plan.leftovers.len(), 1);
    assert_eq!(world.filters(), [""; 0]);
    // A controller restart restarts the grace period as well.
    world.create("bob", |_| {});
    world.step();
    world.delete("bob");
    world.step();
    world.restart();
    world.after(29);
    world.after(29);
    assert_eq!(world.filters(), [bobs.as_str()]);
}

#[test]
fn edited_objects_are_put_right() {
    let mut world = World::new();
    world.create("bob", |_| {});
    world.step();
    let key = Key::new("shop", &world.filter("bob"));
    for text in [None, Some("{}"), Some("not json"), Some("{\"bob\":{}}")] {
        world.plugin().text = text.map(str::to_owned);
        assert_eq!(world.step().texts.len(), 1, "{text:?}");
        assert_eq!(world.active(), ["bob"]);
    }
    type Edit = fn(&mut DynamicObject);
    let edits: [Edit; 5] = [
        |filter| {
            filter.data["spec"]["configPatches"][0]["patch"]["value"]["cluster_type"]["typed_config"]
                ["clusters"][0] = json!("payments")
        },
        |filter| filter.data["spec"]["priority"] = json!(1),
        |filter| filter.metadata.labels = None,
        |filter| filter.metadata.annotations = None,
        |filter| filter.metadata.owner_references = None,
    ];
    for edit in edits {
        edit(Arc::make_mut(world.snapshot.filters.get_mut(&key).unwrap()));
        assert_eq!(world.step().filters.len(), 1);
    }
    world.snapshot.filters.clear();
    assert_eq!(world.step().filters.len(), 1);
    assert!(is_idle(&world.step()));
}

#[test]
fn skewed_clock_writes_nothing() {
    for skew in [61, -61, 90_000] {
        let mut world = World::new();
        world.create("running", |_| {});
        world.step();
        world.propagate();
        world.step();
        let before = world.status("running");
        world.create("new", |_| {});
        world.snapshot.skew = skew;
        world.wait(4_000);
        let plan = world.step();
        assert!(
            plan.texts.is_empty()
                && plan.filters.is_empty()
                && plan.ended.is_empty()
                && plan.leftovers.is_empty()
        );
        world.assert_condition(
            "new",
            PROGRAMMED,
            "False ClockSkew",
            &format!("differ by {skew} s"),
        );
        assert_eq!(world.status("running"), before);
        assert_eq!(world.status("new").expires, None);
        assert!(is_idle(&world.step()));
        // With a correct clock, it continues as if nothing had happened.
        world.snapshot.skew = 60;
        world.snapshot.now = NOW + 10;
        world.step();
        world.assert_accepted("new");
        assert_eq!(world.status("new").expires, Some(timestamp(NOW + 3_610)));
        assert_eq!(world.active(), ["running", "new"]);
    }
}

#[test]
fn programmed_is_what_proxies_report() {
    let mut world = World::new();
    world.create("bob", |_| {});
    world.step();
    world.assert_condition("bob", PROGRAMMED, "False Pending", "not been asked");
    let old = PodState {
        hash: config_hash("{}"),
        active: 0,
    };
    let new = world.state();
    type Case<'a> = (&'a [Result<PodState, String>], &'a str, &'a str);
    let cases: [Case; 7] = [
        (&[], "False NoReplicas", "no replica"),
        (
            &[Ok(old), Ok(old)],
            "False Pending",
            "0/2 replicas; orders-0 has an older configuration",
        ),
        (
            &[Ok(new), Ok(old)],
            "False Pending",
            "1/2 replicas; orders-1 has",
        ),
        (
            &[Ok(new), Ok(PodState { active: 0, ..new })],
            "False Inactive",
            "1/2 replicas; orders-1: 0 of 1 entries are active",
        ),
        (
            &[Ok(new), Err("refused".to_owned())],
            "False Pending",
            "1/2 replicas; orders-1: refused",
        ),
        (
            &[Err("refused".to_owned()), Ok(old)],
            "False Pending",
            "0/2 replicas; orders-1",
        ),
        (&[Ok(new), Ok(new)], "True Programmed", "2/2 replicas"),
    ];
    for (states, expected, message) in cases {
        world.report(states);
        world.step();
        world.assert_condition("bob", PROGRAMMED, expected, message);
        let total = u32::try_from(states.len()).unwrap();
        assert_eq!(
            world.status("bob").replicas.map(|replicas| replicas.total),
            Some(total)
        );
    }
    assert!(is_idle(&world.step()));
}

#[test]
fn silent_proxy_is_unknown_after_three_seconds() {
    let mut world = World::new();
    world.create("bob", |_| {});
    world.step();
    let new = world.state();
    world.report(&[
        Ok(new),
        Err("10.0.0.7:15090: connection refused".to_owned()),
    ]);
    assert_eq!(world.after(2).next, Some(NOW + 3));
    world.assert_condition("bob", PROGRAMMED, "False Pending", "");
    world.after(1);
    world.assert_condition(
        "bob",
        PROGRAMMED,
        "Unknown NotMeasured",
        "1/2 replicas; orders-1: 10.0.0.7:15090: connection refused",
    );
    world.snapshot.reports.insert(
        Key::new("shop", PLUGIN),
        Err("pods in shop: forbidden".to_owned()),
    );
    world.step();
    world.assert_condition("bob", PROGRAMMED, "Unknown NotMeasured", "forbidden");
}

#[test]
fn other_changes_do_not_take_programmed_away() {
    let mut world = World::new();
    world.create("bob", |_| {});
    world.step();
    world.propagate();
    world.step();
    world.create("alice", |_| {});
    world.step();
    world.assert_condition("bob", PROGRAMMED, "True Programmed", "2/2");
    world.assert_condition("alice", PROGRAMMED, "False Pending", "0/2");
    world.propagate();
    world.step();
    world.assert_condition("alice", PROGRAMMED, "True Programmed", "2/2");
}

#[test]
fn restart_takes_programmed_from_nobody() {
    let mut world = World::new();
    world.create("bob", |_| {});
    world.step();
    world.propagate();
    world.step();
    world.restart();
    world.snapshot.reports.clear();
    assert!(is_idle(&world.after(5)));
    world.assert_condition("bob", PROGRAMMED, "True Programmed", "2/2");
    world.report(&[]);
    world.step();
    world.assert_condition("bob", PROGRAMMED, "False NoReplicas", "");
    // The same if the text changes in the meantime.
    world.propagate();
    world.step();
    let state = world.state();
    world.restart();
    world.create("alice", |_| {});
    world.step();
    world.report(&[Ok(state), Ok(state)]);
    world.step();
    world.assert_condition("bob", PROGRAMMED, "True Programmed", "2/2");
    world.assert_condition("alice", PROGRAMMED, "False Pending", "0/2");
}

#[test]
fn transition_time_changes_with_the_status() {
    let mut world = World::new();
    world.create("bob", |_| {});
    world.step();
    let time = |world: &World| {
        world
            .status("bob")
            .condition(PROGRAMMED)
            .unwrap()
            .last_transition_time
            .clone()
    };
    let old = PodState { hash: 1, active: 0 };
    world.report(&[Ok(old)]);
    world.after(5);
    assert_eq!(time(&world), timestamp(NOW));
    world.propagate();
    world.after(5);
    assert_eq!(time(&world), timestamp(NOW + 10));
}

#[test]
fn expired_intercept_goes_once_no_proxy_has_it() {
    for give_back in [false, true] {
        let mut world = World::new();
        world.create("bob", |_| {});
        world.step();
        world.propagate();
        world.step();
        if give_back {
            world.change("bob", |one| one.spec.renew_time = None);
        } else {
            world.wait(3_600);
        }
        let plan = world.step();
        assert_eq!((world.text().as_str(), plan.ended.len()), ("{}", 0));
        world.propagate();
        let plan = world.step();
        let event = plan.ended[0].event.clone().unwrap();
        let expected = if give_back {
            "given back"
        } else {
            "the lease ended at"
        };
        assert!(event.note.contains(expected), "{event:?}");
        assert!(is_idle(&world.step()));
    }
}

#[test]
fn expired_intercept_waits_two_seconds_at_most() {
    let mut world = World::new();
    world.create("bob", |_| {});
    world.step();
    world.propagate();
    let plan = world.after(3_600);
    assert_eq!((plan.ended.len(), plan.next), (0, Some(NOW + 3_602)));
    assert_eq!(world.after(2).ended.len(), 1);
    // For a workload that is not prepared there is nothing to wait for.
    let mut world = World::new();
    world.create("bob", |one| one.spec.workload.name = "carts".to_owned());
    world.step();
    assert_eq!(world.after(3_600).ended.len(), 1);
}

#[test]
fn status_is_a_merge_patch_for_one_object() {
    let mut world = World::new();
    world.create("bob", |one| one.metadata.managed_fields = Some(Vec::new()));
    let plan = world.step();
    let patch = &plan.statuses[0].body;
    assert_eq!(patch["metadata"], json!({"uid": "uid-0001"}));
    assert_eq!(
        patch.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["metadata", "status"]
    );
}

#[test]
fn two_controllers_render_the_same() {
    let mut world = World::new();
    for name in ["bob", "alice", "carol"] {
        world.create(name, |_| {});
    }
    world.step();
    let text = world.text();
    // Another controller, which sees them in another order.
    world.restart();
    world.snapshot.intercepts.reverse();
    world.after(1);
    assert_eq!(world.text(), text);
}
