//! Flags of `injector install`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use http::Uri;
use intercept_manifest::facts::Protocol;
use intercept_manifest::istio::names::SYSTEM_NAMESPACE;
use intercept_manifest::istio::reach::Reach;

/// Prepare a cluster, and its workloads, for intercepts; it intercepts nothing yet
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
In a cluster, once (it makes roles and policies, so it takes an administrator):
  injector install --relay-image registry.example.com/injector:0.1.0
Then for each workload (the role injector-operator is enough), or for all of a namespace:
  injector install -n shop --workload orders
  injector install -n shop --all
To let developers connect from a namespace to its Services (an administrator):
  injector install -n shop --outbound
With --dry-run it prints what it would apply, and on stderr what it would remove or leave as it is;
`injector render istio` prints all of it.

Behind a plain Envoy:
  injector --envoy /etc/envoy/intercept install --workload orders \\
    --port 8080:http --app 127.0.0.1:18080 --module /etc/envoy/filter.wasm \\
    --relay-data 10.0.0.7:8080 --relay-control 10.0.0.7:7070
  injector --envoy /etc/envoy/intercept render envoy    # for Envoy's bootstrap

Run again with other flags, it changes what it wrote and keeps the intercepts.")]
pub struct Install {
    /// What is prepared.
    #[command(flatten)]
    pub prepare: Prepare,
    /// In a cluster.
    #[command(flatten)]
    pub mesh: MeshFlags,
    /// How it is applied in a cluster.
    #[command(flatten)]
    pub how: How,
    /// Behind a plain Envoy.
    #[command(flatten)]
    pub plain: PlainFlags,
}

/// What is prepared, in a cluster or not.
#[derive(Debug, Clone, Args)]
pub struct Prepare {
    /// Workload to prepare: its name, or its kind as well as in `deploy/orders` (repeatable);
    /// behind a plain Envoy what developers call the service
    #[arg(long, value_name = "NAME")]
    pub workload: Vec<String>,
    /// Port of it, by its Service's name or number or the container's (repeatable) [default: all that speak HTTP];
    /// behind a plain Envoy where that listens, and what developers call it: LISTEN[:NAME]
    #[arg(long, value_name = "PORT")]
    pub port: Vec<String>,
    /// The filter, filter.wasm: behind a plain Envoy where that can read it; in a cluster the file that is served there
    /// [default: what the module server hands out]
    #[arg(long, value_name = "FILE")]
    pub module: Option<PathBuf>,
    /// What is allowed.
    #[command(flatten)]
    pub limits: LimitFlags,
}

/// What an operator allows intercepts to do.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "What intercepts may do")]
pub struct LimitFlags {
    /// Allow intercepts of everybody's requests (--http-header=all)
    #[arg(long)]
    pub allow_all: bool,
    /// Longest lease, 5min to 24h [default: 24h]
    #[arg(long, value_name = "TIME")]
    pub max_lease: Option<String>,
    /// Header that conditions may use, `baggage` for baggage (repeatable) [default: any]
    #[arg(long, value_name = "NAME")]
    pub header_name: Vec<String>,
}

impl LimitFlags {
    /// The first flag that was given, with an example of its value: none of them means anything without a workload.
    pub fn given(&self) -> Option<&'static str> {
        let flags = [
            ("--allow-all", self.allow_all),
            ("--max-lease 8h", self.max_lease.is_some()),
            ("--header-name x-intercept-id", !self.header_name.is_empty()),
        ];
        let given = flags.into_iter().find(|(_, given)| *given);
        given.map(|(flag, _)| flag)
    }
}

/// What is said about a cluster.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "In a cluster")]
#[group(skip)]
pub struct MeshFlags {
    /// Prepare all workloads of the namespace with these labels, instead of --workload
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "workload")]
    pub selector: Option<String>,
    /// Prepare all workloads of the namespace that can be, instead of --workload
    #[arg(long, conflicts_with_all = ["workload", "selector"])]
    pub all: bool,
    /// Image of relay and module server, as `wasm-build image --relay` makes it [default: as installed]
    #[arg(long, value_name = "IMAGE")]
    pub relay_image: Option<String>,
    /// Secret in the relays' namespace with which the image is pulled
    #[arg(long, value_name = "NAME")]
    pub image_pull_secret: Option<String>,
    /// How many relays [default: as installed, else 2]
    #[arg(long, value_name = "N")]
    pub replicas: Option<u16>,
    /// Revision of the mesh that injects the relays' sidecars (istio.io/rev) [default: as installed, else the mesh's default]
    #[arg(long, value_name = "NAME")]
    pub revision: Option<String>,
    /// Namespace of relays and module server
    #[arg(long, value_name = "NAME", default_value = SYSTEM_NAMESPACE)]
    pub relay_namespace: String,
    /// The mesh's root namespace, where nothing is ever written [default: as the mesh's configuration says]
    #[arg(long, value_name = "NAME")]
    pub root_namespace: Option<String>,
    /// Cluster DNS domain [default: as installed, else as istiod says, else cluster.local]
    #[arg(long, value_name = "DOMAIN")]
    pub cluster_domain: Option<String>,
    /// Where sidecars fetch the filter: http(s)://, with --module (the file that is there), or oci://…@sha256:…
    /// [default: the module server]
    #[arg(long, value_name = "URL")]
    pub module_url: Option<String>,
    /// Connections of developers into it.
    #[command(flatten)]
    pub outbound: OutboundFlags,
}

