//! Who may connect: the holder of the secret of a tunnel that is registered at a relay at this moment. The relays are asked; the secret itself stays here.

use std::time::Duration;

use http::StatusCode;
use intercept_outbound::server::{Admitted, Admitting, Gate};
use intercept_outbound::{Hello, Rejection};
use intercept_tunnel::developer::Connect;
use intercept_tunnel::http_json::JsonClient;
use intercept_tunnel::relay_end::RelayEnd;
use intercept_tunnel::{Address, Secret};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A relay that takes longer is as good as away.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Asks relays.
#[derive(Debug)]
pub struct RelayGate {
    relays: Vec<RelayEnd>,
}

/// What one relay says of a tunnel.
enum Said {
    /// It is registered, under this name.
    Up(String),
    Away,
    Unknown,
}

impl RelayGate {
    /// A tunnel may end at any of these.
    pub fn new(relays: Vec<RelayEnd>) -> Self {
        Self { relays }
    }

    async fn judge(&self, hello: &Hello) -> Result<Admitted, Rejection> {
        let secret: Result<Secret, _> = hello.proof.0.parse();
        let secret = secret
            .map_err(|invalid| Rejection::fatal(StatusCode::BAD_REQUEST, invalid.to_string()))?;
        let address = secret.address();
        let mut asking = JoinSet::new();
        for relay in &self.relays {
            asking.spawn(ask(relay.clone(), address.clone()));
        }
        let mut is_known = true;
        while let Some(said) = asking.join_next().await {
            match said.unwrap_or(Said::Unknown) {
                Said::Up(intercept) => {
                    let key = address.to_string();
                    return Ok(Admitted { key, intercept });
                }
                Said::Away => {}
                Said::Unknown => is_known = false,
            }
        }
        Err(match is_known {
            true => Rejection::for_now(
                StatusCode::FORBIDDEN,
                "no intercept with this secret has a tunnel at the relay",
            ),
            false => Rejection::for_now(
                StatusCode::SERVICE_UNAVAILABLE,
                "the relay does not say whether this intercept lives",
            ),
        })
    }
}

impl Gate for RelayGate {
    fn admit<'a>(&'a self, hello: &'a Hello) -> Admitting<'a> {
        Box::pin(self.judge(hello))
    }
}

async fn ask(relay: RelayEnd, address: Address) -> Said {
    let asked = async {
        let stream = relay.connect().await.ok()?;
        let mut client = JsonClient::new(stream).await.ok()?;
        client.get(&format!("/tunnels/{address}")).await.ok()
    };
    let Ok(Some(answer)) = timeout(TIMEOUT, asked).await else {
        return Said::Unknown;
    };
    match (answer["up"].as_bool(), answer["name"].as_str()) {
        (Some(true), name) => Said::Up(name.unwrap_or_default().to_owned()),
        (Some(false), _) => Said::Away,
        (None, _) => Said::Unknown,
    }
}
