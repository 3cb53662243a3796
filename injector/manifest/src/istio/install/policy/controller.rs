//! What the controller's account may write: the text of intercepts, and EnvoyFilters in exactly the shape that we render.
//!
//! RBAC knows objects, not fields: with its role alone, the account could put Lua or another module into every sidecar of a prepared namespace.

use serde_json::json;

use super::cel;
use super::object::{Policy, Validation, Variable, metadata_text};
use crate::cluster;
use crate::istio::facts::Mesh;
use crate::istio::install::{H2_PORT, HTTP_PORT};
use crate::istio::names::{CONTROLLER, MANAGER};
use crate::istio::{gate, names};

/// The name of an intercept, without anchors: a DNS label.
const LABEL: &str = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?";

pub fn policy(mesh: &Mesh) -> Policy {
    let account = format!("system:serviceaccount:{}:{CONTROLLER}", mesh.namespace);
    Policy {
        name: "injector-controller",
        comment: "Holds the controller's account to the text of intercepts and to EnvoyFilters of one shape.",
        rules: json!([
            {"apiGroups": ["extensions.istio.io"], "apiVersions": ["*"], "resources": ["wasmplugins"], "operations": ["CREATE", "UPDATE", "DELETE"]},
            {"apiGroups": ["networking.istio.io"], "apiVersions": ["*"], "resources": ["envoyfilters"], "operations": ["CREATE", "UPDATE", "DELETE"]},
        ]),
        condition: Some((
            "is-controller",
            format!("request.userInfo.username == '{account}'"),
        )),
        variables: variables(),
        validations: vec![
            Validation {
                comment: "WasmPlugins are the operator's to make and to delete.",
                expression: "!variables.plugin || request.operation == 'UPDATE'".to_owned(),
                message: "the controller changes WasmPlugins and neither makes nor deletes them"
                    .to_owned(),
            },
            of_plugin(prepared()),
            of_plugin(metadata()),
            of_plugin(spec()),
            Validation {
                comment: "Of the EnvoyFilters only those of Intercepts.",
                expression: format!("variables.plugin || (\n{}\n)", is_of_intercept()),
                message: "the controller writes EnvoyFilters of Intercepts only".to_owned(),
            },
            of_filter(name_and_owner()),
            of_filter(patch()),
            of_filter(members(mesh)),
            of_filter(shape()),
            of_filter(services()),
        ],
    }
}

/// A rule for changes of WasmPlugins.
fn of_plugin(rule: Validation) -> Validation {
    Validation {
        expression: format!(
            "!variables.plugin ||\nrequest.operation != 'UPDATE' || (\n{}\n)",
            rule.expression
        ),
        ..rule
    }
}

/// A rule for EnvoyFilters that are written.
fn of_filter(rule: Validation) -> Validation {
    Validation {
        expression: format!(
            "variables.plugin ||\nrequest.operation == 'DELETE' || (\n{}\n)",
            rule.expression
        ),
        ..rule
    }
}

fn variables() -> Vec<Variable> {
    let clusters = "variables.value.cluster_type.typed_config.clusters";
    vec![
        Variable::new("plugin", "request.resource.resource == 'wasmplugins'"),
        Variable {
            comment: "What is written, or deleted.",
            ..Variable::new(
                "target",
                "request.operation == 'DELETE' ? dyn(oldObject) : dyn(object)",
            )
        },
        Variable {
            comment: "The intercept's name.",
            ..Variable::new(
                "name",
                metadata_text("variables.target", "labels", names::INTERCEPT),
            )
        },
        Variable::new("value", "dyn(object).spec.configPatches[0].patch.value"),
        Variable::new("members", clusters),
        Variable {
            comment: "That of the fallback `intercept-app|PORT`.",
            ..Variable::new("port", "string(variables.members[1]).split('|')[1]")
        },
        Variable {
            comment: "The number of the relay.",
            ..Variable::new(
                "relay",
                format!(
                    "string(variables.members[0]).split('{}-')[1].split('.')[0]",
                    names::RELAY
                ),
            )
        },
        Variable {
            comment: "The cluster that the controller writes; its members are looked at below.",
            ..Variable::new("expected", expected())
        },
    ]
}

/// The same code as the intercept's own rendering: the two cannot drift apart.
fn expected() -> String {
    let cluster = cluster::aggregate("NAME", "RELAY", "APP");
    cel::with_expressions(&cluster, &|text| match text {
        "NAME" => Some(
            "'intercept|' + variables.port + '|' + variables.name + '|relay-' + variables.relay"
                .to_owned(),
        ),
        "RELAY" => Some("variables.members[0]".to_owned()),
        "APP" => Some("variables.members[1]".to_owned()),
        _ => None,
    })
}

fn prepared() -> Validation {
    Validation {
        comment: "Of the WasmPlugins only those that `injector install` prepared.",
        expression: format!(
            "{} == '{MANAGER}' &&\n{} != '' &&\ntype(dyn(object).spec.pluginConfig.?intercepts.orValue('')) == string",
            metadata_text("oldObject", "labels", names::MANAGED_BY),
            metadata_text("oldObject", "annotations", names::PREPARATION),
        ),
        message:
            "the controller writes spec.pluginConfig.intercepts of prepared WasmPlugins, as a text"
                .to_owned(),
    }
}

