//! Limits on what all intercepts of a workload cost together: compiling, memory, and each decision.
//!
//! One entry within its own limits is cheap, but a thousand such entries stop a proxy for seconds. The limits count bytes and steps that are the same on every
//! machine, so that the filter and the command agree.

use std::cell::Cell;

/// How many intercepts one owner may have on a workload.
pub const MAX_PER_OWNER: usize = 20;

/// What all regexes of a workload may cost to compile and keep, in bytes.
///
/// A typical regex costs 1 KiB.
///
/// See [`crate::pattern::SIZE_LIMIT`] for how the bytes are counted.
pub const COMPILE_BUDGET: usize = 3 << 20;

/// How many steps one decision may take.
///
/// A regex takes one step for each byte of the text and each of its states; `.*session=bob.*` has 22 states.
pub const DECISION_BUDGET: usize = 320_000;

/// How many bytes a search for plain text covers in one step.
const BYTES_PER_STEP: usize = 16;

/// The steps of one header look-up in the proxy.
const ASK: usize = 50;

/// The remaining steps of a decision.
#[derive(Debug)]
pub(crate) struct Fuel {
    left: Cell<usize>,
    is_spent: Cell<bool>,
}

impl Fuel {
    /// The budget of one decision.
    pub(crate) fn new() -> Self {
        Self::of(DECISION_BUDGET)
    }

    /// A budget without a limit, for callers that hold up no requests.
    pub(crate) fn unlimited() -> Self {
        Self::of(usize::MAX)
    }

    fn of(steps: usize) -> Self {
        Self {
            left: Cell::new(steps),
            is_spent: Cell::new(false),
        }
    }

    /// Was there too little fuel for a step? From then on, no step succeeds.
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
