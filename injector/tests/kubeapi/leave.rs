//! The end of intercepts: one's own, somebody else's, and what is left over.

use std::time::{Duration, Instant};

use injector::model::Live;
use serde_json::{Value, json};

use super::stage::{Stage, anything, entry};
use super::support::{Running, now, wait_until};

#[test]
fn leave_removes_ones_own_and_somebody_elses_only_by_force_and_right() {
    let stage = Stage::new("leaving");
    for name in ["bob-one", "bob-two"] {
        stage
            .wait(
                stage
                    .target("bob")
                    .add(name, &entry(name, "bob", name), 0, &anything),
            )
            .expect("added");
    }
    let refused = stage.run("alice", &["leave", "bob-one"]);
    assert!(
        refused
            .stderr
            .contains("bob-one: claimed by bob, not by alice"),
        "{refused:?}"
    );
    // The admission policies hold a developer who says --force.
    let forced = stage.run("alice", &["leave", "--force", "bob-one"]);
    assert_eq!(forced.code, Some(1), "{forced:?}");
    assert!(
        forced
            .stderr
            .contains("only your own entries may be removed"),
        "{forced:?}"
    );
    let operator = stage.run("admin", &["leave", "--force", "bob-one"]);
    assert_eq!(operator.stdout, "bob-one removed\n", "{operator:?}");
    let mine = stage.run("bob", &["leave", "--all"]);
    assert_eq!(mine.stdout, "bob-two removed\n", "{mine:?}");
    assert_eq!(stage.clusters(), [""; 0]);
    assert_eq!(
        stage.plugin()["spec"]["pluginConfig"].get("intercepts"),
        None
    );
}

#[test]
fn whoever_sees_a_leftover_clears_it_away() {
    let stage = Stage::new("leftover");
    let mut over = entry("old", "bob", "Old");
    over.expires = now() - 590;
    stage.put_entry("old", &json!(over));
    stage.run("alice", &["list"]);
    assert!(stage.entry("old").is_some(), "ten minutes are not over");
    over.expires = now() - 700;
    stage.put_entry("old", &json!(over));
    wait_until(
        || {
            // The policies' clock is a Lease that the API server renews every ten seconds, and writes only after its start.
            stage.run("alice", &["list"]);
            stage.entry("old").is_none()
        },
        || "the leftover is still there".to_owned(),
    );
    assert_eq!(
        stage.events(),
        ["alice cleared away the intercept old of bob, whose lease is over"]
    );
}

#[test]
fn a_leftover_that_may_not_go_keeps_no_other_one() {
    let stage = Stage::new("kept");
    let target = stage.target("alice");
    // The first in the order of names. Its entry is over and its cluster, as far as can be told, is not: nobody else may remove that one.
    let mut over = entry("a-alice", "alice", "Alice");
    stage
        .wait(target.add("a-alice", &over, 0, &anything))
        .expect("added");
    over.expires = now() - 700;
    stage.put_entry("a-alice", &json!(over));
    let mut own = entry("orders-bob", "bob", "Bob");
    own.expires = now() - 700;
    stage.put_entry("orders-bob", &json!(own));
    stage.run("bob", &["list"]);
    assert_eq!(stage.clusters(), ["intercept-a-alice"]);
    assert_eq!(stage.entry("orders-bob"), None);
}

#[test]
fn a_cluster_without_an_entry_is_cleared_away_with_its_lease() {
    let stage = Stage::new("orphan");
    let target = stage.target("bob");
    let mut entry = entry("bob", "bob", "Bob");
    entry.expires = now() + 600;
    stage
        .wait(target.add("bob", &entry, 0, &anything))
        .expect("added");
    stage.remove_entry("bob");
    stage.run("bob", &["list"]);
    assert_eq!(stage.clusters(), ["intercept-bob"], "its lease is not over");
    let over = format!("injector.dev/expires={}", now() - 700);
    let arguments = [
        "-n",
        "orphan",
        "annotate",
        "--overwrite",
        "envoyfilter",
        "intercept-bob",
        &over,
    ];
    stage.server.must(&arguments, None);
    stage.run("bob", &["list"]);
    assert_eq!(stage.clusters(), [""; 0]);
}

