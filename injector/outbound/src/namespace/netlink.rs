//! Netlink messages as bytes, and a socket that sends them and waits for the kernel's acknowledgements.
//!
//! Sources: linux/netlink.h, linux/rtnetlink.h. Knows nothing of what a message asks for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{self, AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Asks for an acknowledgement.
pub const ACK: u16 = 4;
/// Fails where the object exists.
pub const EXCLUSIVE: u16 = 0x200;
/// Creates the object.
pub const CREATE: u16 = 0x400;
/// Adds it at the end of a list.
pub const APPEND: u16 = 0x800;

const REQUEST: u16 = 1;
const ERROR: u16 = 2;
const HEADER_LENGTH: usize = 16;
/// The bit of an attribute's type that says that its data are attributes.
const NESTED: u16 = 0x8000;
/// Its other bits.
const TYPE_MASK: u16 = 0x3fff;

/// Attributes, each with its length, type and padding.
#[derive(Debug, Clone, Default)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// No attributes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds plain data.
    pub fn bytes(mut self, kind: u16, data: &[u8]) -> Self {
        let length = u16::try_from(data.len() + 4).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(data);
        self.0.resize(aligned(self.0.len()), 0);
        self
    }

    /// Adds a number in network byte order, as netfilter wants them.
    pub fn number(self, kind: u16, number: u32) -> Self {
        self.bytes(kind, &number.to_be_bytes())
    }

    /// Adds a text with its final zero.
    pub fn text(self, kind: u16, text: &str) -> Self {
        let data: Vec<u8> = text.bytes().chain([0]).collect();
        self.bytes(kind, &data)
    }

    /// Adds attributes as one attribute.
    pub fn nested(self, kind: u16, attributes: &Self) -> Self {
        self.bytes(kind | NESTED, &attributes.0)
    }
}

/// One message that asks the kernel for something.
///
/// `sequence` comes back with the acknowledgement; `header` is the fixed part that the message's type demands.
pub fn message(
    kind: u16,
    flags: u16,
    sequence: u32,
    header: &[u8],
    attributes: &Attributes,
) -> Vec<u8> {
    let length = HEADER_LENGTH + header.len() + attributes.0.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((flags | REQUEST).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(header);
    bytes.extend(&attributes.0);
    bytes
}

/// What the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("netlink message {sequence}: {error}")]
pub struct Refusal {
    /// The number of the refused message; 0 where the socket failed.
    pub sequence: u32,
    /// Why.
    pub error: io::Error,
}

impl From<rustix::io::Errno> for Refusal {
    fn from(error: rustix::io::Errno) -> Self {
        Self {
            sequence: 0,
            error: error.into(),
        }
    }
}

/// A netlink socket. It belongs to the network namespace in which it was made.
#[derive(Debug)]
pub struct Netlink(OwnedFd);

impl Netlink {
    /// Opens a socket for `protocol`; `None` is routing.
    pub fn open(protocol: Option<Protocol>) -> rustix::io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let socket = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self(socket))
    }

    /// Sends messages, and reads until `count` of them are acknowledged.
    ///
    /// After a refusal, further answers may be under way: open another socket for the next request.
    pub fn request(&self, messages: &[u8], count: usize) -> Result<(), Refusal> {
        net::send(&self.0, messages, SendFlags::empty())?;
        let mut acknowledged = 0;
        let mut buffer = vec![0; 32 * 1024];
        while acknowledged < count {
            let (length, _) = net::recv(&self.0, &mut buffer[..], RecvFlags::empty())?;
            for answer in messages_of(&buffer[..length]).filter(|answer| answer.kind == ERROR) {
                match -i32_at(answer.body, 0).unwrap_or_default() {
                    0 => acknowledged += 1,
                    errno => {
                        let error = io::Error::from_raw_os_error(errno);
                        let sequence = answer.sequence;
                        return Err(Refusal { sequence, error });
                    }
                }
            }
        }
        Ok(())
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Netlink> for OwnedFd {
    fn from(netlink: Netlink) -> Self {
        netlink.0
    }
}

/// One received message.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// Its type.
    pub kind: u16,
    /// The number of the message that it answers.
    pub sequence: u32,
    /// What follows its header.
    pub body: &'a [u8],
}

/// The messages of a received datagram. One that is cut off ends them.
pub fn messages_of(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let received = Received {
            kind: u16_at(bytes, 4)?,
            sequence: u32_at(bytes, 8)?,
            body: bytes.get(HEADER_LENGTH..length)?,
        };
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some(received)
    })
}

/// The attributes in `bytes` with their types. One that is cut off ends them.
pub fn attributes_of(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & TYPE_MASK;
        let data = bytes.get(4..length)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, data))
    })
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_ne_bytes(bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(bytes))
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(i32::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested() {
        let inner = Attributes::new().text(1, "lo");
        let outer = Attributes::new().nested(2, &inner).number(3, 7);
        let read: Vec<_> = attributes_of(&outer.0).collect();
        assert_eq!(read.len(), 2);
        assert_eq!(read[0].0, 2);
        let nested: Vec<_> = attributes_of(read[0].1).collect();
        assert_eq!(nested, [(1, &b"lo\0"[..])]);
        assert_eq!(read[1], (3, &[0, 0, 0, 7][..]));
    }

    #[test]
    fn messages_are_read_until_cut() {
        let one = message(9, ACK, 5, &[1, 2, 3], &Attributes::new());
        let mut two = one.clone();
        two.resize(aligned(two.len()), 0);
        two.extend(&one);
        let count = |bytes: &[u8]| messages_of(bytes).count();
        assert_eq!(count(&two), 2);
        assert_eq!(count(&two[..two.len() - 1]), 1);
        assert_eq!(count(&two[..10]), 0);
    }
}
