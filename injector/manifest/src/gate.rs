//! The gate: the two routes that only matched requests see. The same in a plain Envoy and in a mesh, except for the cluster that unmatched requests go to.

use std::net::SocketAddr;

use serde_json::{Value, json};

/// The filter sets it to the intercept's name; no client can forge it. (`set_property(["intercept"], …)` becomes `wasm.intercept`.)
const FILTER_STATE: &str = "wasm.intercept";

/// The filter sets it beside the other where the request is safe: GET, HEAD or OPTIONS. A condition on `:method` would say the same, but Envoy looks at headers before
/// filter state, and so every unmatched request would pay for it (1.9k instructions, measured).
const SAFE_STATE: &str = "wasm.intercept_safe";

/// Envoy keeps that much of a request body for a second attempt, in bytes. A larger request has no fallback.
const RETRY_BUFFER: u64 = 1 << 20;

/// A client that Envoy takes for an internal one could change the retries with them: `x-envoy-retry-on: 5xx` would send a developer's own 500 to the in-cluster version,
/// `x-envoy-max-retries: 0` would switch the fallback off (measured).
const RETRY_HEADERS: [&str; 6] = [
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-max-retries",
    "x-envoy-retriable-status-codes",
    "x-envoy-retriable-header-names",
    "x-envoy-hedge-on-per-try-timeout",
];

/// Written by the developer's side and by the relay's sidecar into answers of theirs: the attempt was certainly not handed on, or perhaps.
pub const MARKS: [&str; 2] = ["x-intercept-unavailable", "x-intercept-lost"];

/// Written by the filter: which tunnel a matched request is for.
const ADDRESS: &str = "x-intercept-address";

/// Attempts that certainly were not handed on: any request may then go to the in-cluster version.
const NEVER_HANDED_ON: &str =
    "connect-failure,refused-stream,reset-before-request,retriable-headers";

/// What differs from port to port.
#[derive(Debug, Clone, Copy)]
pub struct Gate<'a> {
    /// Where the port's unmatched requests go; matched ones too while the intercept's cluster is not known.
    pub default_cluster: &'a str,
    /// The in-cluster version as a fallback. Its own answers are no reason for another attempt, whatever headers they have.
    pub app: SocketAddr,
    /// The span name of the route that the gate stands in front of, where it has one.
    pub operation: Option<&'a str>,
}

impl Gate<'_> {
    /// The two routes, in the order in which they must stand, in front of all others.
    ///
    /// Envoy retries on *positive* marks only. A rule such as "retry what lacks our mark" makes the in-cluster version run requests twice when attempt 1 went to it by itself (measured).
    pub fn routes(&self) -> [Value; 2] {
        [
            self.route(
                "intercept-safe",
                SAFE_STATE,
                &format!("{NEVER_HANDED_ON},reset"),
                &MARKS,
            ),
            self.route("intercept", FILTER_STATE, NEVER_HANDED_ON, &MARKS[..1]),
        ]
    }

    fn route(&self, name: &str, state: &str, retry_on: &str, marks: &[&str]) -> Value {
        let matches = json!({
            "prefix": "/",
            "filter_state": [{"key": state, "string_match": {"safe_regex": {"regex": ".+"}}}],
        });
        let mut route = json!({"name": name, "match": matches});
        if let Some(operation) = self.operation {
            route["decorator"] = json!({"operation": operation});
        }
        route["route"] = json!({
            "inline_cluster_specifier_plugin": {"extension": self.specifier()},
            // No limit of time once a developer's server has the request: a breakpoint may hold it.
            "timeout": "0s",
            "idle_timeout": "0s",
            "max_stream_duration": {"max_stream_duration": "0s", "grpc_timeout_header_max": "0s"},
            "retry_policy": self.retry_policy(retry_on, marks),
        });
        route["request_body_buffer_limit"] = json!(RETRY_BUFFER);
        let removed = ["x-intercept-cluster"].into_iter().chain(RETRY_HEADERS);
        route["request_headers_to_remove"] = removed.collect();
        route["response_headers_to_remove"] = json!(MARKS);
        route["response_headers_to_add"] = json!([{
            "header": {"key": "x-intercept", "value": format!("%FILTER_STATE({FILTER_STATE}:PLAIN)%")},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }]);
        route
    }

    /// A `cluster_header` route would answer 503 while Envoy has the intercept and not yet, or no longer, its cluster.
    fn specifier(&self) -> Value {
        let default = self.default_cluster;
        json!({
            "name": "envoy.router.cluster_specifier_plugin.lua",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.router.cluster_specifiers.lua.v3.LuaConfig",
                "default_cluster": default,
                "source_code": {"inline_string": format!(
                    "function envoy_on_route(h)\n  \
                       local name = h:headers():get(\"x-intercept-cluster\")\n  \
                       if name ~= nil and h:getCluster(name) ~= nil then return name end\n  \
                       return {default:?}\n\
                     end\n"
                )},
            },
        })
    }

    /// Once, at once, and not where the first attempt went. A mark in a response of the in-cluster version is its own: where the relay is missing, it was asked first,
    /// and would run the request twice.
    fn retry_policy(&self, retry_on: &str, marks: &[&str]) -> Value {
        let by_app = answered_by(&self.app.to_string());
        let marks: Vec<Value> = marks
        .iter()
        .map(|mark| json!({"name": mark, "string_match": {"suffix": by_app}, "invert_match": true}))
        .collect();
        json!({
            "retry_on": retry_on,
            "retriable_headers": marks,
            "num_retries": 1,
            "retry_back_off": {"base_interval": "0.001s"},
            "retry_priority": {
                "name": "envoy.retry_priorities.previous_priorities",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                    "update_frequency": 1,
                },
            },
        })
    }
}

/// What the filter of an intercept's cluster puts behind a mark: who made the answer.
fn answered_by(host: &str) -> String {
    format!(" from {host}")
}

/// In the metadata of the in-cluster version's endpoint, by which the filters of an intercept's cluster know it.
pub const APP_METADATA: &str = "intercept-app";

/// The HTTP filters of an intercept's upstream cluster.
///
/// Each mark names the host that sent the response, and no response header can change it. Only the relay receives the tunnel's address.
/// Envoy takes the filters from the aggregate cluster for all its members, and runs them for each attempt, whose host is known by then (measured).
pub fn upstream_filters() -> Value {
    let marks = MARKS.map(|mark| {
        let value = format!("%RESP({mark})%{}", answered_by("%UPSTREAM_HOST%"));
        set(mark, &value, "OVERWRITE_IF_EXISTS")
    });
    // The gate's routes have removed it, so what is to be sent can wait in it.
    let held = "x-intercept-cluster";
    let unless_app = format!(
        "%CEL(xds.upstream_host_metadata != null && '{APP_METADATA}' in xds.upstream_host_metadata.filter_metadata ? '' : request.headers['{held}'])%"
    );
    json!([
        {
            "name": "envoy.filters.http.header_mutation",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
                "mutations": {
                    "request_mutations": [
                        set(held, &format!("%REQ({ADDRESS})%"), "OVERWRITE_IF_EXISTS_OR_ADD"),
                        {"remove": ADDRESS},
                        set(ADDRESS, &unless_app, "OVERWRITE_IF_EXISTS_OR_ADD"),
                        {"remove": held},
                    ],
                    "response_mutations": marks,
                },
            },
        },
        {
            "name": "upstream_codec",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"},
        },
    ])
}

/// Does nothing where the value turns out empty.
fn set(header: &str, value: &str, action: &str) -> Value {
    json!({"append": {"header": {"key": header, "value": value}, "append_action": action}})
}
