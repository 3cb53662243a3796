//! Which request targets the tunnel carries byte for byte.
//!
//! Its HTTP library (the crate `http`) rejects some bytes that Envoy accepts, with a response of its own. `tests/target.rs` compares these rules with that crate.

/// The longest `:path`, in bytes.
const MAX_PATH: usize = u16::MAX as usize - 1;

/// How many colons an authority may have before an `@` or a `]`.
const MAX_COLONS: usize = 8;

/// Does the tunnel carry this `:path`?
///
/// It must start with `/` or be `*`, and have no fragment; every other byte must be valid at its position.
pub fn carries_path(path: &[u8]) -> bool {
    if path == b"*" {
        return true;
    }
    let mut in_query = false;
    let mut is_allowed = |byte: &u8| match byte {
        b'?' => {
            in_query = true;
            true
        }
        b'"' => !in_query,
        b'`' => in_query,
        b'!' | b'$'..=b'~' => !matches!(byte, b'<' | b'>'),
        0x80.. => true,
        _ => false,
    };
    path.first() == Some(&b'/')
        && path.len() <= MAX_PATH
        && path.iter().all(&mut is_allowed)
        && str::from_utf8(path).is_ok()
}

/// Does the tunnel carry this `:authority`?
///
/// It is a host with optional port and user information; `%` may be only in user information or brackets.
pub fn carries_authority(authority: &[u8]) -> bool {
    let (mut colons, mut is_open, mut is_closed, mut has_percent) = (0_usize, false, false, false);
    for byte in authority {
        match byte {
            b':' if colons == MAX_COLONS => return false,
            b':' => colons = colons.saturating_add(1),
            b'%' => has_percent = true,
            b'[' if is_open || has_percent => return false,
            b'[' => is_open = true,
            b']' if is_closed || !is_open => return false,
            b']' | b'@' => {
                is_closed |= *byte == b']';
                colons = 0;
                has_percent = false;
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => {}
            _ if b"!$&'()*+,-.;=_~".contains(byte) => {}
            _ => return false,
        }
    }
    is_open == is_closed
        && colons < 2
        && !has_percent
        && authority.last().is_some_and(|last| *last != b'@')
}
