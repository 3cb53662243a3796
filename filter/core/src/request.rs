//! What a decision may ask about a request. The filter answers from Envoy, `injector explain` from its flags, tests from a table.

/// A request as the matcher sees it. Every question is asked at most once per decision, and only when its answer can still matter.
pub trait Request {
    /// All values of a header (its lines joined by commas), or of a pseudo-header such as `:path`; `None` when it is absent. `name` is in lower case.
    fn header(&self, name: &str) -> Option<Vec<u8>>;

    /// Did the request come in on this port of the workload?
    fn is_port(&self, port: u16) -> bool;

    /// Seconds since the epoch.
    fn now(&self) -> u64;
}
