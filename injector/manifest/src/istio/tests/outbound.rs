//! Developers' connections into the cluster: whose identity they have, and what they can never reach.

use super::*;
use crate::istio::install::{Outbound, outbound_objects};

fn rendered(outbound: &Outbound) -> Vec<Object> {
    outbound_objects(&example::install(), outbound).unwrap()
}

fn with_accounts(accounts: &[&str]) -> Outbound {
    let service_accounts = accounts.iter().map(|&account| account.to_owned()).collect();
    Outbound {
        service_accounts,
        ..example::outbound()
    }
}

/// The values of a flag in the arguments of a StatefulSet.
fn values<'o>(set: &'o Object, flag: &str) -> Vec<&'o str> {
    let args = &set.value()["spec"]["template"]["spec"]["containers"][0]["args"];
    let args: Vec<&str> = args
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect();
    let pairs = args.windows(2).filter(|pair| pair[0] == flag);
    pairs.map(|pair| pair[1]).collect()
}

#[test]
fn pods_listen_on_loopback_only() {
    let objects = rendered(&example::outbound());
    let set = of_kind(&objects, "StatefulSet")[0];
    assert_eq!(values(set, "--listen"), ["127.0.0.1:7072"]);
    assert_eq!(
        values(set, "--to"),
        [
            "*.shop.svc.cluster.local",
            "postgres.data.svc.cluster.local.:5432"
        ]
    );
    let relays = values(set, "--relay");
    assert_eq!(
        relays[1],
        "injector-relay-1.injector-system.svc.cluster.local.:7073"
    );
    assert_eq!(relays.len(), 2);
    for service in of_kind(&objects, "Service") {
        assert_eq!(service.value()["spec"]["ports"], Value::Null);
    }
}

#[test]
fn api_server_relays_and_istiod_are_never_dialled() {
    let mut install = example::install();
    install.revision = Some("canary".to_owned());
    let objects = outbound_objects(&install, &example::outbound()).unwrap();
    let never = values(of_kind(&objects, "StatefulSet")[0], "--never");
    for expected in [
        "$(KUBERNETES_SERVICE_HOST)",
        "kubernetes.default.svc.cluster.local.",
        "*.injector-system.svc.cluster.local",
        "injector-relay.injector-system.svc.cluster.local.",
        "injector-relay-0.injector-system.svc.cluster.local.",
        "injector-relay-1.injector-system.svc.cluster.local.",
        "*.istio-system.svc.cluster.local",
        "istiod.istio-system.svc.cluster.local.",
        "istiod-canary.istio-system.svc.cluster.local.",
    ] {
        assert!(never.contains(&expected), "{expected}: {never:?}");
    }
}

#[test]
fn sidecar_knows_allowed_services_and_presence_port() {
    let objects = rendered(&example::outbound());
    let sidecar = &of_kind(&objects, "Sidecar")[0].value()["spec"];
    assert_eq!(sidecar["outboundTrafficPolicy"]["mode"], "REGISTRY_ONLY");
    let [relays, rest] = sidecar["egress"].as_array().unwrap().as_slice() else {
        panic!("{sidecar}");
    };
    assert_eq!(relays["port"]["number"], 7073);
    assert_eq!(rest["port"], Value::Null);
    let hosts = json!(["shop/*", "data/postgres.data.svc.cluster.local"]);
    assert_eq!(rest["hosts"], hosts);
}

#[test]
fn each_service_account_has_a_role_of_its_own() {
    let objects = rendered(&with_accounts(&["orders"]));
    let [own, orders] = of_kind(&objects, "StatefulSet")[..] else {
        panic!("two");
    };
    let account = |set: &Object| {
        let spec = &set.value()["spec"]["template"]["spec"];
        spec["serviceAccountName"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        (&*account(own), &*account(orders)),
        ("injector-outbound", "orders")
    );
    assert_ne!(
        own.value()["spec"]["selector"],
        orders.value()["spec"]["selector"]
    );
    let accounts = of_kind(&objects, "ServiceAccount");
    assert_eq!(accounts.len(), 1, "the workload's own is there");
    for (role, pod) in of_kind(&objects, "Role")
        .into_iter()
        .zip(["injector-outbound-0", "injector-outbound-orders-0"])
    {
        let rules = role.value()["rules"].as_array().unwrap();
        assert!(rules.iter().all(|rule| rule["resourceNames"].is_array()));
        assert_eq!(rules[2]["resources"], json!(["pods/portforward"]));
        assert_eq!(rules[2]["resourceNames"], json!([pod]));
    }
    let policy = of_kind(&objects, "AuthorizationPolicy")[0].value();
    assert_eq!(policy["metadata"]["namespace"], "injector-system");
    assert_eq!(
        policy["spec"]["rules"][0]["from"][0]["source"]["principals"],
        json!(["*/ns/shop/sa/injector-outbound", "*/ns/shop/sa/orders"])
    );
}

#[test]
fn what_must_not_be_reached_is_refused() {
    let error = |outbound: Outbound| {
        outbound_objects(&example::install(), &outbound)
            .expect_err("it was rendered")
            .to_string()
    };
    let reaching = |text: &str| Outbound {
        to: vec![text.parse().unwrap()],
        ..example::outbound()
    };
    let of = |namespace: &str| Outbound {
        namespace: namespace.to_owned(),
        ..example::outbound()
    };
    let errors = [
        error(reaching("injector-system")),
        error(reaching("injector-system/injector-relay-0:8080")),
        error(reaching("istio-system/istiod")),
        error(of("injector-system")),
        error(of("istio-system")),
        error(with_accounts(&["a.b"])),
        error(with_accounts(&["thirty-five-characters-are-too-many"])),
    ];
    insta::assert_snapshot!(errors.join("\n"), @"
    namespace `injector-system`: relays and istiod are never reached by developers' connections, nor what is beside them
    namespace `injector-system`: relays and istiod are never reached by developers' connections, nor what is beside them
    namespace `istio-system`: relays and istiod are never reached by developers' connections, nor what is beside them
    namespace `injector-system`: relays and istiod are never reached by developers' connections, nor what is beside them
    namespace `istio-system`: relays and istiod are never reached by developers' connections, nor what is beside them
    service account: expected lower-case letters, digits and `-`, at most 34, found `a.b`
    service account: expected lower-case letters, digits and `-`, at most 34, found `thirty-five-characters-are-too-many`
    ");
}
