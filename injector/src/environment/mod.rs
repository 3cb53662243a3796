//! The environment of a workload's container, as the kubelet would make it.
//!
//! Pure: objects in, variables out.
//!
//! Service variables come first, then `envFrom` and `env`, each in order and over the ones before, with `$(VAR)` expanded. Variables of the image are left out: only the node
//! knows them. Knows neither where the objects come from nor who may read them. No note, error or `Debug` output contains a value.

mod code;
mod expand;
mod fields;
pub mod file;
mod links;
pub mod local;
mod quantity;

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource};
use serde_json::Value;

pub use links::{Links, links};

/// Variables that keep the developer's own value.
///
/// User, session and host, and how programs and libraries are found.
const ONES_OWN: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TERM",
    "PWD",
    "OLDPWD",
    "HOSTNAME",
    "TMPDIR",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "SSH_AUTH_SOCK",
    "KUBECONFIG",
    "INJECTOR_ENVOY",
];

/// Prefixes of such variables: directories of the user, and the dynamic linker.
const ONES_OWN_PREFIXES: &[&str] = &["XDG_", "LD_", "DYLD_"];

/// Variables by name, and notes about those that are missing.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    notes: Vec<String>,
}

/// Shows names only: a value may be a secret.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Environment")
            .field("variables", &self.variables.keys())
            .field("notes", &self.notes)
            .finish()
    }
}

/// An object that a container's environment refers to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reference {
    /// A ConfigMap.
    ConfigMap(String),
    /// A Secret.
    Secret(String),
}

/// The existing objects by reference. An object that is not in it does not exist.
pub type Objects = BTreeMap<Reference, Value>;

/// Lists each object that the container's environment refers to once.
pub fn references(container: &Container) -> Vec<Reference> {
    let from = container.env_from.iter().flatten().flat_map(|source| {
        let config_map = source
            .config_map_ref
            .as_ref()
            .map(|it| Reference::ConfigMap(it.name.clone()));
        let secret = source
            .secret_ref
            .as_ref()
            .map(|it| Reference::Secret(it.name.clone()));
        [config_map, secret]
    });
    let sources = container
        .env
        .iter()
        .flatten()
        .filter(|variable| is_by_reference(variable));
    let keys = sources
        .filter_map(|variable| variable.value_from.as_ref())
        .flat_map(|source| {
            let config_map = source
                .config_map_key_ref
                .as_ref()
                .map(|it| Reference::ConfigMap(it.name.clone()));
            let secret = source
                .secret_key_ref
                .as_ref()
                .map(|it| Reference::Secret(it.name.clone()));
            [config_map, secret]
        });
    let mut all: Vec<Reference> = from.chain(keys).flatten().collect();
    all.sort();
    all.dedup();
    all
}

/// Is the value a reference? A literal value takes precedence over a reference.
fn is_by_reference(variable: &EnvVar) -> bool {
    variable.value.as_deref().unwrap_or_default().is_empty()
}

/// The container's environment. Fields come from `pod`, one pod of the workload.
pub fn resolve(
    container: &Container,
    pod: Option<&Value>,
    objects: &Objects,
    links: &Links,
) -> Environment {
    let mut made = Environment::default();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            let is_optional = reference.optional == Some(true);
            made.add_all(
                prefix,
                objects,
                Reference::ConfigMap(reference.name.clone()),
                is_optional,
            );
        }
        if let Some(reference) = &source.secret_ref {
            let is_optional = reference.optional == Some(true);
            made.add_all(
                prefix,
                objects,
                Reference::Secret(reference.name.clone()),
                is_optional,
            );
        }
    }
    for variable in container.env.iter().flatten() {
        match (&variable.value, &variable.value_from) {
            (Some(text), _) if !text.is_empty() => made.add_expanded(&variable.name, text, links),
            (_, Some(source)) => {
                let value = of_source(source, container, pod, objects);
                made.add_found(&variable.name, value);
            }
            // The kubelet sets an empty variable.
            _ => made.add(&variable.name, String::new()),
        }
    }
    for (name, value) in links {
        if !made.variables.contains_key(name) {
            made.add(name, value.clone());
        }
    }
    made
}

/// A value, `Ok(None)` for a missing optional one, or an error that says why it is unknown.
type Sought = Result<Option<String>, String>;

fn of_source(
    source: &EnvVarSource,
    container: &Container,
    pod: Option<&Value>,
    objects: &Objects,
) -> Sought {
    if let Some(key) = &source.config_map_key_ref {
        let reference = Reference::ConfigMap(key.name.clone());
        return of_key(objects, &reference, &key.key, key.optional == Some(true));
    }
    if let Some(key) = &source.secret_key_ref {
        let reference = Reference::Secret(key.name.clone());
        return of_key(objects, &reference, &key.key, key.optional == Some(true));
    }
    if let Some(field) = &source.field_ref {
        return fields::of_pod(pod, &field.field_path).map(Some);
    }
    if let Some(field) = &source.resource_field_ref {
        return fields::of_resources(field, container, pod).map(Some);
    }
    Err("its source is of a kind that only the node can read".to_owned())
}

