//! What `install --dry-run` and `render istio` print: objects on stdout, so that they can be applied, and beside them on stderr what an operator should know.

use intercept_kube::Kind;
use intercept_manifest::istio::{Module, Object};
use intercept_manifest::printable::one_line;

use super::planned::Planned;
use crate::args::{Format, Global};
use crate::error::{OrHint, Result};
use crate::install::apply::{self, CLUSTER_WIDE, RELAYS, RULES};
use crate::install::plan::{self, Filter};
use crate::install::upgrade::Stale;
use crate::install::{outbound, remove};
use crate::output::print;

/// Everything that the same command would apply, and what it would remove and leave.
pub async fn print(global: &Global, planned: &Planned<'_>) -> Result<()> {
    let mut notes = Vec::new();
    let mut objects = Vec::new();
    if let Some(part) = &planned.cluster_part {
        let namespace = Some(planned.install.mesh.namespace.as_str());
        notes.extend(removed(planned, namespace, RELAYS, part).await?);
        notes.extend(removed(planned, None, CLUSTER_WIDE, part).await?);
        objects.extend_from_slice(part);
    }
    if let Some(chosen) = &planned.chosen {
        let prepared = planned.prepared(chosen).await?;
        let namespace = Some(planned.cluster.namespace());
        notes.extend(prepared.notes);
        notes.extend(removed(planned, namespace, RULES, &prepared.objects).await?);
        plan::add(&mut objects, prepared.objects);
    }
    if let Some((outbound, of_outbound)) = &planned.outbound {
        let namespace = Some(outbound.namespace.as_str());
        notes.extend(removed(planned, namespace, outbound::SETS, of_outbound).await?);
        objects.extend_from_slice(of_outbound);
    }
    if planned.cluster_part.is_some() {
        for (namespace, others) in planned.other_outbounds().await? {
            notes.extend(removed(planned, Some(&namespace), outbound::SETS, &others).await?);
            objects.extend(others);
        }
        let module = served(planned, &mut notes).await;
        for stale in planned.others(module.as_ref()).await? {
            add_other(planned, stale, &mut objects, &mut notes).await?;
        }
    }
    print_objects(global.output, objects.iter())?;
    tell(global, &notes);
    Ok(())
}

/// The filter that other workloads would be prepared with; `None`: the one that they have.
async fn served(planned: &Planned<'_>, notes: &mut Vec<String>) -> Option<Module> {
    if planned.how.no_wait {
        return None;
    }
    let why = match &planned.filter {
        Filter::Ours { sha256: None } if planned.is_new_image => {
            "it is known only once the image runs".to_owned()
        }
        filter => match filter.module(&planned.cluster, &planned.install).await {
            Ok(module) => return Some(module),
            Err(failure) => failure.error().to_owned(),
        },
    };
    let others = remove::prepared(&planned.cluster, None).await;
    if planned.chosen.is_some() || others.is_ok_and(|others| !others.is_empty()) {
        notes.push(format!(
            "which filter will be served is not known ({why}): what is printed pins the one of now; workloads that are prepared already would get the new one as well, \
             where that drains nothing. To see it: --module FILE, the image's filter.wasm"
        ));
    }
    None
}

async fn add_other(
    planned: &Planned<'_>,
    stale: Stale,
    objects: &mut Vec<Object>,
    notes: &mut Vec<String>,
) -> Result<()> {
    if !planned.is_done_again(&stale) {
        notes.push(planned.left(&stale));
        return Ok(());
    }
    let why = stale.waits.unwrap_or("nothing would be drained");
    notes.push(format!("{stale}: would be prepared again ({why})"));
    for line in removed(planned, Some(&stale.namespace), RULES, stale.objects()).await? {
        // Workloads of one namespace share their rules.
        if !notes.contains(&line) {
            notes.push(line);
        }
    }
    plan::add(objects, stale.objects().iter().cloned());
    Ok(())
}

/// A line for each object that would be removed, see [`apply::prune`].
async fn removed(
    planned: &Planned<'_>,
    namespace: Option<&str>,
    kinds: &[&'static Kind],
    objects: &[Object],
) -> Result<Vec<String>> {
    let surplus = apply::surplus(&planned.cluster, namespace, kinds, objects).await?;
    let lines = surplus.iter().map(|(kind, name)| {
        let object = kind.label(namespace, name);
        format!("{object}: would be removed")
    });
    Ok(lines.collect())
}

/// Objects with their comments, or as the API server takes them.
pub fn print_objects<'o>(format: Format, objects: impl Iterator<Item = &'o Object>) -> Result<()> {
    let objects: Vec<&Object> = objects.collect();
    let text = match format {
        Format::Text | Format::Yaml => {
            let documents: Vec<String> = objects
                .iter()
                .map(|object| object.yaml())
                .collect::<Result<_, _>>()
                .or_hint("render", "injector --version")?;
            documents.join("---\n")
        }
        Format::Json => {
            let items: Vec<_> = objects.iter().map(|object| object.value()).collect();
            let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items});
            format!("{list:#}\n")
        }
        Format::Name => {
            let mut text = String::new();
            for object in &objects {
                let kind = apply::kind_of(object)?;
                text.push_str(&format!(
                    "{}\n",
                    kind.label(object.namespace(), object.name())
                ));
            }
            text
        }
    };
    print::stdout(&text)
}

/// Notes beside objects that are printed: on stderr, so that what is on stdout can be applied.
pub fn tell(global: &Global, notes: &[String]) {
    for note in notes.iter().filter(|_| !global.quiet) {
        eprintln!("note: {}", one_line(note));
    }
}
