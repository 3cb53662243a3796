//! What Istio takes a Service's port for: by `appProtocol`, else by the port's name up to the first dash. The rule is Istio's own (`ConvertProtocol`, `pkg/config/kube/conversion.go`).

use intercept_manifest::facts::Protocol;

/// Ports that Istio never looks into, unless the Service says what they speak.
const NEVER_SNIFFED: [i32; 4] = [25, 53, 3306, 27017];

/// What a port speaks for Istio.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP in one of its forms, or whatever the client turns out to speak.
    Http(Protocol),
    /// Anything else: opaque for the sidecar.
    Opaque(String),
}

/// What a Service's port speaks. `transport` is its `protocol`: `TCP` where nothing is said.
pub fn spoken(
    port: i32,
    name: Option<&str>,
    transport: Option<&str>,
    app_protocol: Option<&str>,
) -> Spoken {
    if let Some(transport) = transport.filter(|transport| *transport != "TCP") {
        return Spoken::Opaque(transport.to_owned());
    }
    match app_protocol {
        Some("kubernetes.io/h2c") => return Spoken::Http(Protocol::Http2),
        Some("kubernetes.io/ws") => return Spoken::Http(Protocol::Http),
        Some("kubernetes.io/wss") => return Spoken::Opaque("https".to_owned()),
        _ => {}
    }
    let said = app_protocol
        .or(name)
        .unwrap_or_default()
        .to_ascii_lowercase();
    if said.starts_with("grpc-web") {
        return Spoken::Http(Protocol::Grpc);
    }
    let first = said
        .split_once('-')
        .map_or(said.as_str(), |(first, _)| first);
    match first {
        "http" => Spoken::Http(Protocol::Http),
        "http2" => Spoken::Http(Protocol::Http2),
        "grpc" => Spoken::Http(Protocol::Grpc),
        "tcp" | "udp" | "https" | "tls" | "mongo" | "redis" | "mysql" | "http_proxy" => {
            Spoken::Opaque(first.to_owned())
        }
        _ if NEVER_SNIFFED.contains(&port) => Spoken::Opaque("tcp".to_owned()),
        _ => Spoken::Http(Protocol::Auto),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_follows_istios_port_selection() {
        use Protocol::{Auto, Grpc, Http, Http2};
        let http = [
            (80, Some("http"), None, Http),
            (80, Some("http-web"), None, Http),
            (80, Some("HTTP-web"), None, Http),
            (80, Some("web"), None, Auto),
            (80, None, None, Auto),
            (80, Some("tcp-x"), Some("http"), Http),
            (80, Some("grpc"), None, Grpc),
            (80, Some("grpc-web-x"), None, Grpc),
            (80, Some("http2-x"), None, Http2),
            (80, Some("x"), Some("kubernetes.io/h2c"), Http2),
            (80, Some("tcp"), Some("kubernetes.io/ws"), Http),
            (80, Some("http"), Some("my.company/thing"), Auto),
            (3306, Some("http"), None, Http),
        ];
        for (port, name, app, expected) in http {
            let found = spoken(port, name, None, app);
            assert_eq!(found, Spoken::Http(expected), "{port} {name:?} {app:?}");
        }
        let opaque = [
            (80, Some("https"), None, None, "https"),
            (80, Some("tcp-x"), Some("TCP"), None, "tcp"),
            (80, Some("http"), Some("UDP"), None, "UDP"),
            (80, Some("http"), None, Some("tls"), "tls"),
            (80, Some("http"), None, Some("kubernetes.io/wss"), "https"),
            (3306, Some("db"), None, None, "tcp"),
        ];
        for (port, name, transport, app, expected) in opaque {
            let found = spoken(port, name, transport, app);
            assert_eq!(found, Spoken::Opaque(expected.to_owned()), "{name:?}");
        }
    }
}
