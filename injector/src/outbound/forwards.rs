//! `SERVICE:PORT[:LOCALPORT]`: ports of this machine that lead into the cluster.

use std::io;

use intercept_outbound::{Client, Destination, Forward};
use tokio::task::JoinSet;

use crate::environment::local::LocalService;
use crate::error::{CliError, Result};
use crate::shell::quote;

/// Listeners that pass nothing on yet.
#[derive(Debug, Default)]
pub struct Forwards {
    all: Vec<Forward>,
    /// What the developer should know of their ports.
    notes: Vec<String>,
}

/// One flag.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    destination: Destination,
    local: Option<u16>,
}

impl Forwards {
    /// Listens for all of these on 127.0.0.1. A port that was not chosen is the destination's, or any free one.
    ///
    /// # Errors
    /// A flag that cannot be read, or a chosen port that cannot be had.
    pub async fn bind(flags: &[String]) -> Result<Self> {
        let mut forwards = Self::default();
        for flag in flags {
            let wanted = Wanted::read(flag)?;
            forwards.add(flag, wanted).await?;
        }
        Ok(forwards)
    }

    async fn add(&mut self, flag: &str, wanted: Wanted) -> Result<()> {
        let Wanted { destination, local } = wanted;
        let port = local.unwrap_or(destination.port());
        let bound = match Forward::bind(port, destination.clone()).await {
            Err(error) if local.is_none() => {
                self.notes
                    .push(format!("port {port} of this machine: {}", short(&error)));
                Forward::bind(0, destination).await
            }
            bound => bound,
        };
        let forward = bound.map_err(|error| {
            CliError::failed(
                format!(
                    "--forward {flag}: port {port} of this machine: {}",
                    short(&error)
                ),
                format!(
                    "leave the last part out, and any free port is taken: --forward {}",
                    quote(flag.rsplit_once(':').map_or(flag, |(rest, _)| rest))
                ),
            )
        })?;
        self.all.push(forward);
        Ok(())
    }

    /// Is there no port?
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// What the developer should know: a line for each port.
    pub fn lines(&self) -> Vec<String> {
        let leads = self.all.iter().map(|forward| {
            let (from, to) = (forward.address(), forward.destination());
            format!("{from} leads to {to} in the cluster")
        });
        self.notes.iter().cloned().chain(leads).collect()
    }

    /// The services, with the addresses by which a program of this machine reaches them. `namespace` and `domain`: where short names are looked up.
    pub fn local_services(&self, namespace: Option<&str>, domain: &str) -> Vec<LocalService> {
        let services = self.all.iter().map(|forward| {
            let (host, port) = match forward.destination() {
                Destination::Name(name, port) => (name.clone(), *port),
                Destination::Address(address) => (address.ip().to_string(), address.port()),
            };
            LocalService {
                names: names(&host, namespace, domain),
                port,
                local: forward.address(),
            }
        });
        services.collect()
    }

    /// Passes on what comes, until what is returned is dropped.
    pub fn run(self, client: &Client) -> JoinSet<()> {
        let mut running = JoinSet::new();
        for forward in self.all {
            running.spawn(forward.run(client.clone()));
        }
        running
    }
}

impl Wanted {
    fn read(flag: &str) -> Result<Self> {
        if let Ok(destination) = flag.parse() {
            return Ok(Self {
                destination,
                local: None,
            });
        }
        let read = flag.rsplit_once(':').and_then(|(destination, local)| {
            let local: u16 = local.parse().ok().filter(|port| *port > 0)?;
            Some(Self {
                destination: destination.parse().ok()?,
                local: Some(local),
            })
        });
        read.ok_or_else(|| {
            CliError::usage(
                format!("--forward {flag}: expected SERVICE:PORT or SERVICE:PORT:LOCALPORT"),
                "injector intercept orders --port 3000 --forward postgres:5432",
            )
        })
    }
}

/// `Address already in use`, without the number that the system has for it.
fn short(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error")
        .next()
        .unwrap_or(&text)
        .to_lowercase()
}

/// All names by which pods of the namespace reach the same Service.
fn names(host: &str, namespace: Option<&str>, domain: &str) -> Vec<String> {
    let host = host.trim_end_matches('.');
    let Some(namespace) = namespace else {
        return vec![host.to_owned()];
    };
    let base = host.strip_suffix(&format!(".{domain}")).unwrap_or(host);
    let base = base.strip_suffix(".svc").unwrap_or(base);
    let (service, of) = base.split_once('.').unwrap_or((base, namespace));
    if of.contains('.') {
        return vec![host.to_owned()];
    }
    let mut names = vec![
        format!("{service}.{of}.svc.{domain}"),
        format!("{service}.{of}.svc"),
        format!("{service}.{of}"),
    ];
    if of == namespace {
        names.push(service.to_owned());
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(flag: &str) -> (String, Option<u16>) {
        let wanted = Wanted::read(flag).expect(flag);
        (wanted.destination.to_string(), wanted.local)
    }

    #[test]
    fn flags_are_read() {
        assert_eq!(wanted("postgres:5432"), ("postgres:5432".to_owned(), None));
        assert_eq!(
            wanted("postgres:5432:15432"),
            ("postgres:5432".to_owned(), Some(15432))
        );
        assert_eq!(
            wanted("10.0.0.1:80:81"),
            ("10.0.0.1:80".to_owned(), Some(81))
        );
        assert_eq!(
            wanted("[fd00::1]:80:81"),
            ("[fd00::1]:80".to_owned(), Some(81))
        );
        for flag in [
            "postgres",
            "postgres:",
            ":5432",
            "a:1:0",
            "a:1:2:3",
            "a:x",
            "a:1:x",
        ] {
            assert!(Wanted::read(flag).is_err(), "{flag}");
        }
    }

    #[test]
    fn service_has_all_its_names() {
        let of = |host: &str| names(host, Some("shop"), "cluster.local");
        let all = [
            "redis.shop.svc.cluster.local",
            "redis.shop.svc",
            "redis.shop",
            "redis",
        ];
        for name in all {
            assert_eq!(of(name), all, "{name}");
        }
        assert_eq!(of("redis.other").len(), 3);
        assert_eq!(of("db.example.com"), ["db.example.com"]);
        assert_eq!(names("redis", None, ""), ["redis"]);
    }

    #[tokio::test]
    async fn chosen_port_is_that_one_or_none() {
        let taken = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let port = taken.local_addr().expect("its address").port();
        let free = Forwards::bind(&[format!("redis:{port}")])
            .await
            .expect("another one");
        let lines = free.lines();
        assert!(
            lines[0].starts_with(&format!("port {port} of this machine: ")),
            "{lines:?}"
        );
        assert!(
            lines[1].ends_with(&format!(" leads to redis:{port} in the cluster")),
            "{lines:?}"
        );
        let chosen = Forwards::bind(&[format!("redis:6379:{port}")]).await;
        let failure = chosen.expect_err("taken");
        assert_eq!(
            failure.error(),
            format!(
                "--forward redis:6379:{port}: port {port} of this machine: address already in use"
            )
        );
    }
}
