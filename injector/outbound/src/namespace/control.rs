//! What the engine and the helper say to each other: datagrams on a pair of SOCK_SEQPACKET sockets, with descriptors beside them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use super::error::SetupError;
use super::hold::Hold;

/// More descriptors than any message carries.
const MAX_DESCRIPTORS: usize = 16;

/// The longest message: two configuration files.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// A connected pair: the engine's end and the helper's.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    let pair = net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    Ok(pair)
}

/// Sends one message.
pub fn send(to: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let flags = SendFlags::NOSIGNAL;
    net::sendmsg(to, &[IoSlice::new(bytes)], &mut ancillary, flags)?;
    Ok(())
}

/// Receives one message; empty once the other end is closed.
pub fn receive(from: impl AsFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = net::recvmsg(
        from,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    bytes.truncate(received.bytes);
    let rights = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors = rights.flatten().collect();
    Ok((bytes, descriptors))
}

/// The files that the namespace sees instead of the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// /etc/resolv.conf.
    pub resolv_conf: String,
    /// /etc/nsswitch.conf, where the host has one.
    pub nsswitch_conf: Option<String>,
}

impl Files {
    /// As the first message to the helper.
    pub fn encode(&self) -> Vec<u8> {
        let nsswitch_conf = self.nsswitch_conf.as_deref();
        let second = nsswitch_conf.map_or_else(String::new, |text| format!("\0{text}"));
        format!("{}{second}", self.resolv_conf).into_bytes()
    }

    /// The inverse of [`Self::encode`].
    pub fn decode(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (first, second) = match text.split_once('\0') {
            Some((first, second)) => (first, Some(second.to_owned())),
            None => (&*text, None),
        };
        Self {
            resolv_conf: first.to_owned(),
            nsswitch_conf: second,
        }
    }
}

/// What the helper has set up; its sockets come with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// How SYNs are held.
    pub hold: Hold,
    /// Does the kernel have IPv6?
    pub has_ipv6: bool,
    /// The port of the transparent listeners.
    pub port: u16,
}

/// How the setup ended, as the helper's only unasked message.
pub fn encode_outcome(outcome: &Result<Ready, SetupError>) -> String {
    match outcome {
        Ok(Ready {
            hold,
            has_ipv6,
            port,
        }) => format!("ready {} {has_ipv6} {port}", hold.as_str()),
        Err(error) => format!("error {}", error.encode()),
    }
}

/// The inverse of [`encode_outcome`]; `None` for anything else.
pub fn decode_outcome(bytes: &[u8]) -> Option<Result<Ready, SetupError>> {
    let text = str::from_utf8(bytes).ok()?;
    match text.split_once(' ')? {
        ("ready", rest) => {
            let mut words = rest.split(' ');
            let hold = Hold::parse(words.next()?)?;
            let has_ipv6 = words.next()?.parse().ok()?;
            let port = words.next()?.parse().ok()?;
            Some(Ok(Ready {
                hold,
                has_ipv6,
                port,
            }))
        }
        ("error", rest) => SetupError::decode(rest).map(Err),
        _ => None,
    }
}

/// A socket that the engine wants to have inside the namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketKind {
    /// TCP, marked as the engine's own.
    Stream {
        /// For an IPv6 address?
        is_ipv6: bool,
    },
    /// UDP, free to bind any address.
    Datagram {
        /// For an IPv6 address?
        is_ipv6: bool,
    },
}

impl SocketKind {
    /// As the message that asks for it.
    pub fn encode(self) -> [u8; 2] {
        let (kind, is_ipv6) = match self {
            Self::Stream { is_ipv6 } => (b't', is_ipv6),
            Self::Datagram { is_ipv6 } => (b'u', is_ipv6),
        };
        [kind, if is_ipv6 { b'6' } else { b'4' }]
    }

    /// The inverse of [`Self::encode`].
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let is_ipv6 = bytes.get(1)? == &b'6';
        match bytes.first()? {
            b't' => Some(Self::Stream { is_ipv6 }),
            b'u' => Some(Self::Datagram { is_ipv6 }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::Step;
    use super::*;

    #[test]
    fn messages_survive_both_ways() {
        for nsswitch_conf in [None, Some(String::new()), Some("hosts: files\n".to_owned())] {
            let files = Files {
                resolv_conf: "nameserver 127.0.0.53\n".to_owned(),
                nsswitch_conf,
            };
            assert_eq!(Files::decode(&files.encode()), files);
        }
        for is_ipv6 in [false, true] {
            for kind in [
                SocketKind::Stream { is_ipv6 },
                SocketKind::Datagram { is_ipv6 },
            ] {
                assert_eq!(SocketKind::decode(&kind.encode()), Some(kind));
            }
        }
    }

    #[test]
    fn outcomes_survive_both_ways() {
        let ready = Ready {
            hold: Hold::Target,
            has_ipv6: true,
            port: 40_001,
        };
        let error = SetupError::new(Step::Rules, "rule 3 (capture: nft_tproxy)", Some(2));
        for outcome in [Ok(ready), Err(error)] {
            let encoded = encode_outcome(&outcome);
            let decoded = decode_outcome(encoded.as_bytes());
            assert_eq!(decoded, Some(outcome));
        }
        assert_eq!(decode_outcome(b"ready maybe"), None);
    }

    #[test]
    fn descriptors_travel_with_their_message() {
        let (ours, theirs) = pair().unwrap();
        send(&ours, b"two", &[ours.as_fd(), theirs.as_fd()]).unwrap();
        let (bytes, descriptors) = receive(&theirs).unwrap();
        assert_eq!((&bytes[..], descriptors.len()), (&b"two"[..], 2));
        drop((ours, descriptors));
        assert_eq!(receive(&theirs).unwrap().0, b"");
    }
}
