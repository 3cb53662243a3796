//! Who intercepted what, and until when: Kubernetes Events on the workload, for `kubectl describe` and for whoever keeps Events. Pure.

use intercept_core::Intercept;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cluster::Kind;
use crate::words;

/// The longest message that the API server takes, in bytes.
const MESSAGE: usize = 1024;

/// What happened to an intercept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// It was made.
    Created,
    /// It was removed.
    Removed,
    /// It was cleared away after its lease.
    LeftOver,
}

/// The workload that an Event is about.
#[derive(Debug, Clone, Copy)]
pub struct Regarding<'a> {
    /// Its kind.
    pub kind: &'a Kind,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its UID, where it is known: `kubectl describe` asks for it.
    pub uid: Option<&'a str>,
}

/// The Event. `by` is whom the API server takes the caller for; `now` in seconds since the epoch.
pub fn event(
    regarding: Regarding<'_>,
    happened: Happened,
    name: &str,
    intercept: &Intercept,
    by: &str,
    now: u64,
) -> Value {
    let (reason, message) = match happened {
        Happened::Created => (
            "InterceptCreated",
            format!(
                "{by} intercepts port {}: {} ({name})",
                intercept.port,
                words::conditions(intercept)
            ),
        ),
        Happened::Removed => (
            "InterceptRemoved",
            format!(
                "{by} removed the intercept {name} of {}, port {}",
                intercept.owner, intercept.port
            ),
        ),
        Happened::LeftOver => (
            "InterceptRemoved",
            format!(
                "{by} cleared away the intercept {name} of {}, whose lease is over",
                intercept.owner
            ),
        ),
    };
    let Regarding {
        kind,
        namespace,
        name: workload,
        uid,
    } = regarding;
    let mut object = json!({
        "apiVersion": kind.api_version(),
        "kind": kind.name,
        "namespace": namespace,
        "name": workload,
    });
    if let Some(uid) = uid {
        object["uid"] = json!(uid);
    }
    let time = i64::try_from(now)
        .ok()
        .and_then(|now| Timestamp::from_second(now).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH)
        .to_string();
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": "injector-", "namespace": namespace},
        "involvedObject": object,
        "reason": reason,
        "message": cut(message),
        "type": "Normal",
        "source": {"component": "injector"},
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    })
}

/// Who removed the intercept that was created then, in seconds since the epoch, by the newest Event that says so. Older ones tell of others that had the name.
pub fn who_removed(events: &[Value], name: &str, created: u64) -> Option<String> {
    let removals = events.iter().filter_map(|event| {
        let message = event["message"].as_str()?;
        let (by, rest) = message.split_once(" removed the intercept ")?;
        let is_ours = event["source"]["component"] == "injector";
        let (removed, _) = rest.split_once(' ')?;
        let time: Timestamp = event["lastTimestamp"].as_str()?.parse().ok()?;
        let is_later = u64::try_from(time.as_second()).is_ok_and(|time| time >= created);
        (is_ours && removed == name && is_later).then_some((time, by))
    });
    removals.max().map(|(_, by)| by.to_owned())
}

fn cut(mut message: String) -> String {
    let mut end = message.len().min(MESSAGE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.truncate(end);
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::kind;
    use crate::manifest::istio::example;

    const ORDERS: Regarding<'static> = Regarding {
        kind: &kind::DEPLOYMENT,
        namespace: "shop",
        name: "orders",
        uid: Some("u"),
    };

    #[test]
    fn an_event_says_who_intercepts_what_and_when() {
        let event = event(
            ORDERS,
            Happened::Created,
            "orders-bob",
            &example::entry(),
            "bob",
            1_795_347_600,
        );
        assert_eq!(
            event["message"],
            "bob intercepts port 8080: header Coder is Bob (orders-bob)"
        );
        assert_eq!(event["lastTimestamp"], "2026-11-22T11:40:00Z");
        assert_eq!(
            event["involvedObject"],
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "shop", "name": "orders", "uid": "u"})
        );
    }

    #[test]
    fn the_newest_event_says_who_removed_an_intercept() {
        let removed = |by: &str, name: &str, now| {
            event(ORDERS, Happened::Removed, name, &example::entry(), by, now)
        };
        let events = [
            removed("alice", "orders-bob", 20),
            removed("bob", "orders-bob", 10),
            removed("eve", "orders-bobby", 30),
            event(
                ORDERS,
                Happened::Created,
                "orders-bob",
                &example::entry(),
                "bob",
                40,
            ),
        ];
        let who = |name, created| who_removed(&events, name, created);
        assert_eq!(who("orders-bob", 5).as_deref(), Some("alice"));
        assert_eq!(who("orders-bob", 20).as_deref(), Some("alice"));
        assert_eq!(who("orders-bob", 21), None, "another one had the name");
        assert_eq!(who("orders", 5), None);
    }

    #[test]
    fn a_message_is_cut_where_the_api_server_would_refuse_it() {
        let mut entry = example::entry();
        entry.headers[0].value = "ä".repeat(2_000);
        let event = event(ORDERS, Happened::Created, "b", &entry, "bob", 0);
        let message = event["message"].as_str().unwrap();
        assert!((1_020..=1_024).contains(&message.len()));
    }
}
