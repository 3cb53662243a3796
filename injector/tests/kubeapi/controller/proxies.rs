//! Two replicas whose proxies take what the API server has at once, and tell its hash on port 15090 of a loopback address of their own.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use intercept_core::{ACTIVE_METRIC, HASH_METRIC, Matcher, parse};
use intercept_kube::{Cluster, KubeFlags, kind};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::server::Server;
use super::super::support::now;
use super::control::PLUGIN;

pub struct Proxies {
    addresses: [Ipv4Addr; 2],
    /// While it is set, the second one has what it had before.
    pub is_stuck: Arc<AtomicBool>,
    /// While it is set, the second one does not answer.
    pub is_silent: Arc<AtomicBool>,
}

impl Proxies {
    pub fn start(server: &Server, namespace: &str) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(1);
        let number = NEXT.fetch_add(1, Ordering::SeqCst).to_be_bytes();
        let addresses = [1, 2].map(|last| Ipv4Addr::new(127, 100 + number[0], number[1], last));
        let proxies = Self {
            addresses,
            is_stuck: Arc::default(),
            is_silent: Arc::default(),
        };
        let flags = KubeFlags {
            kubeconfig: Some(server.kubeconfig("admin", namespace)),
            ..KubeFlags::default()
        };
        server.runtime.block_on(async {
            let cluster = Cluster::connect(&flags).await.expect("a kubeconfig");
            for (place, address) in addresses.into_iter().enumerate() {
                let proxy = Proxy {
                    cluster: cluster.clone(),
                    namespace: namespace.to_owned(),
                    is_stuck: if place == 1 {
                        Arc::clone(&proxies.is_stuck)
                    } else {
                        Arc::default()
                    },
                    is_silent: if place == 1 {
                        Arc::clone(&proxies.is_silent)
                    } else {
                        Arc::default()
                    },
                };
                let listener = TcpListener::bind((address, 15090))
                    .await
                    .expect("a free address");
                tokio::spawn(proxy.serve(listener));
            }
        });
        proxies
    }

    /// Makes their pods.
    pub fn run(&self, server: &Server, namespace: &str) {
        let containers =
            json!([{"name": "app", "image": "x"}, {"name": "istio-proxy", "image": "x"}]);
        let names = ["orders-0", "orders-1"];
        let pods =
            names.map(|name| Server::pod(namespace, name, &json!({"app": "orders"}), &containers));
        server.apply_all(&pods);
        server.run_pods(&pods);
        self.give(server, namespace, names);
    }

    /// Gives these pods their addresses.
    pub fn give(&self, server: &Server, namespace: &str, pods: [&str; 2]) {
        for (pod, address) in pods.iter().zip(self.addresses) {
            let address = address.to_string();
            let status = json!({"status": {"podIP": address, "podIPs": [{"ip": address}]}});
            server.status(Some(namespace), "pod", pod, &status);
        }
    }
}

struct Proxy {
    cluster: Cluster,
    namespace: String,
    is_stuck: Arc<AtomicBool>,
    is_silent: Arc<AtomicBool>,
}

impl Proxy {
    /// Each connection by itself: on a busy machine the API server takes longer than its client waits.
    async fn serve(self, listener: TcpListener) {
        let proxy = Arc::new(self);
        let last = Arc::new(Mutex::new(proxy.metrics().await));
        while let Ok((stream, _)) = listener.accept().await {
            if proxy.is_silent.load(Ordering::SeqCst) {
                continue;
            }
            let (proxy, last) = (Arc::clone(&proxy), Arc::clone(&last));
            tokio::spawn(async move {
                if !proxy.is_stuck.load(Ordering::SeqCst) {
                    let now = proxy.metrics().await;
                    *last.lock().expect("whole") = now;
                }
                let body = last.lock().expect("whole").clone();
                let _ = answer(stream, &body).await;
            });
        }
    }

    /// What the filter makes of the configuration.
    async fn metrics(&self) -> String {
        let plugin = self
            .cluster
            .get(&kind::WASM_PLUGIN, Some(&self.namespace), PLUGIN)
            .await;
        let plugin: Value = plugin.ok().flatten().unwrap_or_default();
        let (config, _) = parse(plugin["spec"]["pluginConfig"].to_string().as_bytes());
        let hash = config.hash;
        let active = Matcher::compile(config).0.active(now());
        format!("{ACTIVE_METRIC}{{}} {active}\n{HASH_METRIC}{{}} {hash}\n")
    }
}

async fn answer(mut stream: TcpStream, body: &str) -> std::io::Result<()> {
    let mut head = [0; 4096];
    let length = stream.read(&mut head).await?;
    if length == 0 {
        return Ok(()); // It gave up waiting.
    }
    let is_asked = head[..length].starts_with(b"GET /stats/prometheus?filter=");
    assert!(is_asked, "{}", String::from_utf8_lossy(&head[..length]));
    let length = body.len();
    let text =
        format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).await
}
