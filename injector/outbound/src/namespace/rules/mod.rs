//! The nftables table of the namespace, installed in one acknowledged batch.
//!
//! Only SYNs and datagrams ever match; the packets of an open connection touch no rule's action.

mod expression;

use std::net::Ipv6Addr;

use rustix::net::netlink::NETFILTER;

use self::expression::{
    Answer, Expression, Field, accept, and, differs, equals, has_socket, load, proxy, queue,
    queue_by_target, reject,
};
use super::address::{IPV4, IPV6, OWN_MARK};
use super::hold::Hold;
use super::netlink::{ACK, APPEND, Attributes, CREATE, Netlink, Refusal, message};
use super::verdict::Mark;

const TABLE: &str = "injector";
const CHAIN: &str = "prerouting";

// linux/netfilter/nfnetlink.h and nf_tables.h
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = 0;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const FAMILY_INET: u8 = 1;
const HOOK_PREROUTING: u32 = 0;
/// Where `mangle` stands: before the kernel decides whose a packet is.
const PRIORITY: i32 = -150;

const FAMILY_IPV4: u8 = 2;
const FAMILY_IPV6: u8 = 10;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ECHO_REQUEST: u8 = 8;

/// A rule with a name for errors.
#[derive(Debug)]
struct Rule {
    name: &'static str,
    expressions: Vec<Expression>,
}

/// Where captured traffic goes.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// Of the transparent listeners.
    pub tcp: u16,
    /// Of the transparent sockets for datagrams.
    pub udp: u16,
}

/// Why the table is not there.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {error}")]
pub struct RuleError {
    /// The rule that the kernel refused, by number and name, with the modules that it needs.
    pub place: String,
    /// The kernel's error.
    pub error: std::io::Error,
}

/// Installs the table.
pub fn install(ports: Ports, hold: Hold) -> Result<(), RuleError> {
    let rules = rules(ports, hold);
    let netlink = Netlink::open(Some(NETFILTER)).map_err(|error| RuleError {
        place: "netfilter socket".to_owned(),
        error: error.into(),
    })?;
    // Table and chain come first.
    netlink
        .request(&batch(&rules), rules.len() + 2)
        .map_err(|refusal| rule_error(&rules, refusal))
}

fn rule_error(rules: &[Rule], refusal: Refusal) -> RuleError {
    let error = refusal.error;
    let number = refusal.sequence.checked_sub(3).map(|index| index as usize);
    let place = match number.and_then(|index| Some((index, rules.get(index)?))) {
        None => format!("table {TABLE}"),
        Some((index, rule)) => {
            let modules = rule.expressions.iter().filter_map(Expression::module);
            let modules: Vec<_> = modules.collect();
            match modules.is_empty() {
                true => format!("rule {} ({})", index + 1, rule.name),
                false => format!("rule {} ({}: {})", index + 1, rule.name, modules.join(", ")),
            }
        }
    };
    RuleError { place, error }
}

/// Message 1 is the table, 2 the chain, 3 the first rule.
fn batch(rules: &[Rule]) -> Vec<u8> {
    let edge = |kind| message(kind, 0, 0, &[0, 0, 0, SUBSYSTEM as u8], &Attributes::new());
    let part = |kind, flags, sequence, attributes: &Attributes| {
        let kind = (SUBSYSTEM << 8) | kind;
        let header = [FAMILY_INET, 0, 0, 0];
        message(kind, flags | ACK, sequence, &header, attributes)
    };
    let hook = Attributes::new()
        .number(1, HOOK_PREROUTING)
        .bytes(2, &PRIORITY.to_be_bytes());
    let chain = Attributes::new()
        .text(1, TABLE)
        .text(3, CHAIN)
        .nested(4, &hook)
        .text(7, "filter");
    let mut bytes = edge(BATCH_BEGIN);
    bytes.extend(part(
        NEW_TABLE,
        CREATE,
        1,
        &Attributes::new().text(1, TABLE),
    ));
    bytes.extend(part(NEW_CHAIN, CREATE, 2, &chain));
    for (rule, sequence) in rules.iter().zip(3..) {
        let list = rule
            .expressions
            .iter()
            .fold(Attributes::new(), |list, expression| {
                expression.append_to(list)
            });
        let attributes = Attributes::new()
            .text(1, TABLE)
            .text(2, CHAIN)
            .nested(4, &list);
        bytes.extend(part(NEW_RULE, CREATE | APPEND, sequence, &attributes));
    }
    bytes.extend(edge(BATCH_END));
    bytes
}

