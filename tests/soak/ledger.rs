//! Compares how often each request ran with what its client saw.
//!
//! In the cluster and at a developer's server. A byte or two per request, so that it covers an hour.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// The place where a request ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// In the cluster.
    App,
    /// At a developer's server.
    Server,
}

/// The result that its client saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// A response of the in-cluster version.
    App,
    /// A response of the developer's server.
    Server,
    /// An error, or a response that broke off.
    Error,
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    app: u8,
    server: u8,
    told: Option<(Told, bool)>,
}

/// All requests, by number.
#[derive(Debug, Default)]
pub struct Ledger {
    next: AtomicU32,
    entries: Mutex<Vec<Entry>>,
}

impl Ledger {
    /// A new request number.
    pub fn next(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Records where a request ran. The name is the number; other names are ignored.
    pub fn ran(&self, name: &str, side: Side) {
        let Ok(number) = name.parse() else { return };
        self.change(number, |entry| {
            let count = match side {
                Side::App => &mut entry.app,
                Side::Server => &mut entry.server,
            };
            *count = count.saturating_add(1);
        });
    }

    /// Records what the client saw.
    pub fn told(&self, number: u32, told: Told, is_safe: bool) {
        self.change(number, |entry| entry.told = Some((told, is_safe)));
    }

    fn change(&self, number: u32, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.entries.lock().expect("no panic");
        let place = number as usize;
        if entries.len() <= place {
            entries.resize(place + 1, Entry::default());
        }
        change(&mut entries[place]);
    }

    /// The number of answered requests, and those that did not run as their client saw.
    pub fn audit(&self) -> (usize, Vec<String>) {
        let entries = self.entries.lock().expect("no panic");
        let known = entries.iter().enumerate();
        let known = known.filter_map(|(number, entry)| Some((number, entry, entry.told?)));
        let wrong = known
            .clone()
            .filter(|(_, entry, told)| !is_right(entry, *told));
        let wrong = wrong.map(|(number, entry, (told, is_safe))| {
            let kind = if is_safe { "safe" } else { "not safe" };
            format!(
                "request {number} ({kind}) was told {told:?} and ran {} times in the cluster, {} at the developer's",
                entry.app, entry.server
            )
        });
        (known.clone().count(), wrong.collect())
    }
}

fn is_right(entry: &Entry, (told, is_safe): (Told, bool)) -> bool {
    let (app, server) = (entry.app, entry.server);
    match told {
        Told::Server => (app, server) == (0, 1),
        Told::App if is_safe => app == 1 && server <= 1,
        Told::App => (app, server) == (1, 0),
        // The cluster's response after a failure of the developer's server may break off, too.
        Told::Error if is_safe => app <= 1 && server <= 1,
        Told::Error => app == 0 && server <= 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(ran: &[Side], told: Told, is_safe: bool) -> bool {
        let ledger = Ledger::default();
        let number = ledger.next();
        for side in ran {
            ledger.ran(&number.to_string(), *side);
        }
        ledger.told(number, told, is_safe);
        let (count, wrong) = ledger.audit();
        assert_eq!(count, 1);
        !wrong.is_empty()
    }

    #[test]
    fn a_request_that_ran_twice_is_found() {
        use Side::{App, Server};
        assert!(!wrong(&[Server], Told::Server, false));
        assert!(!wrong(&[App], Told::App, false));
        assert!(!wrong(&[Server, App], Told::App, true));
        assert!(!wrong(&[Server], Told::Error, false));
        assert!(wrong(&[Server, App], Told::App, false));
        assert!(wrong(&[Server, Server], Told::Server, false));
        assert!(wrong(&[App], Told::Error, false));
        assert!(wrong(&[], Told::Server, false));
    }
}
