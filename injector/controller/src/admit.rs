//! Decides which Intercepts are accepted, and why the others are not. Pure.
//!
//! An Intercept that was accepted before takes precedence over others in conflicts and budgets, also after a restart of the controller; the others go by age, then by uid.
//! So a running intercept does not end because an older one, which lost against a third, may now be accepted.

use std::collections::{BTreeMap, HashMap, HashSet};

use intercept_core::{
    Document, Intercept as Entry, InvalidIntercept, TEXT_SCHEMA_VERSION, room, validate,
};
use intercept_manifest::istio::preparation::ControlledPlugin;
use intercept_manifest::istio::resource::{InterceptSpec, Path};
use intercept_manifest::printable::one_line;

use super::model::{Candidate, Key};
use intercept_overlap::{self as overlap, ExampleRequest, Kind as Meets};

/// The limit for the text of all intercepts of a workload, in bytes.
///
/// etcd stores 1.5 MiB per object, and rejects every change of an object that is full.
pub const BYTE_BUDGET: usize = 512 << 10;

/// Why an Intercept is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reason of the condition, one word.
    pub reason: &'static str,
    /// The message of the condition.
    pub message: String,
}

impl Refusal {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// Earlier decisions.
#[derive(Debug, Default)]
pub struct Verdicts {
    /// The uids of accepted Intercepts.
    accepted: HashSet<String>,
    /// Conflicts by uid, each with the uid of the other Intercept.
    ///
    /// Kept as long as that one is accepted: comparing again would cost an automaton per pair.
    conflicts: HashMap<String, (String, Refusal)>,
    /// Were decisions restored from the text that an earlier controller wrote?
    is_restored: bool,
}

/// The decisions on the candidates.
#[derive(Debug, Default)]
pub struct Admission {
    /// The accepted Intercepts of each workload, the oldest first.
    ///
    /// Their positions among the candidates, and their entries.
    pub accepted: BTreeMap<Key, Vec<(usize, Entry)>>,
    /// The rejected ones, by position.
    pub refused: BTreeMap<usize, Refusal>,
}

/// The Intercepts of one workload accepted so far.
struct Workload {
    document: Document,
    /// Positions by name.
    places: HashMap<String, usize>,
}

/// Decides on all candidates. `plugins` are what operators prepared, or why that cannot be used.
pub fn admit(
    candidates: &[Candidate],
    plugins: &BTreeMap<Key, Result<ControlledPlugin, String>>,
    verdicts: &mut Verdicts,
    now: u64,
) -> Admission {
    verdicts.restore(candidates, plugins);
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|place| verdicts.rank(&candidates[*place]));
    let mut workloads: BTreeMap<Key, Workload> = BTreeMap::new();
    let mut addresses: HashMap<&str, &str> = HashMap::new();
    let mut admission = Admission::default();
    for place in order {
        let one = &candidates[place];
        let plugin = plugins.get(&one.plugin);
        let workload = workloads.entry(one.plugin.clone()).or_default();
        let judged = entry_of(one, plugin)
            .and_then(|entry| held_address(one, &addresses).map_or(Ok(entry), Err))
            .and_then(|entry| {
                let met = verdicts.conflict(one, &entry, workload, candidates, now);
                met.map_or(Ok(entry), Err)
            });
        match judged {
            Ok(entry) => {
                addresses.insert(&one.spec().tunnel.address, one.name());
                workload.places.insert(one.name().to_owned(), place);
                let entries = &mut workload.document.intercepts;
                entries.insert(one.name().to_owned(), entry);
            }
            Err(refusal) => {
                admission.refused.insert(place, refusal);
            }
        }
    }
    for (key, workload) in workloads {
        let accepted = within_budgets(workload, candidates, verdicts, &mut admission.refused);
        if !accepted.is_empty() {
            admission.accepted.insert(key, accepted);
        }
    }
    verdicts.keep(&admission, candidates);
    admission
}

impl Verdicts {
    /// Treats Intercepts as accepted whose entries are in the texts.
    ///
    /// A controller that was killed may have written an entry and no status.
    fn restore(
        &mut self,
        candidates: &[Candidate],
        plugins: &BTreeMap<Key, Result<ControlledPlugin, String>>,
    ) {
        if std::mem::replace(&mut self.is_restored, true) {
            return;
        }
        let readable = plugins
            .iter()
            .filter_map(|(key, plugin)| Some((key, plugin.as_ref().ok()?)));
        let written = readable.flat_map(|(key, plugin)| {
            let entries = plugin.entries().into_iter();
            entries.map(move |(name, entry)| ((key, name), entry.address))
        });
        let written: HashMap<(&Key, String), String> = written.collect();
        let accepted = candidates.iter().filter(|one| {
            let address = written.get(&(&one.plugin, one.name().to_owned()));
            address == Some(&one.spec().tunnel.address)
        });
        self.accepted
            .extend(accepted.map(|one| one.uid().to_owned()));
    }

