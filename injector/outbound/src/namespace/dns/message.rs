//! As much of a DNS message (RFC 1035) as passing it on needs: the question's name, and the addresses and lifetimes of an answer.

use std::net::IpAddr;

/// The length of a message's header.
const HEADER: usize = 12;
/// What a program takes by UDP unless it says more.
const PLAIN_LENGTH: usize = 512;
/// A name has at most so many labels, compressed or not.
const MAX_LABELS: usize = 128;

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
/// EDNS (RFC 6891): its class is the length that the sender takes.
const TYPE_OPT: u16 = 41;

/// How a message is answered that has no answer (RFC 1035, 4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// An answer, be it empty.
    NoError = 0,
    /// The message cannot be read.
    FormatError = 1,
    /// No resolver has answered.
    ServerFailure = 2,
    /// There is no such name.
    UnknownName = 3,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The name in lower case, without the final dot.
    pub name: String,
    kind: u16,
    /// Where the question ends in its message.
    end: usize,
}

/// A record of any section.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    kind: u16,
    class: u16,
    /// Where its lifetime stands in the message.
    ttl_at: usize,
    /// How long it may be kept, in seconds.
    ttl: u32,
    data: &'a [u8],
}

impl Record<'_> {
    /// The address that it says.
    pub fn address(&self) -> Option<IpAddr> {
        match (self.kind, self.data.len()) {
            (TYPE_A, 4) => Some(IpAddr::from(*self.data.first_chunk::<4>()?)),
            (TYPE_AAAA, 16) => Some(IpAddr::from(*self.data.first_chunk::<16>()?)),
            _ => None,
        }
    }
}

/// The first question of a query.
pub fn question(message: &[u8]) -> Option<Question> {
    let mut name = String::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*message.get(at)?);
        if length == 0 {
            break;
        }
        // A query's first name refers to nothing.
        if length > 63 {
            return None;
        }
        let label = message.get(at + 1..at + 1 + length)?;
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&String::from_utf8_lossy(label).to_lowercase());
        at += 1 + length;
    }
    let kind = u16_at(message, at + 1)?;
    let end = at + 5;
    (end <= message.len()).then_some(Question { name, kind, end })
}

/// Every record of a message; `None` where it cannot be read.
pub fn records(message: &[u8]) -> Option<Vec<Record<'_>>> {
    let mut at = HEADER;
    for _ in 0..u16_at(message, 4)? {
        at = skip_name(message, at)? + 4;
    }
    let counts = [6, 8, 10].map(|at| u16_at(message, at));
    let mut records = Vec::new();
    for count in counts {
        for _ in 0..count? {
            let (record, end) = record(message, at)?;
            records.push(record);
            at = end;
        }
    }
    Some(records)
}

fn record(message: &[u8], at: usize) -> Option<(Record<'_>, usize)> {
    let at = skip_name(message, at)?;
    let start = at + 10;
    let end = start + usize::from(u16_at(message, at + 8)?);
    let ttl_at = at + 4;
    let record = Record {
        kind: u16_at(message, at)?,
        class: u16_at(message, at + 2)?,
        ttl_at,
        ttl: u32::from_be_bytes(*message.get(ttl_at..)?.first_chunk()?),
        data: message.get(start..end)?,
    };
    Some((record, end))
}

fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    for _ in 0..MAX_LABELS {
        match *message.get(at)? {
            0 => return Some(at + 1),
            // A reference to another place ends a name.
            192.. => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
    None
}

/// The addresses of an answer.
pub fn addresses(message: &[u8]) -> Vec<IpAddr> {
    let records = records(message).unwrap_or_default();
    records.iter().filter_map(Record::address).collect()
}

/// How long an answer may be kept, in seconds: `Err` where it says that there is nothing, `None` where it says neither.
pub fn lifetime(message: &[u8]) -> Option<Result<u32, Empty>> {
    let code = message.get(3)? & 15;
    let answers = u16_at(message, 6)?;
    if code == Code::UnknownName as u8 || (code == Code::NoError as u8 && answers == 0) {
        return Some(Err(Empty));
    }
    if code != Code::NoError as u8 {
        return None;
    }
    let records = records(message)?;
    let kept = records.iter().filter(|record| record.kind != TYPE_OPT);
    kept.map(|record| record.ttl).min().map(Ok)
}

/// An answer that there is no such name, or no record of that type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Empty;

/// Takes `seconds` from the lifetime of every record.
pub fn age(message: &mut [u8], seconds: u32) {
    let lifetimes: Vec<_> = records(message)
        .unwrap_or_default()
        .iter()
        .filter(|record| record.kind != TYPE_OPT)
        .map(|record| (record.ttl_at, record.ttl.saturating_sub(seconds)))
        .collect();
    for (at, ttl) in lifetimes {
        if let Some(place) = message.get_mut(at..at + 4) {
            place.copy_from_slice(&ttl.to_be_bytes());
        }
    }
}

/// An answer without records, to a query whose header can be read.
pub fn failure(query: &[u8], code: Code) -> Option<Vec<u8>> {
    let end = question(query).map_or(HEADER, |question| question.end);
    let mut answer = query.get(..end)?.to_vec();
    set_header(&mut answer, code, 0)?;
    if end == HEADER {
        answer.get_mut(4..6)?.fill(0);
    }
    Some(answer)
}

/// An answer with the loopback addresses of the type that was asked for (RFC 6761, 6.3).
pub fn localhost(query: &[u8], question: &Question) -> Option<Vec<u8>> {
    let mut answer = query.get(..question.end)?.to_vec();
    let address: &[u8] = match question.kind {
        TYPE_A => &[127, 0, 0, 1],
        TYPE_AAAA => &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        _ => &[],
    };
    set_header(&mut answer, Code::NoError, u8::from(!address.is_empty()))?;
    if !address.is_empty() {
        // The name of the question, its type, class IN, and a day.
        answer.extend([0xc0, HEADER as u8]);
        answer.extend(question.kind.to_be_bytes());
        answer.extend([0, 1, 0, 1, 0x51, 0x80, 0]);
        answer.push(u8::try_from(address.len()).ok()?);
        answer.extend(address);
    }
    Some(answer)
}

/// An answer, recursion available, this code, and as many answers.
fn set_header(message: &mut [u8], code: Code, answers: u8) -> Option<()> {
    let header = message.first_chunk_mut::<HEADER>()?;
    header[2] |= 0x80;
    header[3] = 0x80 | code as u8;
    header[6..].copy_from_slice(&[0, answers, 0, 0, 0, 0]);
    Some(())
}

/// An answer by UDP: cut to its question and marked so where the program takes no message of that length, so that it asks again by TCP.
pub fn fit(query: &[u8], answer: Vec<u8>) -> Vec<u8> {
    let records = records(query).unwrap_or_default();
    let stated = records.iter().find(|record| record.kind == TYPE_OPT);
    let limit = stated.map_or(PLAIN_LENGTH, |record| {
        usize::from(record.class).max(PLAIN_LENGTH)
    });
    if answer.len() <= limit {
        return answer;
    }
    let code = match answer.get(3).map(|byte| byte & 15) {
        Some(3) => Code::UnknownName,
        _ => Code::NoError,
    };
    let mut short = failure(query, code).unwrap_or_default();
    if let Some(flags) = short.get_mut(2) {
        *flags |= 0x02;
    }
    short
}

fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*message.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            message.push(label.len() as u8);
            message.extend(label.bytes());
        }
        message.push(0);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        message
    }

    fn answer_with_ttl(ttl: u32) -> Vec<u8> {
        let query = query("a.b", TYPE_A);
        let mut answer = localhost(&query, &question(&query).unwrap()).unwrap();
        let ttl_at = records(&answer).unwrap()[0].ttl_at;
        answer[ttl_at..ttl_at + 4].copy_from_slice(&ttl.to_be_bytes());
        answer
    }

    #[test]
    fn questions_are_read_in_lower_case() {
        let question = question(&query("Redis.SHOP", TYPE_AAAA)).unwrap();
        assert_eq!((&*question.name, question.kind), ("redis.shop", TYPE_AAAA));
    }

    #[test]
    fn cut_messages_are_refused() {
        let whole = query("a.b", TYPE_A);
        for length in 0..whole.len() {
            assert_eq!(question(&whole[..length]), None, "{length}");
        }
        let answer = answer_with_ttl(5);
        for length in 0..answer.len() {
            assert!(records(&answer[..length]).is_none(), "{length}");
        }
    }

    #[test]
    fn names_without_an_end_are_refused() {
        let mut message = query("a", TYPE_A);
        message[5] = 0;
        message[7] = 1;
        message.truncate(HEADER);
        message.extend(std::iter::repeat_n(1, 4096));
        assert!(records(&message).is_none());
    }

    #[test]
    fn localhost_is_answered_in_both_families() {
        for (kind, expected) in [
            (TYPE_A, vec!["127.0.0.1".parse().unwrap()]),
            (TYPE_AAAA, vec!["::1".parse().unwrap()]),
            (15, vec![]),
        ] {
            let query = query("localhost", kind);
            let answer = localhost(&query, &question(&query).unwrap()).unwrap();
            assert_eq!(addresses(&answer), expected as Vec<IpAddr>);
            assert_eq!(answer[..2], query[..2]);
        }
    }

    #[test]
    fn lifetimes_shrink_with_age() {
        let mut answer = answer_with_ttl(30);
        assert_eq!(lifetime(&answer), Some(Ok(30)));
        age(&mut answer, 12);
        assert_eq!(lifetime(&answer), Some(Ok(18)));
        age(&mut answer, 100);
        assert_eq!(lifetime(&answer), Some(Ok(0)));
    }

    #[test]
    fn failures_have_no_lifetime() {
        let query = query("a", TYPE_A);
        let of = |code| lifetime(&failure(&query, code).unwrap());
        assert_eq!(of(Code::UnknownName), Some(Err(Empty)));
        assert_eq!(of(Code::NoError), Some(Err(Empty)));
        assert_eq!(of(Code::ServerFailure), None);
    }

    #[test]
    fn long_answers_are_cut_for_udp() {
        let mut answer = answer_with_ttl(1);
        answer.resize(1000, 0);
        let plain = query("a.b", TYPE_A);
        let cut = fit(&plain, answer.clone());
        assert_eq!((cut.len(), cut[2] & 2), (plain.len(), 2));
        let mut extended = plain;
        extended[11] = 1;
        extended.extend([0, 0, TYPE_OPT as u8, 0x10, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(fit(&extended, answer.clone()), answer);
    }
}