fn rules(ports: Ports, hold: Hold) -> Vec<Rule> {
    let mut rules = vec![rule(
        "own connections",
        [syn(), marked(OWN_MARK), vec![accept()]],
    )];
    // The namespace's own listener comes before the host's.
    let own = |protocol: fn() -> Vec<Expression>| {
        own_addresses().into_iter().map(move |own| {
            rule(
                "own listener",
                [protocol(), own, vec![has_socket(), accept()]],
            )
        })
    };
    rules.extend(own(syn));
    let held = match hold {
        Hold::Queue => Some(queue()),
        Hold::Target => Some(queue_by_target()),
        Hold::None => None,
    };
    rules.extend(held.map(|held| rule("hold", [syn(), marked(0), vec![held]])));
    for (mark, answer) in [
        (Mark::Refused, Answer::Reset),
        (Mark::Unreachable, Answer::Unreachable),
        (Mark::Denied, Answer::Prohibited),
    ] {
        let answer = vec![reject(answer)];
        rules.push(rule("answer", [syn(), marked(mark.number()), answer]));
    }
    rules.push(rule("capture TCP", [syn(), proxy(ports.tcp).to_vec()]));
    rules.extend(own(udp));
    rules.push(rule("capture UDP", [udp(), proxy(ports.udp).to_vec()]));
    // Every address is local, so the kernel would answer every ping itself.
    let ping = [
        vec![load(Field::Family), equals(&[FAMILY_IPV4])],
        vec![load(Field::Network(16, 1)), differs(&[127])],
        vec![load(Field::Protocol), equals(&[ICMP])],
        vec![load(Field::Transport(0, 1)), equals(&[ECHO_REQUEST])],
        vec![reject(Answer::Prohibited)],
    ];
    rules.push(rule("ping", ping));
    rules
}

fn rule<const N: usize>(name: &'static str, parts: [Vec<Expression>; N]) -> Rule {
    Rule {
        name,
        expressions: parts.concat(),
    }
}

/// SYN alone: of the flags FIN, SYN, RST and ACK.
fn syn() -> Vec<Expression> {
    let protocol = [load(Field::Protocol), equals(&[TCP])];
    let flags = [load(Field::Transport(13, 1)), and(0x17), equals(&[0x02])];
    protocol.into_iter().chain(flags).collect()
}

fn udp() -> Vec<Expression> {
    vec![load(Field::Protocol), equals(&[UDP])]
}

fn marked(mark: u32) -> Vec<Expression> {
    vec![load(Field::Mark), equals(&mark.to_ne_bytes())]
}

/// To 127.0.0.0/8, ::1, and the two addresses of the namespace.
fn own_addresses() -> [Vec<Expression>; 4] {
    let to = |family, offset, value: &[u8]| {
        let length = u32::try_from(value.len()).unwrap_or_default();
        let address = [load(Field::Network(offset, length)), equals(value)];
        let family = [load(Field::Family), equals(&[family])];
        family.into_iter().chain(address).collect()
    };
    [
        to(FAMILY_IPV4, 16, &[127]),
        to(FAMILY_IPV4, 16, &IPV4.octets()),
        to(FAMILY_IPV6, 24, &Ipv6Addr::LOCALHOST.octets()),
        to(FAMILY_IPV6, 24, &IPV6.octets()),
    ]
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn refused(sequence: u32) -> String {
        let rules = rules(Ports { tcp: 1, udp: 2 }, Hold::Queue);
        let error = io::Error::from_raw_os_error(2);
        rule_error(&rules, Refusal { sequence, error }).place
    }

    #[test]
    fn refusals_name_rule_and_module() {
        assert_eq!(refused(1), "table injector");
        assert_eq!(refused(3), "rule 1 (own connections)");
        assert_eq!(refused(4), "rule 2 (own listener: nft_socket)");
        assert_eq!(refused(8), "rule 6 (hold: nft_queue)");
        assert_eq!(refused(12), "rule 10 (capture TCP: nft_tproxy)");
    }
}
