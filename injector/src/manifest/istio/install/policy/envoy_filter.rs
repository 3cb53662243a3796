//! Which EnvoyFilters a developer may write: the cluster of their own intercept, in exactly the shape that we render.

use serde_json::json;

use super::{LABEL, Policy, SECONDS, SUBDOMAIN, Validation, cel, metadata_text};
use crate::manifest::cluster;
use crate::manifest::istio::facts::Mesh;
use crate::manifest::istio::install::{H2_PORT, HTTP_PORT};
use crate::manifest::istio::names::MANAGER;
use crate::manifest::istio::{Kind, gate, names};

pub fn policy(mesh: &Mesh) -> Policy {
    Policy {
        name: "injector-clusters",
        comment: "Holds developers to EnvoyFilters of one shape: `intercept-NAME` with the cluster `intercept|PORT|NAME` and nothing else, under their own name.\n\
                  Who may write an EnvoyFilter could otherwise change every route and run any Lua in the namespace's sidecars. Deleting is the policies injector-deletions and injector-leftover-clusters."
            .to_owned(),
        group: "networking.istio.io",
        version: "v1alpha3",
        resource: "envoyfilters",
        operations: &["CREATE", "UPDATE"],
        conditions: vec![Policy::held("networking.istio.io", "envoyfilters")],
        variables: variables(),
        validations: vec![
            name(),
            owner(),
            found_again(),
            bound(),
            patch(),
            members(mesh),
            shape(),
            metadata(),
        ],
        clock: false,
    }
}

/// Which EnvoyFilters may be deleted at all; without a clock, so that it may look at everybody's.
pub fn deletions() -> Policy {
    Policy {
        name: "injector-deletions",
        comment: "Lets developers delete EnvoyFilters of intercepts and no others. Whose, and when, is the policy injector-leftover-clusters.".to_owned(),
        group: "networking.istio.io",
        version: "v1alpha3",
        resource: "envoyfilters",
        operations: &["DELETE"],
        conditions: vec![Policy::held("networking.istio.io", "envoyfilters")],
        variables: Vec::new(),
        validations: vec![Validation {
            comment: "An EnvoyFilter that no intercept made. Without the label of ours, the policy injector-leftover-clusters would not see it.",
            expression: is_of_intercept("oldObject"),
            message: "a developer may delete only EnvoyFilters of intercepts".to_owned(),
        }],
        clock: false,
    }
}

/// Is this object the EnvoyFilter of an intercept?
pub fn is_of_intercept(object: &str) -> String {
    let intercept = metadata_text(object, "labels", names::INTERCEPT);
    let manager = metadata_text(object, "labels", names::MANAGED_BY);
    format!(
        "{manager} == '{MANAGER}' &&\n{intercept} != '' &&\n{object}.metadata.name == '{}' + {intercept}",
        names::INTERCEPT_PREFIX
    )
}

pub fn variables() -> Vec<(&'static str, String, &'static str)> {
    let clusters = "variables.value.cluster_type.typed_config.clusters";
    vec![
        (
            "name",
            metadata_text("object", "labels", names::INTERCEPT),
            "",
        ),
        (
            "value",
            "dyn(object).spec.configPatches[0].patch.value".to_owned(),
            "",
        ),
        ("members", clusters.to_owned(), ""),
        (
            "port",
            "string(variables.members[1]).split('|')[1]".to_owned(),
            "That of the fallback `intercept-app|PORT`. Being in the cluster's name, it is the entry's as well: the policy injector-entries sees to that.",
        ),
        (
            "expected",
            expected(),
            "The cluster that `injector intercept` writes; its members are looked at below.",
        ),
    ]
}

/// The same code as the intercept's own rendering: the two cannot drift apart.
fn expected() -> String {
    let cluster = cluster::aggregate("NAME", "RELAY", "APP");
    cel::with_expressions(&cluster, &|text| match text {
        "NAME" => Some("'intercept|' + variables.port + '|' + variables.name".to_owned()),
        "RELAY" => Some("variables.members[0]".to_owned()),
        "APP" => Some("variables.members[1]".to_owned()),
        _ => None,
    })
}

fn name() -> Validation {
    let prefix = names::INTERCEPT_PREFIX;
    Validation {
        comment: "Any other EnvoyFilter is none of a developer's business. Labels say which intercept it belongs to, and that it is ours to take away.",
        expression: format!(
            "variables.name.matches('^{LABEL}$') &&\nobject.metadata.name == '{prefix}' + variables.name &&\n{} == '{MANAGER}' &&\n{} == 'injector'",
            metadata_text("object", "labels", names::MANAGED_BY),
            metadata_text("object", "labels", names::PART_OF),
        ),
        message: format!(
            "a developer may write only EnvoyFilters `{prefix}NAME` with the labels {}=NAME, {}={MANAGER} and {}=injector",
            names::INTERCEPT,
            names::MANAGED_BY,
            names::PART_OF,
        ),
    }
}

fn owner() -> Validation {
    let is_me = |object: &str| {
        format!(
            "{} == request.userInfo.username",
            metadata_text(object, "annotations", names::OWNER)
        )
    };
    Validation {
        comment: "Nobody writes in somebody else's name, nor takes over what somebody else made.",
        expression: format!(
            "{} &&\n(oldObject == null || {})",
            is_me("object"),
            is_me("oldObject")
        ),
        message: format!(
            "the annotation {} must be you, before and after the change",
            names::OWNER
        ),
    }
}

/// What clears it away goes by this, and sees no other object either.
fn found_again() -> Validation {
    let kinds = [Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet].map(Kind::name);
    let annotation = |key| metadata_text("object", "annotations", key);
    Validation {
        comment: "`injector uninstall` finds it by its workload; whoever clears away leftovers, by the end of its lease.",
        expression: format!(
            "{}.matches('^({})/{SUBDOMAIN}$') &&\n{}.matches('^{SECONDS}$')",
            annotation(names::WORKLOAD),
            kinds.join("|"),
            annotation(names::EXPIRES),
        ),
        message: format!(
            "expected the annotations {}=KIND/NAME, of its workload, and {}=SECONDS, the end of its lease",
            names::WORKLOAD,
            names::EXPIRES
        ),
    }
}

fn bound() -> Validation {
    Validation {
        comment: "A finalizer would keep it, and its namespace, from ever going; an owner would bind its life to something else.",
        expression: "['finalizers', 'ownerReferences'].all(k,\n  dyn(object).metadata[?k].orValue([]) == (oldObject == null ? dyn([]) : dyn(oldObject).metadata[?k].orValue([]))\n)".to_owned(),
        message: "a developer may not change an EnvoyFilter's finalizers or owners".to_owned(),
    }
}

pub fn patch() -> Validation {
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

pub fn shape() -> Validation {
    Validation {
        comment: "Every field as `injector intercept` writes it. `metadata`, which is for metrics, is looked at below.",
        expression: "variables.value.all(k, k == 'metadata' || variables.value[?k] == variables.expected[?k]) &&\nvariables.expected.all(k, k in variables.value)".to_owned(),
        message: "the cluster differs from what `injector intercept` of this installation's version writes".to_owned(),
    }
}

pub fn members(mesh: &Mesh) -> Validation {
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

pub fn metadata() -> Validation {
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