fn metadata() -> Validation {
    Validation {
        comment: "A label such as `istio.io/rev` would take the filter out of the proxies; a finalizer or an owner would bind its life to something else.",
        expression: "['labels', 'annotations', 'finalizers', 'ownerReferences'].all(k, dyn(object).metadata[?k] == dyn(oldObject).metadata[?k])".to_owned(),
        message: "the controller may not change a WasmPlugin's labels, annotations, finalizers or owners".to_owned(),
    }
}

fn spec() -> Validation {
    let same = |map: &str, but: &str| {
        let [new, old] = ["object", "oldObject"].map(|object| format!("dyn({object}).{map}"));
        format!(
            "{new}.all(k, k == '{but}' || {new}[?k] == {old}[?k]) &&\n{old}.all(k, k == '{but}' || k in {new})"
        )
    };
    // The installer writes pluginConfig; an object without it cannot be judged and is refused.
    Validation {
        comment: "The module, its digest, the limits, the selector and all else are the operator's.",
        expression: format!(
            "{} &&\n{}",
            same("spec", "pluginConfig"),
            same("spec.pluginConfig", "intercepts")
        ),
        message:
            "the controller may change nothing of a WasmPlugin but spec.pluginConfig.intercepts"
                .to_owned(),
    }
}

/// Is the object the EnvoyFilter of an intercept?
fn is_of_intercept() -> String {
    let manager = metadata_text("variables.target", "labels", names::MANAGED_BY);
    let (prefix, digits) = (names::INTERCEPT_PREFIX, names::INTERCEPT_HASH);
    let others = prefix.len() + 1 + digits;
    let name = "string(variables.target.metadata.name)";
    format!(
        "{manager} == '{MANAGER}' &&\nvariables.name != '' &&\n{name}.startsWith('{prefix}' + variables.name + '-') &&\n{name}.matches('-[0-9a-f]{{{digits}}}$') &&\nsize({name}) == size(variables.name) + {others}"
    )
}

fn name_and_owner() -> Validation {
    Validation {
        comment: "The intercept's name, and the WasmPlugin with which it goes.",
        expression: format!(
            "variables.name.matches('^{LABEL}$') &&\n!has(object.metadata.finalizers) &&\nsize(dyn(object).metadata.?ownerReferences.orValue([])) == 1 &&\nobject.metadata.ownerReferences[0].kind == 'WasmPlugin'"
        ),
        message: "the EnvoyFilter of an Intercept is owned by a WasmPlugin and has no finalizers"
            .to_owned(),
    }
}

fn patch() -> Validation {
    let patch = cel::with_expressions(&gate::add_cluster(json!("VALUE")), &|text| {
        (text == "VALUE").then(|| "variables.value".to_owned())
    });
    let labels = "dyn(object).spec.workloadSelector.labels";
    Validation {
        comment: "One patch that adds one cluster, to pods that labels select. An EnvoyFilter without labels would reach every proxy of the namespace.",
        expression: format!(
            "dyn(object).spec == {{\n  'workloadSelector': dyn({{'labels': {labels}}}),\n  'configPatches': dyn([{patch}])\n}} &&\nsize({labels}) > 0"
        ),
        message: "expected one CLUSTER ADD for SIDECAR_INBOUND, a workloadSelector with labels, and nothing else".to_owned(),
    }
}

fn members(mesh: &Mesh) -> Validation {
    let host = regex(&format!(".{}.svc.{}", mesh.namespace, mesh.cluster_domain));
    let relay = names::RELAY;
    Validation {
        comment: "A relay, then the in-cluster version: a cluster with any other member could send the workload's requests anywhere.",
        expression: format!(
            "size(variables.members) == 2 &&\nvariables.members[0].matches('^outbound[|]({HTTP_PORT}|{H2_PORT})[|][|]{relay}-[0-9]+{host}$') &&\nvariables.members[1].matches('^intercept-app[|][0-9]+$')"
        ),
        message:
            "the cluster's members must be a relay and the workload's own `intercept-app|PORT`"
                .to_owned(),
    }
}

/// Only dots mean something else in a name.
fn regex(name: &str) -> String {
    name.replace('.', "[.]")
}

fn shape() -> Validation {
    Validation {
        comment: "Every field as the controller writes it. `metadata`, which is for metrics, is looked at below.",
        expression: "variables.value.all(k, k == 'metadata' || variables.value[?k] == variables.expected[?k]) &&\nvariables.expected.all(k, k in variables.value)".to_owned(),
        message: "the cluster differs from what the controller of this installation's version writes".to_owned(),
    }
}

fn services() -> Validation {
    let services = "variables.value.metadata.filter_metadata.istio.services";
    let only = cel::with_expressions(
        &json!({"filter_metadata": {"istio": {"services": "SERVICES"}}}),
        &|text| (text == "SERVICES").then(|| services.to_owned()),
    );
    Validation {
        comment: "Names for metrics, of Services beside the workload only.",
        expression: format!(
            "!('metadata' in variables.value) || (\n  variables.value.metadata == {only} &&\n  {services}.all(s, s.namespace == request.namespace)\n)"
        ),
        message:
            "the cluster's metadata may only name Services of this namespace for Istio's metrics"
                .to_owned(),
    }
}