fn of_key(objects: &Objects, reference: &Reference, key: &str, is_optional: bool) -> Sought {
    let Some(object) = objects.get(reference) else {
        return match is_optional {
            true => Ok(None),
            false => Err(format!("there is no {}", reference.without_article())),
        };
    };
    match data(reference, object).find(|(name, _)| *name == key) {
        Some((_, value)) => value.map(Some),
        None if is_optional => Ok(None),
        None => Err(format!("{reference} has no key {key}")),
    }
}

/// Keys and values of an object.
fn data<'o>(
    reference: &'o Reference,
    object: &'o Value,
) -> impl Iterator<Item = (&'o str, Result<String, String>)> {
    let pairs = object["data"].as_object().into_iter().flatten();
    pairs.map(move |(key, value)| {
        let text = value.as_str().unwrap_or_default();
        let value = match reference {
            Reference::ConfigMap(_) => Ok(text.to_owned()),
            Reference::Secret(_) => decoded(text)
                .ok_or_else(|| format!("the value of {key} in {reference} is not text (UTF-8)")),
        };
        (key.as_str(), value)
    })
}

/// Decodes a Secret's value.
fn decoded(base64: &str) -> Option<String> {
    let bytes: k8s_openapi::ByteString =
        serde_json::from_value(Value::String(base64.to_owned())).ok()?;
    String::from_utf8(bytes.0).ok()
}

impl Environment {
    /// Notes on variables that are left out, each a sentence without a full stop.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Adds a note for the user.
    pub fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// Names and values, sorted by name.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.variables.iter();
        pairs.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The variables for a program on the developer machine.
    ///
    /// Leaves out those that are about the machine itself.
    pub fn for_child(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables().filter(|(name, _)| !is_ones_own(name))
    }

    /// Removes variables that could run code on the developer machine, and adds a note.
    pub fn leave_out_code(&mut self) {
        let left_out = self
            .variables
            .extract_if(.., |name, _| code::may_run_code(name));
        let names: Vec<String> = left_out.map(|(name, _)| name).collect();
        if !names.is_empty() {
            self.note(format!(
                "left out, since it can make programs run other code on this machine: {} (--env-all passes it on)",
                names.join(", ")
            ));
        }
    }

    /// Rewrites the variables that name one of these Services to the local address, and adds notes.
    pub fn point_to(&mut self, services: &[local::LocalService]) {
        let lines = local::point_to(&mut self.variables, services);
        self.notes.extend(lines);
    }

    fn add_all(
        &mut self,
        prefix: &str,
        objects: &Objects,
        reference: Reference,
        is_optional: bool,
    ) {
        let Some(object) = objects.get(&reference) else {
            if !is_optional {
                self.note(format!(
                    "the variables of {reference} are left out: there is none of this name"
                ));
            }
            return;
        };
        for (key, value) in data(&reference, object) {
            self.add_found(&format!("{prefix}{key}"), value.map(Some));
        }
    }

    fn add_found(&mut self, name: &str, value: Sought) {
        match value {
            Ok(Some(value)) => self.add(name, value),
            Ok(None) => {}
            Err(why) => self.note(format!("{name} is left out: {why}")),
        }
    }

    fn add_expanded(&mut self, name: &str, text: &str, links: &Links) {
        let mut unknown = Vec::new();
        let value = expand::expand(text, |wanted| {
            let known = self.variables.get(wanted).or_else(|| links.get(wanted));
            let value = known.cloned();
            if value.is_none() {
                unknown.push(wanted.to_owned());
            }
            value
        });
        for wanted in unknown {
            self.note(format!(
                "{name}: $({wanted}) is not known here and stays as it is written"
            ));
        }
        self.add(name, value);
    }

    fn add(&mut self, name: &str, value: String) {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            self.note(format!(
                "{} is left out: no process can have such a variable",
                name.escape_debug()
            ));
            return;
        }
        self.variables.insert(name.to_owned(), value);
    }
}

fn is_ones_own(name: &str) -> bool {
    ONES_OWN.contains(&name)
        || ONES_OWN_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

impl Reference {
    /// Kind and name without an article: `secret db`.
    fn without_article(&self) -> String {
        match self {
            Self::ConfigMap(name) => format!("config map {name}"),
            Self::Secret(name) => format!("secret {name}"),
        }
    }
}

/// Kind and name in a sentence: `the secret db`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "the {}", self.without_article())
    }
}

#[cfg(test)]
mod tests;
