//! Caches what a decision looks up in a request. Knows no intercepts.

use std::cell::OnceCell;

use crate::budget::Fuel;
use crate::interner::Interner;
use crate::request::{Request, VIA, header_key};

/// The index of a header name in a matcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HeaderId(pub(super) usize);

impl HeaderId {
    pub(crate) const USER_AGENT: Self = Self(0);
    pub(crate) const AUTHORITY: Self = Self(1);
    pub(crate) const PATH: Self = Self(2);
    pub(crate) const BAGGAGE: Self = Self(3);
    pub(crate) const VIA: Self = Self(4);
    /// The names of the constants above, in order.
    const FIXED: [&str; 5] = ["user-agent", ":authority", ":path", "baggage", VIA];

    pub(super) fn name(self, names: &[String]) -> Option<&str> {
        names.get(self.0).map(String::as_str)
    }
}

/// Assigns an id to each distinct header name.
pub(super) struct HeaderNames {
    ids: Interner,
    names: Vec<String>,
}

impl HeaderNames {
    pub(super) fn new() -> Self {
        let mut names = Self {
            ids: Interner::default(),
            names: Vec::new(),
        };
        for name in HeaderId::FIXED {
            names.id(name);
        }
        names
    }

    pub(super) fn id(&mut self, name: &str) -> HeaderId {
        let name = header_key(name);
        let id = self.ids.intern(&name);
        if id == self.names.len() {
            self.names.push(name);
        }
        HeaderId(id)
    }

    /// The names, indexed by [`HeaderId`].
    pub(super) fn into_names(self) -> Vec<String> {
        self.names
    }
}

/// The known facts of one request, each looked up at most once.
pub(crate) struct Facts<'r, R> {
    request: &'r R,
    names: &'r [String],
    headers: Vec<OnceCell<Option<Vec<u8>>>>,
    now: OnceCell<u64>,
    /// The remaining steps for look-ups and regexes.
    pub(super) fuel: Fuel,
}

impl<'r, R: Request> Facts<'r, R> {
    /// Facts without any values.
    ///
    /// `names` are the header names that may be looked up, by [`HeaderId`].
    pub(crate) fn new(request: &'r R, names: &'r [String], fuel: Fuel) -> Self {
        Self {
            request,
            names,
            headers: vec![OnceCell::new(); names.len()],
            now: OnceCell::new(),
            fuel,
        }
    }

    /// Stores a value that was looked up before.
    pub(super) fn learn(&self, HeaderId(id): HeaderId, value: Option<Vec<u8>>) {
        if let Some(fact) = self.headers.get(id) {
            let _ = fact.set(value);
        }
    }

    pub(crate) fn header(&self, id: HeaderId) -> Option<&[u8]> {
        let ask = || {
            let name = id.name(self.names).filter(|_| self.fuel.spend_on_header());
            name.and_then(|name| self.request.header(name))
        };
        self.headers.get(id.0)?.get_or_init(ask).as_deref()
    }

    /// Is it a pseudo-header such as `:path` (RFC 9113 section 8.3)?
    ///
    /// It has a single value, even if that contains commas.
    pub(super) fn is_pseudo(&self, id: HeaderId) -> bool {
        id.name(self.names)
            .is_some_and(|name| name.starts_with(':'))
    }

    pub(super) fn is_port(&self, port: u16) -> bool {
        self.request.is_port(port)
    }

    pub(super) fn now(&self) -> u64 {
        *self.now.get_or_init(|| self.request.now())
    }
}
