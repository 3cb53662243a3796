//! What all intercepts of a workload may cost together: to compile and keep, and per decision. One entry within its own limits is cheap, a thousand such entries stop a proxy for seconds.
//! Counted in bytes and steps that are the same on every machine, so that the filter and the command come to one verdict.

use std::cell::Cell;

/// The most intercepts that one owner may have on a workload.
pub const MAX_PER_OWNER: usize = 20;

/// The most that all regexes of a workload's intercepts may cost to compile and keep, in bytes; see [`crate::pattern::SIZE_LIMIT`] for how they are counted. A usual regex costs 1 KiB.
pub const COMPILE_BUDGET: usize = 3 << 20;

/// The most steps that one decision may take. A regex takes one for each byte of the text and each state that it has; `.*session=bob.*` has 22.
pub const DECISION_BUDGET: usize = 320_000;

/// How many bytes of a text are searched for a plain text in the time of a step.
const BYTES_PER_STEP: usize = 16;

/// What it takes to ask the proxy for a header, in steps.
const ASK: usize = 50;

/// The steps that a decision has left.
#[derive(Debug)]
pub(crate) struct Fuel {
    left: Cell<usize>,
    is_spent: Cell<bool>,
}

impl Fuel {
    /// That of one decision.
    pub(crate) fn new() -> Self {
        Self::of(DECISION_BUDGET)
    }

    /// For whoever holds up nobody.
    pub(crate) fn unlimited() -> Self {
        Self::of(usize::MAX)
    }

    fn of(steps: usize) -> Self {
        Self {
            left: Cell::new(steps),
            is_spent: Cell::new(false),
        }
    }

    /// Was there too little for something? From then on there is for nothing.
    pub(crate) fn is_spent(&self) -> bool {
        self.is_spent.get()
    }

    pub(crate) fn spend_on_search(&self, bytes: usize) -> bool {
        self.spend(bytes / BYTES_PER_STEP)
    }

    pub(crate) fn spend_on_match(&self, bytes: usize, states: usize) -> bool {
        self.spend(bytes.saturating_add(1).saturating_mul(states))
    }

    pub(crate) fn spend_on_header(&self) -> bool {
        self.spend(ASK)
    }

    fn spend(&self, steps: usize) -> bool {
        let left = self.left.get().checked_sub(steps);
        self.left.set(left.unwrap_or(0));
        self.is_spent.set(self.is_spent.get() || left.is_none());
        !self.is_spent.get()
    }
}
