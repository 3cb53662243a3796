//! DNS messages (RFC 1035): questions that are asked here, and what is read of those that pass.

use std::net::IpAddr;

use bytes::Bytes;
use simple_dns::rdata::RData;
use simple_dns::{
    CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
};

/// Bytes of a header.
const HEADER: usize = 12;

/// Seconds for which an answer made here may be used.
const TTL: u32 = 5;

/// What is asked for.
pub(super) struct Asked {
    /// In lower case, without the last dot.
    pub(super) name: String,
}

/// The one question of a message; `None` for anything else.
pub(super) fn question(message: &[u8]) -> Option<Asked> {
    // Before anything is reserved for what the header only says.
    let [0, 1] = message.get(4..6)? else {
        return None;
    };
    let question = with_question_only(message)?;
    let packet = Packet::parse(&question).ok()?;
    let name = packet.questions.first()?.qname.to_string();
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let is_query = !packet.has_flags(PacketFlag::RESPONSE);
    is_query.then_some(Asked { name })
}

/// The header with its counts of records zeroed: what follows the question is not read.
fn with_question_only(message: &[u8]) -> Option<Vec<u8>> {
    let mut question = message.to_vec();
    question.get_mut(6..HEADER)?.fill(0);
    Some(question)
}

/// A question for the addresses of a name.
pub(crate) fn query(name: &str, v6: bool) -> Option<Bytes> {
    let kind = if v6 { TYPE::AAAA } else { TYPE::A };
    let mut packet = Packet::new_query(0);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).ok()?;
    let class = QCLASS::CLASS(CLASS::IN);
    packet
        .questions
        .push(Question::new(name, QTYPE::TYPE(kind), class, false));
    packet.build_bytes_vec().ok().map(Bytes::from)
}

/// The addresses among the answers.
pub(crate) fn addresses(message: &[u8]) -> Vec<IpAddr> {
    let Ok(packet) = Packet::parse(message) else {
        return Vec::new();
    };
    let address = |record: &ResourceRecord<'_>| match &record.rdata {
        RData::A(a) => Some(IpAddr::V4(a.address.into())),
        RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.address.into())),
        _ => None,
    };
    packet.answers.iter().filter_map(address).collect()
}

/// An answer with these addresses, of which the question asks for one family.
pub(crate) fn reply(message: &[u8], addresses: &[IpAddr]) -> Option<Bytes> {
    let question = with_question_only(message)?;
    let question = Packet::parse(&question).ok()?;
    let asked = question.questions.first()?.clone();
    let mut reply = to(&question);
    for ip in addresses {
        let (kind, data) = match *ip {
            IpAddr::V4(ip) => (TYPE::A, RData::A(ip.into())),
            IpAddr::V6(ip) => (TYPE::AAAA, RData::AAAA(ip.into())),
        };
        if asked.qtype == QTYPE::TYPE(kind) || asked.qtype == QTYPE::ANY {
            reply.answers.push(ResourceRecord::new(
                asked.qname.clone(),
                CLASS::IN,
                TTL,
                data,
            ));
        }
    }
    reply.questions.push(asked);
    reply.build_bytes_vec().ok().map(Bytes::from)
}

/// The answer that there is no such name.
pub(super) fn no_such_name(message: &[u8]) -> Option<Bytes> {
    let question = with_question_only(message)?;
    let question = Packet::parse(&question).ok()?;
    let mut reply = to(&question);
    *reply.rcode_mut() = RCODE::NameError;
    reply.questions.extend(question.questions.first().cloned());
    reply.build_bytes_vec().ok().map(Bytes::from)
}

fn to(question: &Packet<'_>) -> Packet<'static> {
    let mut reply = Packet::new_reply(question.id());
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    if question.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    reply
}

/// The message with another id (RFC 1035, section 4.1.1), and the one that it had.
pub(super) fn with_id(message: &[u8], id: [u8; 2]) -> Option<(Vec<u8>, [u8; 2])> {
    let mut message = message.to_vec();
    let place = message.first_chunk_mut::<2>()?;
    let before = std::mem::replace(place, id);
    Some((message, before))
}

/// Whether it is an answer to the question, without their ids.
pub(super) fn answers(message: &[u8], query: &[u8]) -> bool {
    let is_response = message.get(2).is_some_and(|flags| flags & 0x80 != 0);
    let name = |message: &[u8]| {
        let question = with_question_only(message)?;
        let packet = Packet::parse(&question).ok()?;
        let asked = packet.questions.first()?;
        Some((asked.qname.to_string().to_ascii_lowercase(), asked.qtype))
    };
    is_response && name(message).is_some() && name(message) == name(query)
}

/// Whether the rest is to be had by TCP (TC, RFC 1035, section 4.1.1).
pub(super) fn is_truncated(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & 0x02 != 0)
}
