//! What a decision may ask about a request, and what some answers mean whatever the intercept. The filter answers from Envoy, `injector explain` from its flags, tests from a table.

/// Names the intercepts whose developer machines a request has been through; the developer's end appends its own name.
pub(crate) const VIA: &str = "x-intercept-via";

/// A request as the matcher sees it. Every question is asked at most once per decision, and only when its answer can still matter.
pub trait Request {
    /// All values of a header (its lines joined by commas), or of a pseudo-header such as `:path`; `None` when it is absent. `name` is in lower case.
    fn header(&self, name: &str) -> Option<Vec<u8>>;

    /// Did the request come in on this port of the workload?
    fn is_port(&self, port: u16) -> bool;

    /// Seconds since the epoch.
    fn now(&self) -> u64;
}

/// The one name under which a header is asked for: lower case, and `:authority` for `host`, which Envoy takes for the same.
pub fn header_key(name: &str) -> String {
    match name.to_ascii_lowercase() {
        name if name == "host" => ":authority".to_owned(),
        name => name,
    }
}

/// Is an intercept without header and baggage conditions blind to this user agent? The kubelet's probes decide whether a pod lives; a developer's server must not.
pub fn is_probe_exempt(user_agent: &[u8]) -> bool {
    user_agent.starts_with(b"kube-probe/")
}

/// Is a request to this authority a mirrored one? Envoy and Istio send a copy of a mirrored request with `-shadow` behind its host name; its answer goes nowhere, so a developer's machine must not run it too.
pub fn is_mirror(authority: &[u8]) -> bool {
    // The last colon: an IPv6 address in brackets has some of its own.
    let host = authority
        .rsplitn(2, |byte| *byte == b':')
        .last()
        .unwrap_or(authority);
    host.ends_with(b"-shadow") || authority.ends_with(b"-shadow")
}
