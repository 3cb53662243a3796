//! nftables expressions: what a rule looks at, and what it does. Source of all numbers: linux/netfilter/nf_tables.h.

use crate::namespace::netlink::Attributes;

/// One expression of a rule.
#[derive(Debug, Clone)]
pub struct Expression {
    name: &'static str,
    attributes: Attributes,
}

/// A field of a packet, or of what the kernel knows of it.
#[derive(Debug, Clone, Copy)]
pub enum Field {
    /// The packet's mark, in the machine's byte order.
    Mark,
    /// IPv4 or IPv6, a byte.
    Family,
    /// The protocol behind IP, a byte.
    Protocol,
    /// Bytes of the IP header: where they start, and how many.
    Network(u32, u32),
    /// Bytes of the header behind it.
    Transport(u32, u32),
}

/// How a rejected packet is answered.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    /// A TCP reset.
    Reset,
    /// ICMP "host unreachable", in both families.
    Unreachable,
    /// ICMP "administratively prohibited", in both families.
    Prohibited,
}

const FIRST_REGISTER: u32 = 1;
const VERDICT_REGISTER: u32 = 0;
const ACCEPT: u32 = 1;

const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const ELEMENT: u16 = 1;
const NAME: u16 = 1;
const DATA: u16 = 2;

impl Expression {
    fn new(name: &'static str, attributes: Attributes) -> Self {
        Self { name, attributes }
    }

    /// As an element of a rule's list.
    pub fn append_to(&self, list: Attributes) -> Attributes {
        let expression = Attributes::new()
            .text(NAME, self.name)
            .nested(DATA, &self.attributes);
        list.nested(ELEMENT, &expression)
    }

    /// The module of the kernel behind it, where one may be missing.
    pub fn module(&self) -> Option<&'static str> {
        match self.name {
            "tproxy" => Some("nft_tproxy"),
            "socket" => Some("nft_socket"),
            "reject" => Some("nft_reject_inet"),
            "queue" => Some("nft_queue"),
            "target" => Some("nft_compat or xt_NFQUEUE"),
            _ => None,
        }
    }
}

/// Loads a field into the register.
pub fn load(field: Field) -> Expression {
    let meta = |key| {
        let attributes = Attributes::new().number(1, FIRST_REGISTER).number(2, key);
        Expression::new("meta", attributes)
    };
    let payload = |base, offset, length| {
        let attributes = Attributes::new()
            .number(1, FIRST_REGISTER)
            .number(2, base)
            .number(3, offset)
            .number(4, length);
        Expression::new("payload", attributes)
    };
    match field {
        Field::Mark => meta(3),
        Field::Family => meta(15),
        Field::Protocol => meta(16),
        Field::Network(offset, length) => payload(1, offset, length),
        Field::Transport(offset, length) => payload(2, offset, length),
    }
}

/// Goes on only where the register has this value.
pub fn equals(value: &[u8]) -> Expression {
    compare(0, value)
}

/// Goes on only where it has another.
pub fn differs(value: &[u8]) -> Expression {
    compare(1, value)
}

fn compare(operator: u32, value: &[u8]) -> Expression {
    let attributes = Attributes::new()
        .number(1, FIRST_REGISTER)
        .number(2, operator)
        .nested(3, &Attributes::new().bytes(DATA_VALUE, value));
    Expression::new("cmp", attributes)
}

/// Clears the bits of the register's byte that are not in `mask`.
pub fn and(mask: u8) -> Expression {
    let value = |byte| Attributes::new().bytes(DATA_VALUE, &[byte]);
    let attributes = Attributes::new()
        .number(1, FIRST_REGISTER)
        .number(2, FIRST_REGISTER)
        .number(3, 1)
        .nested(4, &value(mask))
        .nested(5, &value(0));
    Expression::new("bitwise", attributes)
}

/// Goes on only where the packet reaches a socket of the namespace itself.
///
/// The key asks whether that socket listens on all addresses; that there is one at all is what matters.
pub fn has_socket() -> Expression {
    let attributes = Attributes::new().number(1, 2).number(2, FIRST_REGISTER);
    Expression::new("socket", attributes)
}

/// Lets the packet go on its way.
pub fn accept() -> Expression {
    let verdict = Attributes::new().nested(DATA_VERDICT, &Attributes::new().number(1, ACCEPT));
    let attributes = Attributes::new()
        .number(1, VERDICT_REGISTER)
        .nested(2, &verdict);
    Expression::new("immediate", attributes)
}

/// Gives the packet to the transparent socket at `port`.
pub fn proxy(port: u16) -> [Expression; 3] {
    let value = Attributes::new().bytes(DATA_VALUE, &port.to_be_bytes());
    let set = Attributes::new()
        .number(1, FIRST_REGISTER)
        .nested(2, &value);
    // Family 0: both.
    let proxy = Attributes::new().number(1, 0).number(3, FIRST_REGISTER);
    [
        Expression::new("immediate", set),
        Expression::new("tproxy", proxy),
        accept(),
    ]
}

/// Answers the packet instead of taking it.
pub fn reject(answer: Answer) -> Expression {
    let (kind, code) = match answer {
        Answer::Reset => (1, 0),
        Answer::Unreachable => (2, 2),
        Answer::Prohibited => (2, 3),
    };
    let attributes = Attributes::new().number(1, kind).bytes(2, &[code]);
    Expression::new("reject", attributes)
}

/// Holds the packet in queue 0 until a verdict comes; passes it on where no program reads that queue.
pub fn queue() -> Expression {
    let attributes = [(1_u16, 0_u16), (2, 1), (3, 1)]
        .into_iter()
        .fold(Attributes::new(), |attributes, (kind, number)| {
            attributes.bytes(kind, &number.to_be_bytes())
        });
    Expression::new("queue", attributes)
}

/// The same by the target of iptables, for kernels without `nft_queue`.
pub fn queue_by_target() -> Expression {
    // struct xt_NFQ_info_v3: number, count, flags (1: bypass), and padding up to eight bytes.
    let info: Vec<u8> = [0_u16, 1, 1, 0]
        .into_iter()
        .flat_map(u16::to_ne_bytes)
        .collect();
    let attributes = Attributes::new()
        .text(1, "NFQUEUE")
        .number(2, 3)
        .bytes(3, &info);
    Expression::new("target", attributes)
}