    /// The rank; smaller goes first.
    fn rank<'c>(&self, one: &'c Candidate) -> (bool, (u64, &'c str)) {
        (!self.was_accepted(one), one.age())
    }

    fn was_accepted(&self, one: &Candidate) -> bool {
        self.accepted.contains(one.uid()) || one.is_recorded_as_accepted()
    }

    /// The conflict with an accepted Intercept, if any.
    fn conflict(
        &mut self,
        one: &Candidate,
        entry: &Entry,
        workload: &Workload,
        candidates: &[Candidate],
        now: u64,
    ) -> Option<Refusal> {
        if one.spec().allow_overlap == Some(true) || self.was_accepted(one) {
            return None;
        }
        let uid_of = |name: &str| {
            workload
                .places
                .get(name)
                .map(|place| candidates[*place].uid())
        };
        if let Some((other, refusal)) = self.conflicts.get(one.uid())
            && workload
                .places
                .values()
                .any(|place| candidates[*place].uid() == other)
        {
            return Some(refusal.clone());
        }
        let meetings = overlap::check(&workload.document, one.name(), entry, now);
        let meeting = meetings
            .into_iter()
            .find(|one| one.kind == Meets::Refused)?;
        let example = meeting.example.as_ref().map(example).unwrap_or_default();
        let refusal = Refusal::new(
            "Conflict",
            format!(
                "{} of {} matches the same requests{example}",
                meeting.other, meeting.owner
            ),
        );
        let other = uid_of(&meeting.other).unwrap_or_default().to_owned();
        self.conflicts
            .insert(one.uid().to_owned(), (other, refusal.clone()));
        Some(refusal)
    }

    fn keep(&mut self, admission: &Admission, candidates: &[Candidate]) {
        let places = admission
            .accepted
            .values()
            .flatten()
            .map(|(place, _)| *place);
        self.accepted = places
            .map(|place| candidates[place].uid().to_owned())
            .collect();
        let conflicts: HashSet<&str> = admission
            .refused
            .iter()
            .filter(|(_, refusal)| refusal.reason == "Conflict")
            .map(|(place, _)| candidates[*place].uid())
            .collect();
        self.conflicts
            .retain(|uid, _| conflicts.contains(uid.as_str()));
    }
}

/// The example in a message: `, for example GET /api with Coder: Bob`.
fn example(request: &ExampleRequest) -> String {
    let headers: Vec<String> = request
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    let with = if headers.is_empty() { "" } else { " with " };
    format!(
        ", for example {} {}{with}{}",
        request.method,
        request.path,
        headers.join(", ")
    )
}

/// The entry for the filter, if the Intercept is valid.
fn entry_of(
    one: &Candidate,
    plugin: Option<&Result<ControlledPlugin, String>>,
) -> Result<Entry, Refusal> {
    let spec = one.spec();
    let label = spec.workload.label();
    let plugin = match plugin {
        None => {
            return Err(Refusal::new(
                "NotPrepared",
                format!("{label} is not prepared"),
            ));
        }
        Some(Err(what)) => return Err(Refusal::new("NotPrepared", what.clone())),
        Some(Ok(plugin)) => plugin,
    };
    let preparation = &plugin.preparation;
    let mut ports = preparation.workload.ports.iter();
    if !ports.any(|port| port.number == spec.port) {
        let message = format!("spec.port: port {} of {label} is not prepared", spec.port);
        return Err(Refusal::new("NotPrepared", message));
    }
    let (relay, relays) = (spec.tunnel.relay, preparation.mesh.relay_replicas);
    if relay >= relays {
        let message = format!("spec.tunnel.relay: {relay}: there are {relays}, counted from 0");
        return Err(Refusal::new("Invalid", message));
    }
    if let Some(field) = unprintable(spec) {
        let message = format!("spec.{field}: has a control or format character");
        return Err(Refusal::new("Invalid", message));
    }
    let entry = one.intercept.entry(one.lease.expires);
    match validate(one.name(), &entry, &plugin.limits) {
        Ok(()) => Ok(entry),
        Err(error) => {
            let reason = match error {
                InvalidIntercept::All
                | InvalidIntercept::ForbiddenHeader(..)
                | InvalidIntercept::ForbiddenBaggage => "Forbidden",
                _ => "Invalid",
            };
            Err(Refusal::new(
                reason,
                one_line(&format!("spec.match{error}")),
            ))
        }
    }
}

