//! Facts from which nothing may be rendered.

use super::*;

fn workload_error(change: impl FnOnce(&mut Workload)) -> String {
    let mut workload = example::workload();
    change(&mut workload);
    workload_objects(&mesh(), &workload, &example::plugin())
        .expect_err("it was rendered")
        .to_string()
}

#[test]
fn invalid_workload_is_refused_with_reason() {
    let errors = [
        workload_error(|workload| workload.namespace = "istio-system".to_owned()),
        workload_error(|workload| workload.namespace = "injector-system".to_owned()),
        workload_error(|workload| workload.namespace = "Shop".to_owned()),
        workload_error(|workload| workload.name = "x".repeat(250)),
        workload_error(|workload| workload.selector.clear()),
        workload_error(|workload| workload.ports.clear()),
        workload_error(|workload| workload.ports.push(workload.ports[0].clone())),
        workload_error(|workload| workload.ports[0].number = 0),
        workload_error(|workload| workload.ports[0].app = ([10, 0, 0, 1], 8080).into()),
    ];
    insta::assert_snapshot!(errors.join("\n").replace(&"x".repeat(250), "x…"), @"
    namespace `istio-system`: it is the mesh's root namespace, where an EnvoyFilter or a WasmPlugin reaches every proxy of the mesh
    namespace `injector-system`: the relay lives there; its own requests cannot be intercepted
    namespace: expected lower-case letters, digits, `-` and `.`, at most 253, found `Shop`
    workload: expected lower-case letters, digits, `-` and `.`, at most 253, found `injector-deployment-x…`
    Deployment/orders: expected at least one label by which it selects its pods
    Deployment/orders: expected at least one port
    Deployment/orders: port 8080: expected distinct ports, 1 to 65535
    Deployment/orders: port 0: expected distinct ports, 1 to 65535
    Deployment/orders: port 8080: expected the program on a loopback address, found `10.0.0.1:8080`
    ");
}

#[test]
fn invalid_module_is_refused() {
    let error = |url: &str, sha256: &str| {
        let mut plugin = example::plugin();
        plugin.module = Module {
            url: url.to_owned(),
            sha256: sha256.to_owned(),
        };
        workload_objects(&mesh(), &example::workload(), &plugin)
            .expect_err("it was rendered")
            .to_string()
    };
    insta::assert_snapshot!([error("file:///filter.wasm", &"0".repeat(64)), error("http://x", "abc"), error("http://x", &"A".repeat(8))].join("\n"), @"
    module url: expected http://, https:// or oci://, found `file:///filter.wasm`
    module sha256: expected 64 lower-case hexadecimal digits, found `abc`
    module sha256: expected 64 lower-case hexadecimal digits, found `AAAAAAAA`
    ");
}

#[test]
fn root_namespace_is_refused() {
    let mut install = example::install();
    install.mesh.namespace = "istio-system".to_owned();
    assert_eq!(
        cluster_objects(&install).unwrap_err(),
        InvalidFacts::RootNamespace("istio-system".to_owned())
    );
    install = example::install();
    install.mesh.relay_replicas = 0;
    assert_eq!(
        cluster_objects(&install).unwrap_err(),
        InvalidFacts::NoRelay
    );
}