#[test]
fn where_no_pod_is_nobody_is_waited_for_at_an_end() {
    let stage = Stage::new("deserted");
    let target = stage.target("bob");
    let gone = |seconds| {
        let time = Duration::from_secs(seconds);
        let started = Instant::now();
        let live = stage.wait(target.wait("bob", None, None, time, &|_| {}));
        (live, started.elapsed())
    };
    stage.delete_replica("orders-1");
    // One that was evicted stays, and runs nowhere.
    let evicted = json!({"status": {"phase": "Failed", "containerStatuses": null}});
    stage
        .server
        .status(Some("deserted"), "pod", "orders-2", &evicted);
    assert_eq!(gone(20).0, Live::Verified);
    stage.delete_replica("orders-2");
    let (live, took) = gone(20);
    assert_eq!(live, Live::Verified);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// Its command ends, and says why.
fn assert_lost(bob: Running, what: &str) {
    let end = bob.end();
    assert_eq!(end.code, Some(1), "{end:?}");
    let told = format!("orders-bob: {what}; it is not brought back");
    assert!(end.stderr.contains(&told), "{end:?}");
}

#[test]
fn whoever_loses_an_intercept_is_told_who_removed_it() {
    let stage = Stage::new("told");
    let bob = stage.live("bob");
    let left = stage.run("admin", &["leave", "--force", "orders-bob"]);
    assert_eq!(left.code, Some(0), "{left:?}");
    assert_lost(bob, "admin removed this intercept");
}

#[test]
fn whoever_loses_an_intercept_to_an_uninstallation_is_told_whose_it_was() {
    let stage = Stage::new("uninstalled");
    let bob = stage.live("bob");
    let uninstall = ["uninstall", "--workload=orders", "--force"];
    let gone = stage.run("admin", &uninstall);
    assert_eq!(gone.code, Some(0), "{gone:?}");
    assert_lost(bob, "admin removed this intercept");
}

#[test]
fn an_entry_that_was_removed_does_not_come_back() {
    let stage = Stage::new("removed");
    let bob = stage.live("bob");
    stage.remove_entry("orders-bob");
    assert_lost(bob, "this intercept was removed");
    assert_eq!(stage.entry("orders-bob"), None);
    assert_eq!(stage.clusters(), [""; 0]);
}

/// May read everywhere what intercepts consist of, and intercept in these two.
fn in_two_namespaces(user: &str, stages: [&Stage; 2]) {
    let name = format!("{user}-everywhere");
    let (group, read) = ("rbac.authorization.k8s.io", ["get", "list"]);
    let rules = json!([
        {"apiGroups": ["extensions.istio.io"], "resources": ["wasmplugins"], "verbs": read},
        {"apiGroups": ["networking.istio.io"], "resources": ["envoyfilters"], "verbs": read},
    ]);
    let mut objects = vec![
        json!({"apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}),
        json!({"apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name}, "subjects": [{"apiGroup": group, "kind": "User", "name": user}]}),
    ];
    objects.extend(stages.iter().flat_map(|stage| stage.developer(user)));
    stages[0].server.apply_all(&objects);
}

#[test]
fn what_is_in_all_namespaces_is_listed_and_ones_own_of_it_left() {
    let stages = [Stage::new("here"), Stage::new("there")];
    let [here, there] = &stages;
    in_two_namespaces("dave", [here, there]);
    for (stage, name) in [(here, "dave-here"), (there, "dave-there")] {
        let target = stage.target("dave");
        let entry = entry(name, "dave", name);
        // Nobody keeps it: its tunnel is away.
        stage
            .wait(target.add(name, &entry, 0, &anything))
            .expect("added");
    }
    let shown = |words: &[&str]| -> Value {
        let ran = here.run("dave", &[words, &["-A", "-o", "json"]].concat());
        assert_eq!(ran.code, Some(0), "{ran:?}");
        serde_json::from_str(&ran.stdout).expect("JSON")
    };
    // Others are intercepting as well.
    let all = shown(&["list"]);
    let mine = all.as_array().expect("a list").iter();
    let mine = mine.filter(|shown| shown["developer"] == "dave");
    let mine: Vec<Value> = mine
        .map(|shown| json!([shown["name"], shown["namespace"], shown["tunnel"]]))
        .collect();
    let expected = [
        json!(["dave-here", "here", "away"]),
        json!(["dave-there", "there", "away"]),
    ];
    assert_eq!(mine, expected);
    assert_eq!(shown(&["status", "dave-there"])["namespace"], "there");
    let text = here.run("dave", &["status", "-A", "dave-there"]).stdout;
    assert!(text.contains("\n  tunnel       away\n"), "{text}");

    // bob may read two namespaces, and not all.
    let refused = here.run("bob", &["list", "-A"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for part in ["wasmplugins.extensions.istio.io is forbidden", "\n\nhint: "] {
        assert!(refused.stderr.contains(part), "{refused:?}");
    }

    let left = here.run("dave", &["leave", "--all", "-A"]);
    assert_eq!(
        (left.code, left.stdout.as_str()),
        (Some(0), "dave-here removed\ndave-there removed\n"),
        "{left:?}"
    );
    for (stage, name) in [(here, "dave-here"), (there, "dave-there")] {
        assert_eq!(stage.entry(name), None);
        assert_eq!(stage.clusters(), [""; 0]);
    }
}

#[test]
fn with_everything_goes_every_envoy_filter_of_ours_whatever_it_lacks() {
    let stage = Stage::alone("everything");
    let filter = |name: &str, manager: &str| {
        let labels = json!({"app.kubernetes.io/managed-by": manager});
        json!({"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
            "metadata": {"name": name, "namespace": "default", "labels": labels},
            "spec": {"workloadSelector": {"labels": {"app": "orders"}}}})
    };
    let filters = [filter("stray", "injector"), filter("theirs", "them")];
    stage.server.apply_all(&filters);
    let removed = stage.run("admin", &["uninstall"]);
    assert_eq!(removed.code, Some(0), "{removed:?}");
    let arguments = ["get", "envoyfilters", "-A", "-o", "name"];
    let left = stage.server.must(&arguments, None);
    assert_eq!(left, "envoyfilter.networking.istio.io/theirs\n");
}

/// Another workload's plugin, in which bob has an intercept of this name.
fn of_another_workload(stage: &Stage, name: &str) -> Value {
    let mut plugin = stage.plugin();
    let annotations = json!({"injector.dev/workload": "Deployment/other"});
    plugin["metadata"] = json!({"name": "injector-deployment-other", "namespace": stage.namespace,
        "labels": plugin["metadata"]["labels"], "annotations": annotations});
    plugin["spec"]["pluginConfig"]["intercepts"] = json!({name: entry(name, "bob", name)});
    plugin
}

#[test]
fn a_command_that_is_shown_says_where_as_the_one_before_it() {
    let stage = Stage::new("elsewhere");
    let bobs = entry("bobs", "bob", "Bob");
    let target = stage.target("bob");
    stage
        .wait(target.add("bobs", &bobs, 0, &anything))
        .expect("added");
    stage.server.apply(&of_another_workload(&stage, "others"));
    // Of a port that the next preparation would leave out.
    let odd = json!({"port": 9090, "expires": now() + 3_600});
    stage.put_entry("odd", &odd);
    let hint_of = |user: &str, words: &[&str]| {
        let file = stage.server.kubeconfig(user, "default");
        let place = format!("--kubeconfig {} -n elsewhere", file.display());
        let flags: Vec<&str> = place.split(' ').collect();
        let refused = stage.run(user, &[words, &flags].concat());
        assert_eq!(refused.code, Some(1), "{words:?}: {refused:?}");
        let hint = refused.stderr.split_once("hint: ").expect("a hint").1;
        hint.trim_end().replace(&place, "PLACE")
    };
    let named = ["intercept", "orders", "--port=1", "--name"];
    for (user, words, expected) in [
        (
            "alice",
            &["leave", "bobs"][..],
            "ask them, or: injector leave PLACE --force bobs",
        ),
        ("alice", &["leave", "nobodys"], "injector list PLACE"),
        ("alice", &["status", "nobodys"], "injector list PLACE"),
        (
            "alice",
            &["logs", "nobodys"],
            "injector list PLACE; one in the foreground has its log on its own terminal, and -n or --context chooses another place",
        ),
        (
            "alice",
            &[&named[..], &["bobs"]].concat(),
            "injector intercept PLACE orders --name=ANOTHER-NAME",
        ),
        (
            "alice",
            &[&named[..], &["others"]].concat(),
            "choose another one with --name, or end it: injector leave PLACE others",
        ),
        (
            "admin",
            &["uninstall", "--workload=orders"],
            "injector leave PLACE --force bobs odd; or: injector uninstall PLACE … --force",
        ),
        (
            "admin",
            &["install", "--workload=orders"],
            "injector leave PLACE --force odd",
        ),
    ] {
        assert_eq!(hint_of(user, words), expected, "{words:?}");
    }
}
