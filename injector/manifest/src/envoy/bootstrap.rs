//! One complete configuration of a plain Envoy: for the sandbox, for tests, and for an operator who has none.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use serde_json::{Value, json};

use super::{FILTER_FILE, cds_config, node, static_clusters};
use crate::facts::{Port, Workload};
use crate::gate::Gate;
use crate::{cluster, filter};

/// How a complete bootstrap differs from the usual one.
#[derive(Debug, Clone)]
pub struct BootstrapOptions {
    /// Where the listeners are.
    pub listen: IpAddr,
    /// Envoy's admin interface; port 0 lets the system choose (see Envoy's `--admin-address-path`).
    pub admin: Option<SocketAddr>,
    /// Leaves the filter and the gate out: the same Envoy as if nothing had ever been installed.
    pub without_filter: bool,
    /// One line per request on standard output.
    pub access_log: bool,
}

impl Default for BootstrapOptions {
    fn default() -> Self {
        Self {
            listen: IpAddr::from([127, 0, 0, 1]),
            admin: None,
            without_filter: false,
            access_log: false,
        }
    }
}

/// A complete configuration that starts: one listener per port in front of the workload. `dir` is absolute.
pub fn bootstrap(workload: &Workload, dir: &Path, options: &BootstrapOptions) -> Value {
    let listeners: Vec<Value> = workload
        .ports
        .iter()
        .map(|port| listener(port, dir, options))
        .collect();
    let mut bootstrap = json!({
        "node": node(workload),
        "static_resources": {"listeners": listeners, "clusters": static_clusters(workload)},
    });
    if !options.without_filter {
        bootstrap["dynamic_resources"] = cds_config(dir);
    }
    if let Some(admin) = options.admin.or(workload.admin) {
        bootstrap["admin"] = json!({"address": cluster::socket_address(admin)});
    }
    bootstrap
}

fn listener(port: &Port, dir: &Path, options: &BootstrapOptions) -> Value {
    json!({
        "name": port.name,
        "address": cluster::socket_address(SocketAddr::new(options.listen, port.number)),
        // A port that another program listens on is an error, not something to share.
        "enable_reuse_port": false,
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": connection_manager(port, dir, options),
        }]}],
    })
}

fn connection_manager(port: &Port, dir: &Path, options: &BootstrapOptions) -> Value {
    let app = cluster::app_name(port.number);
    let mut routes = Vec::new();
    let mut filters = Vec::new();
    if !options.without_filter {
        let gate = Gate {
            default_cluster: &app,
            app: port.app,
            operation: None,
        };
        routes.extend(gate.routes());
        filters.push(filter::http_filter(&dir.join(FILTER_FILE)));
    }
    routes.push(json!({"name": "default", "match": {"prefix": "/"}, "route": {"cluster": app, "timeout": "0s"}}));
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }));
    let mut manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": port.name,
        "stream_idle_timeout": "0s",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http2_protocol_options": {"allow_connect": true},
        "http_filters": filters,
        "route_config": {
            "name": port.name,
            "virtual_hosts": [{"name": port.name, "domains": ["*"], "routes": routes}],
        },
    });
    if options.access_log {
        manager["access_log"] = json!([{
            "name": "envoy.access_loggers.stdout",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"},
        }]);
    }
    manager
}