/// The first field with a character that could forge a line of a log or of a terminal.
fn unprintable(spec: &InterceptSpec) -> Option<String> {
    let is_bad = |text: &str| one_line(text) != text;
    let path = match &spec.r#match.path {
        Some(Path::Equal(text) | Path::Prefix(text) | Path::Regex(text)) => Some(text.as_str()),
        None => None,
    };
    let headers = spec.r#match.headers.iter().enumerate();
    let baggage = spec.r#match.baggage.iter().enumerate();
    let mut fields = headers
        .flat_map(|(index, one)| {
            [
                (format!("match.headers[{index}].name"), one.name.as_str()),
                (format!("match.headers[{index}].value"), one.value.as_str()),
            ]
        })
        .chain(baggage.flat_map(|(index, one)| {
            [
                (format!("match.baggage[{index}].key"), one.key.as_str()),
                (format!("match.baggage[{index}].value"), one.value.as_str()),
            ]
        }))
        .chain(path.map(|text| ("match.path".to_owned(), text)))
        .chain([("owner".to_owned(), spec.owner.as_str())]);
    fields
        .find(|(_, text)| is_bad(text))
        .map(|(field, _)| field)
}

/// The conflict over a tunnel's address, which belongs to one Intercept.
///
/// Another one with it would send requests to another developer's program.
fn held_address(one: &Candidate, addresses: &HashMap<&str, &str>) -> Option<Refusal> {
    let holder = addresses.get(one.spec().tunnel.address.as_str())?;
    Some(Refusal::new(
        "AddressInUse",
        format!("spec.tunnel.address: it is the tunnel of {holder}"),
    ))
}

/// The accepted Intercepts that fit into the budgets, the oldest first.
///
/// Adds the others to `refused`.
fn within_budgets(
    workload: Workload,
    candidates: &[Candidate],
    verdicts: &Verdicts,
    refused: &mut BTreeMap<usize, Refusal>,
) -> Vec<(usize, Entry)> {
    let Workload { document, places } = workload;
    let mut entries: Vec<(usize, (String, Entry))> = document
        .intercepts
        .into_iter()
        .filter_map(|(name, entry)| Some((*places.get(&name)?, (name, entry))))
        .collect();
    entries.sort_by_key(|(place, _)| verdicts.rank(&candidates[*place]));
    let (order, named): (Vec<usize>, Vec<(String, Entry)>) = entries.into_iter().unzip();
    let mut reasons: HashMap<String, String> = room::left_out(&named)
        .into_iter()
        .filter_map(|rejected| Some((rejected.intercept?, rejected.reason)))
        .collect();
    for name in over_byte_budget(&named) {
        let reason = format!(
            "intercepts.{name}: all intercepts of the workload take more than {BYTE_BUDGET} bytes together, and it is left out first (most intercepts of one owner, youngest)"
        );
        reasons.entry(name).or_insert(reason);
    }
    let mut accepted = Vec::new();
    for (place, (name, entry)) in order.into_iter().zip(named) {
        match reasons.remove(&name) {
            Some(reason) => {
                refused.insert(place, Refusal::new("TooMany", reason));
            }
            None => accepted.push((place, entry)),
        }
    }
    accepted.sort_by_key(|(place, _)| candidates[*place].age());
    accepted
}

/// The entries that do not fit into [`BYTE_BUDGET`].
///
/// Each owner's first entry goes before each owner's second, and so on.
fn over_byte_budget(entries: &[(String, Entry)]) -> Vec<String> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let mut order: Vec<(usize, usize)> = Vec::with_capacity(entries.len());
    for (index, (_, entry)) in entries.iter().enumerate() {
        let count = counts.entry(&entry.owner).or_default();
        order.push((*count, index));
        *count += 1;
    }
    order.sort_unstable();
    let mut left = BYTE_BUDGET;
    let mut over = Vec::new();
    for (_, index) in order {
        let (name, entry) = &entries[index];
        // With the quotes and the comma around it.
        let bytes =
            serde_json::to_string(entry).map_or(usize::MAX, |text| text.len() + name.len() + 4);
        match left.checked_sub(bytes) {
            Some(rest) => left = rest,
            None => over.push(name.clone()),
        }
    }
    over
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            document: Document {
                version: TEXT_SCHEMA_VERSION,
                limits: intercept_core::Limits::default(),
                intercepts: BTreeMap::new(),
            },
            places: HashMap::new(),
        }
    }
}
