//! What a kubelet does for a port-forward, and nothing else: pods are names for addresses of this machine.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

/// Namespace, pod, port.
type Place = (String, String, u16);

/// Where the ports of pods really are.
#[derive(Clone, Default)]
pub struct Pods {
    addresses: Arc<Mutex<HashMap<Place, SocketAddr>>>,
    ending: Arc<Notify>,
}

impl Pods {
    pub fn put(&self, namespace: &str, pod: &str, port: u16, address: SocketAddr) {
        let place = (namespace.to_owned(), pod.to_owned(), port);
        self.addresses.lock().unwrap().insert(place, address);
    }

    /// Ends all forwards that are open, in good order, as after too long a silence.
    pub fn end_forwards(&self) {
        self.ending.notify_waiters();
    }

    /// From `/portForward/NAMESPACE/POD?port=PORT`.
    fn of(&self, uri: &http::Uri) -> Option<(u16, SocketAddr)> {
        let mut parts = uri.path().strip_prefix("/portForward/")?.split('/');
        let (namespace, pod) = (parts.next()?, parts.next()?);
        let pairs = uri.query()?.split('&');
        let port: u16 = pairs
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| key.starts_with("port"))?
            .1
            .parse()
            .ok()?;
        let place = (namespace.to_owned(), pod.to_owned(), port);
        Some((port, *self.addresses.lock().unwrap().get(&place)?))
    }
}

/// Serves with the certificate and key in this folder, which the API server does not check.
pub async fn serve(listener: TcpListener, folder: &Path, pods: Pods) {
    let certificate = CertificateDer::from_pem_file(folder.join("kubelet.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("kubelet.key")).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, pods) = (acceptor.clone(), pods.clone());
        tokio::spawn(async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                forward(stream, &pods).await;
            }
        });
    }
}

async fn forward<S>(stream: S, pods: &Pods) -> Option<()>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut to = None;
    #[allow(clippy::result_large_err, reason = "the library's own signature")]
    let shake = |request: &Request, mut response: Response| {
        to = pods.of(request.uri());
        let offered = request.headers().get("sec-websocket-protocol");
        if let Some(protocol) = offered.and_then(|offered| {
            let offered = offered.to_str().ok()?;
            offered.split(',').map(str::trim).next_back()?.parse().ok()
        }) {
            response
                .headers_mut()
                .insert("sec-websocket-protocol", protocol);
        }
        Ok(response)
    };
    let socket = tokio_tungstenite::accept_hdr_async(stream, shake).await;
    let (mut frames_tx, mut frames_rx) = socket.ok()?.split();
    let (port, address) = to?;
    // The first frame on each of the two channels, data and error, is the port.
    for channel in [0, 1] {
        let [low, high] = port.to_le_bytes();
        let frame = Message::binary(vec![channel, low, high]);
        frames_tx.send(frame).await.ok()?;
    }
    let (mut read, mut write) = TcpStream::connect(address).await.ok()?.into_split();
    let up = async {
        while let Some(Ok(message)) = frames_rx.next().await {
            if let Message::Binary(frame) = message {
                write.write_all(frame.get(1..)?).await.ok()?;
            }
        }
        write.shutdown().await.ok()
    };
    let mut ending = std::pin::pin!(pods.ending.notified());
    // From now on, whether or not it is waited for.
    ending.as_mut().enable();
    let down = async {
        let mut frame = vec![0; 32 * 1024];
        loop {
            let length = tokio::select! {
                read = read.read(&mut frame[1..]) => read.unwrap_or(0),
                () = &mut ending => 0,
            };
            if length == 0 {
                break;
            }
            // The channel stands before the data.
            let message = Message::binary(frame[..=length].to_vec());
            frames_tx.send(message).await.ok()?;
        }
        // In good order: what was sent arrives before the connection ends.
        frames_tx.close().await.ok()
    };
    tokio::join!(up, down).0
}
