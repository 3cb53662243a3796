//! A command line to paste: one request that an intercept matches.

use intercept_overlap::ExampleRequest;
use intercept_tunnel::developer::LocalProtocol;

use crate::model::Plan;
use crate::shell::quote;

/// A request that the plan's intercept matches and that curl can send.
pub fn example(plan: &Plan) -> Option<ExampleRequest> {
    let example = intercept_overlap::example(&plan.intercept("", 0, 0))?;
    let is_sendable =
        |name: &str| !name.starts_with(':') || name.eq_ignore_ascii_case(":authority");
    let all = example.headers.iter().all(|(name, _)| is_sendable(name));
    all.then_some(example)
}

/// The line that sends it.
pub fn line(plan: &Plan, example: &ExampleRequest) -> String {
    let mut words = vec!["curl".to_owned()];
    if plan.protocol == LocalProtocol::Http2 {
        words.push("--http2-prior-knowledge".to_owned());
    }
    match example.method.as_str() {
        "GET" => {}
        // With -X curl would wait for a body that never comes.
        "HEAD" => words.push("--head".to_owned()),
        method => words.extend(["-X".to_owned(), quote(method)]),
    }
    for (name, value) in &example.headers {
        words.extend(["-H".to_owned(), quote(&header(name, value))]);
    }
    if example.path.contains(['{', '}', '[', ']']) {
        words.push("--globoff".to_owned());
    }
    if example.path.contains("/.") {
        words.push("--path-as-is".to_owned());
    }
    words.push(quote(&format!(
        "{}{}",
        plan.url.trim_end_matches('/'),
        example.path
    )));
    words.join(" ")
}

fn header(name: &str, value: &str) -> String {
    let name = if name.eq_ignore_ascii_case(":authority") {
        "host"
    } else {
        name
    };
    match value {
        // So does curl spell a header without a value; `name:` would remove it.
        "" => format!("{name};"),
        value => format!("{name}: {value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Placement;
    use crate::shell::tests::words;
    use intercept_core::{Config, Limits, MatchBaggage, MatchHeader, MatchPath, Matcher, Request};
    use intercept_tunnel::relay_end::RelayEnd;
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn plan(headers: &[(&str, &str)], baggage: &[(&str, &str)], path: Option<MatchPath>) -> Plan {
        let own = |(one, other): &(&str, &str)| ((*one).to_owned(), (*other).to_owned());
        Plan {
            name: "orders-bob".to_owned(),
            workload: "orders".to_owned(),
            port: 8080,
            url: "http://127.0.0.1:8080".to_owned(),
            protocol: LocalProtocol::Auto,
            developer_port: 3000,
            place: Placement {
                relay: RelayEnd::tcp(std::net::SocketAddr::from(([127, 0, 0, 1], 7070))),
                cluster: "intercept|orders-bob".to_owned(),
                identity: None,
                replica: 0,
            },
            owner: "bob".to_owned(),
            headers: headers
                .iter()
                .map(own)
                .map(|(name, value)| MatchHeader { name, value })
                .collect(),
            baggage: baggage
                .iter()
                .map(own)
                .map(|(key, value)| MatchBaggage { key, value })
                .collect(),
            path,
            lease: Duration::from_secs(3_600),
            allow_overlap: false,
            replaces: None,
            context_flags: String::new(),
        }
    }

    /// The request that curl would send.
    struct Sent(BTreeMap<String, String>);

    impl Sent {
        fn by(line: &str) -> Self {
            let mut words = words(line).into_iter();
            assert_eq!(words.next().as_deref(), Some("curl"));
            let mut headers = BTreeMap::from([(":method".to_owned(), "GET".to_owned())]);
            while let Some(word) = words.next() {
                match word.as_str() {
                    "-H" => {
                        let header = words.next().expect("a header");
                        let (name, value) = header
                            .split_once(": ")
                            .or(header.strip_suffix(';').map(|name| (name, "")))
                            .expect("a header");
                        let name = name.to_ascii_lowercase();
                        let name = if name == "host" {
                            ":authority".to_owned()
                        } else {
                            name
                        };
                        headers.insert(name, value.to_owned());
                    }
                    "-X" => {
                        drop(headers.insert(":method".to_owned(), words.next().expect("a method")))
                    }
                    "--head" => drop(headers.insert(":method".to_owned(), "HEAD".to_owned())),
                    "--globoff" | "--path-as-is" => {}
                    url => {
                        let path = url
                            .strip_prefix("http://127.0.0.1:8080")
                            .expect("the service");
                        headers.insert(":path".to_owned(), path.to_owned());
                    }
                }
            }
            Self(headers)
        }
    }

    impl Request for Sent {
        fn header(&self, name: &str) -> Option<Vec<u8>> {
            self.0.get(name).map(|value| value.clone().into_bytes())
        }

        fn is_port(&self, port: u16) -> bool {
            port == 8080
        }

        fn now(&self) -> u64 {
            1_000
        }
    }

    #[test]
    fn the_line_that_is_printed_matches_the_intercept_when_pasted() {
        let equal = |text: &str| Some(MatchPath::Equal(text.to_owned()));
        let regex = |text: &str| Some(MatchPath::Regex(text.to_owned()));
        let plans = [
            plan(&[("Coder", "Bob")], &[], None),
            plan(&[("Coder", "B.*|it's (me|you)")], &[], None),
            plan(&[("Coder", "it's \"\\$HOME\" `x`")], &[], equal("/a'b")),
            plan(&[("X-Empty", "^$")], &[], None),
            plan(
                &[(":method", "POST|PUT"), (":authority", "orders\\.example")],
                &[],
                None,
            ),
            plan(&[(":authority", "bob.shop.example.com")], &[], None),
            plan(&[(":method", "HEAD")], &[], None),
            plan(&[], &[("dev", "b[o]b,;x")], None),
            plan(&[], &[], regex("(staging-)?api/.*")),
            plan(&[], &[], equal("/a/../b/{x}[1]")),
            plan(&[], &[], Some(MatchPath::Prefix("/api".to_owned()))),
        ];
        for plan in plans {
            let intercept = plan.intercept(&"0".repeat(32), 0, 1_000);
            let line = line(&plan, &example(&plan).expect("an example"));
            let limits = Limits {
                allow_all: true,
                ..Limits::default()
            };
            let intercepts = vec![(plan.name.clone(), intercept)];
            let (matcher, rejected) = Matcher::compile(Config {
                limits,
                intercepts,
                ..Config::default()
            });
            assert_eq!(rejected, []);
            assert!(
                matcher.decide(&Sent::by(&line)).intercept.is_some(),
                "{line}"
            );
        }
    }
}
