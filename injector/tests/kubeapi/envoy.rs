//! What a replica's Envoy says of itself on its admin interface: that it took what the API server has at once, as if istiod pushed it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use intercept_kube::{Cluster, kind};
use intercept_manifest::facts::Protocol;
use intercept_manifest::istio::example;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::stage::PREPARED;

#[derive(Clone)]
pub struct Envoy {
    pub cluster: Cluster,
    pub namespace: String,
    /// It was built without a runtime for WebAssembly.
    pub plain: Arc<AtomicBool>,
}

impl Envoy {
    /// Where it is.
    pub async fn start(self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accepted");
                tokio::spawn(self.clone().answer(stream));
            }
        });
        address
    }

    async fn answer(self, mut stream: TcpStream) {
        let mut head = vec![0; 4096];
        let length = stream.read(&mut head).await.unwrap_or(0);
        let head = String::from_utf8_lossy(&head[..length]).into_owned();
        let body = self.says(&head).await.to_string();
        let text = format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let _ = stream.write_all(text.as_bytes()).await;
    }

    async fn says(&self, head: &str) -> Value {
        if head.contains("/stats?") {
            return json!({"stats": []});
        }
        if head.contains("/server_info") {
            let kind = if self.plain.load(Ordering::SeqCst) {
                "null"
            } else {
                "v8"
            };
            let runtime = format!("envoy.wasm.runtime.{kind}");
            return json!({"node": {"extensions": [{"name": runtime}]}});
        }
        dump(&self.cluster, &self.namespace, head).await
    }
}

async fn dump(cluster: &Cluster, namespace: &str, head: &str) -> Value {
    if head.contains("resource=ecds_filters") {
        let plugin = cluster
            .get(&kind::WASM_PLUGIN, Some(namespace), PREPARED)
            .await;
        let plugin = plugin.expect("reachable").unwrap_or_default();
        let text = plugin["spec"]["pluginConfig"].to_string();
        let name = format!(
            "extensions.istio.io/trafficextension/{namespace}.{PREPARED}~istio-translated-wasmplugin"
        );
        return json!({"configs": [{"ecds_filter": {"name": name, "typed_config": {"config": {"configuration": {"value": text}}}}}]});
    }
    let filters = cluster
        .list(&kind::ENVOY_FILTER, Some(namespace), None)
        .await
        .expect("reachable");
    let patches = filters
        .iter()
        .filter_map(|filter| filter["spec"]["configPatches"].as_array())
        .flatten();
    if head.contains("resource=dynamic_listeners") {
        let routes = patches.filter(|patch| patch["applyTo"] == "HTTP_ROUTE");
        let routes: Vec<&Value> = routes.map(|patch| &patch["patch"]["value"]).collect();
        let routes = json!({"name": "inbound|8080||", "virtual_hosts": [{"routes": routes}]});
        return json!({"configs": [{"active_state": {"listener": {"route_config": routes}}}]});
    }
    let clusters =
        patches.map(|patch| json!({"cluster": {"name": patch["patch"]["value"]["name"]}}));
    let mesh = example::install().mesh;
    let relays = (0..mesh.relay_replicas).map(|relay| {
        let name = mesh.relay_cluster(relay, Protocol::Http);
        json!({"cluster": {"name": name}})
    });
    json!({"configs": clusters.chain(relays).collect::<Vec<_>>()})
}
