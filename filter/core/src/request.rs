//! The request as a decision sees it, and values with a fixed meaning.
//!
//! The filter implements it with Envoy, `injector explain` with its flags, tests with a table.

/// Lists the intercepts whose developer machines a request has passed.
///
/// The developer's end appends its name.
pub(crate) const VIA: &str = "x-intercept-via";

/// A request. A decision looks up each value at most once, and only if it can still matter.
pub trait Request {
    /// All values of a header, joined by commas, or of a pseudo-header such as `:path`.
    ///
    /// `None` if it is absent. `name` is in lower case.
    fn header(&self, name: &str) -> Option<Vec<u8>>;

    /// Did the request come in on this port of the workload?
    fn is_port(&self, port: u16) -> bool;

    /// Seconds since the epoch.
    fn now(&self) -> u64;
}

/// The look-up name of a header.
///
/// Lower case, and `:authority` for `host`, which Envoy treats as the same.
pub fn header_key(name: &str) -> String {
    match name.to_ascii_lowercase() {
        name if name == "host" => ":authority".to_owned(),
        name => name,
    }
}

/// Is this the user agent of a kubelet's probe?
///
/// Intercepts without header and baggage conditions ignore probes.
///
/// Probes decide whether a pod lives; a developer's server must not.
pub fn is_probe_exempt(user_agent: &[u8]) -> bool {
    user_agent.starts_with(b"kube-probe/")
}

/// Is this the authority of a mirrored request?
///
/// Envoy and Istio append `-shadow` to the host of the copy. Its response is discarded, so a developer machine must not run it too.
pub fn is_mirror(authority: &[u8]) -> bool {
    // The last colon, because an IPv6 address in brackets contains others.
    let host = authority
        .rsplitn(2, |byte| *byte == b':')
        .last()
        .unwrap_or(authority);
    host.ends_with(b"-shadow") || authority.ends_with(b"-shadow")
}