/// What is said about connections of developers into a cluster.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "In a cluster")]
#[group(skip)]
pub struct OutboundFlags {
    /// Let developers connect into the cluster from this namespace (-n), by a pod of it, to its Services
    #[arg(long)]
    pub outbound: bool,
    /// Also to these Services (repeatable) [default: as installed]
    #[arg(long, value_name = "NAMESPACE[/SERVICE[:PORT]]", requires = "outbound")]
    pub outbound_to: Vec<Reach>,
    /// Also as this service account of the namespace: whatever its identity may reach, developers may (repeatable)
    /// [default: as installed]
    #[arg(long, value_name = "SERVICEACCOUNT", requires = "outbound")]
    pub outbound_as: Vec<String>,
}

/// How it is applied.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "In a cluster")]
pub struct How {
    /// Print what would be applied, and apply nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Take ownership of fields from other field managers
    #[arg(long)]
    pub force_conflicts: bool,
    /// Also prepare workloads again whose gate a new version changes, which drains open connections once
    /// [default: they are listed; those that drain nothing are always prepared again]
    #[arg(long, conflicts_with_all = ["workload", "selector", "all"])]
    pub all_prepared: bool,
    /// Do not wait for relays and module server, nor for the proxies of what is prepared; a new filter is then not passed on
    /// to prepared workloads
    #[arg(long)]
    pub no_wait: bool,
}

fn first(flags: &[(&'static str, bool)]) -> Option<&'static str> {
    flags
        .iter()
        .find(|(_, given)| *given)
        .map(|(flag, _)| *flag)
}

impl MeshFlags {
    /// The first flag that was given: none of them means anything behind a plain Envoy.
    pub fn given(&self) -> Option<&'static str> {
        first(&[
            ("--selector", self.selector.is_some()),
            ("--all", self.all),
            ("--module-url", self.module_url.is_some()),
            ("--outbound", self.outbound.outbound),
        ])
        .or(self.cluster_part())
    }

    /// The first flag that says something about the cluster part.
    fn cluster_part(&self) -> Option<&'static str> {
        first(&[
            ("--relay-image", self.relay_image.is_some()),
            ("--image-pull-secret", self.image_pull_secret.is_some()),
            ("--replicas", self.replicas.is_some()),
            ("--revision", self.revision.is_some()),
            (
                "--relay-namespace",
                self.relay_namespace != SYSTEM_NAMESPACE,
            ),
            ("--root-namespace", self.root_namespace.is_some()),
            ("--cluster-domain", self.cluster_domain.is_some()),
        ])
    }

    /// Do they ask for a change of the cluster part, beside workloads?
    pub fn change_cluster_part(&self) -> bool {
        self.relay_image.is_some()
            || self.image_pull_secret.is_some()
            || self.replicas.is_some()
            || self.revision.is_some()
    }
}

impl How {
    /// The first flag that was given.
    pub fn given(&self) -> Option<&'static str> {
        first(&[
            ("--dry-run", self.dry_run),
            ("--force-conflicts", self.force_conflicts),
            ("--all-prepared", self.all_prepared),
            ("--no-wait", self.no_wait),
        ])
    }
}

/// What is said about a plain Envoy. That it is complete is checked by hand: in a cluster all of it must be missing.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Behind a plain Envoy (--envoy DIR)")]
#[group(skip)]
pub struct PlainFlags {
    /// Where the in-cluster version listens; one per --port, in the same order
    #[arg(long, value_name = "ADDR:PORT")]
    pub app: Vec<SocketAddr>,
    /// What the port speaks; once, or one per --port [default: http]
    #[arg(long, value_name = "PROTOCOL")]
    pub protocol: Vec<PortProtocol>,
    /// URL under which users reach the port, for the line to try; one per --port
    #[arg(long, value_name = "URL")]
    pub url: Vec<Uri>,
    /// Where the relay takes requests from Envoy
    #[arg(long, value_name = "ADDR:PORT")]
    pub relay_data: Option<SocketAddr>,
    /// Where the relay takes tunnels from developer machines
    #[arg(long, value_name = "ADDR:PORT")]
    pub relay_control: Option<SocketAddr>,
    /// Where `injector outbound` takes developer machines [default: connections into the cluster are not open]
    #[arg(long, value_name = "ADDR:PORT")]
    pub relay_outbound: Option<SocketAddr>,
    /// Envoy's admin interface, to see there whether it has taken a change
    #[arg(long, value_name = "ADDR:PORT")]
    pub admin: Option<SocketAddr>,
}

/// What a port speaks.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum PortProtocol {
    /// HTTP/1.1, WebSocket included, whatever the client speaks.
    Http,
    /// HTTP/2 without TLS, whatever the client speaks.
    Http2,
    /// gRPC, which is HTTP/2.
    Grpc,
    /// What the client speaks.
    Auto,
}

impl From<PortProtocol> for Protocol {
    fn from(protocol: PortProtocol) -> Self {
        match protocol {
            PortProtocol::Http => Self::Http,
            PortProtocol::Http2 => Self::Http2,
            PortProtocol::Grpc => Self::Grpc,
            PortProtocol::Auto => Self::Auto,
        }
    }
}

impl PlainFlags {
    /// The first flag that was given: none of them means anything in a cluster.
    pub fn given(&self) -> Option<&'static str> {
        let flags = [
            ("--app", !self.app.is_empty()),
            ("--protocol", !self.protocol.is_empty()),
            ("--url", !self.url.is_empty()),
            ("--relay-data", self.relay_data.is_some()),
            ("--relay-control", self.relay_control.is_some()),
            ("--relay-outbound", self.relay_outbound.is_some()),
            ("--admin", self.admin.is_some()),
        ];
        flags
            .into_iter()
            .find(|(_, given)| *given)
            .map(|(flag, _)| flag)
    }
}
