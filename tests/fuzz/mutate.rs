//! Random changes to input in pieces. Knows nothing of the input's meaning.

use harness::fidelity::frames::headers;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};

use super::seeds::{Piece, Stages};

/// Bytes with a meaning to a parser.
const TELLING: &[u8] = b"\0\r\n\t :;,=\"\\0G@\x7f\x80\xff";

/// More than any end reads at once, in bytes.
const MOST: usize = 2 << 20;

/// Some random bytes.
fn bytes(random: &mut StdRng, most: usize) -> Vec<u8> {
    let mut bytes = vec![0; random.random_range(0..=most)];
    random.fill_bytes(&mut bytes);
    bytes
}

/// One of the seeds with up to five changes; rarely, arbitrary bytes.
pub fn input(seeds: &[Stages], random: &mut StdRng) -> Vec<Vec<u8>> {
    if random.random_ratio(1, 20) {
        return vec![bytes(random, 2_000)];
    }
    let mut stages = seeds.choose(random).expect("a seed").clone();
    for _ in 0..random.random_range(0..=5) {
        let other = seeds.choose(random).and_then(|seed| seed.choose(random));
        let other = other.and_then(|stage| stage.choose(random)).cloned();
        let place = random.random_range(0..stages.len());
        change(&mut stages[place], other, random);
    }
    let flat = |stage: Vec<Piece>| {
        let bytes = stage.into_iter().flat_map(|piece| piece.bytes);
        bytes.take(MOST).collect()
    };
    stages.into_iter().map(flat).collect()
}

/// Moves, repeats, drops or changes a piece.
fn change(stage: &mut Vec<Piece>, other: Option<Piece>, random: &mut StdRng) {
    if stage.is_empty() {
        stage.extend(other);
        return;
    }
    let (at, to) = (
        random.random_range(0..stage.len()),
        random.random_range(0..stage.len()),
    );
    match random.random_range(0..12) {
        0 => stage.swap(at, to),
        1 => drop(stage.remove(at)),
        2 => stage.truncate(at),
        3 => {
            let times = *[1, 2, 30].choose(random).expect("a number");
            let again = vec![stage[at].clone(); times];
            drop(stage.splice(at..at, again));
        }
        4 => stage.splice(at..at, other).for_each(drop),
        5 => stage[at].bytes = long(&stage[at], random),
        6 if stage[at].is_frame => stage.insert(at, fields(random)),
        7..10 if stage[at].is_frame => frame_head(&mut stage[at].bytes, random),
        _ => text(&mut stage[at].bytes, random),
    }
}

/// Changes bytes at any position.
fn text(text: &mut Vec<u8>, random: &mut StdRng) {
    let at = random.random_range(0..=text.len());
    let to = random.random_range(at..=text.len());
    match random.random_range(0..5) {
        0 if at < text.len() => text[at] ^= 1 << random.random_range(0..8),
        1 if at < text.len() => text[at] = *TELLING.choose(random).expect("a byte"),
        2 => drop(text.drain(at..to)),
        3 => drop(text.splice(at..at, bytes(random, 40))),
        _ => text.truncate(at),
    }
}

/// Changes the head of a frame.
fn frame_head(frame: &mut [u8], random: &mut StdRng) {
    let Some(head) = frame.first_chunk_mut::<9>() else {
        return;
    };
    match random.random_range(0..4) {
        0 => {
            let length: u32 = *[0, 1, 8, 255, 16_384, 16_385, 65_536, 0xff_ffff]
                .choose(random)
                .expect("a length");
            head[..3].copy_from_slice(&length.to_be_bytes()[1..]);
        }
        1 => head[3] = random.random_range(0..=12),
        2 => head[4] ^= 1 << random.random_range(0..8),
        _ => {
            let stream: u32 = *[0, 1, 2, 3, 5, 4_001, 0x7fff_ffff, 0x8000_0001]
                .choose(random)
                .expect("a stream");
            head[5..].copy_from_slice(&stream.to_be_bytes());
        }
    }
}

/// The piece with a long run of one byte in it, far beyond any expected length.
fn long(piece: &Piece, random: &mut StdRng) -> Vec<u8> {
    let size = *[300, 5_000, 70_000, 600_000]
        .choose(random)
        .expect("a size");
    let at = random.random_range(0..=piece.bytes.len());
    let (before, after) = piece.bytes.split_at(at);
    let filling = vec![*TELLING.choose(random).expect("a byte"); size];
    [before, &filling, after].concat()
}

/// A valid frame with random header fields.
fn fields(random: &mut StdRng) -> Piece {
    const NAMES: &[&str] = &[
        ":method",
        ":path",
        ":status",
        ":authority",
        ":scheme",
        ":protocol",
        "host",
        "connection",
        "te",
        "transfer-encoding",
        "content-length",
        "expect",
        "x-intercept-address",
        "x-intercept",
        "x-intercept-lost",
        "X-Upper",
        "",
    ];
    const VALUES: &[&str] = &[
        "",
        "GET",
        "CONNECT",
        "/",
        "*",
        "200",
        "101",
        "0",
        "-1",
        "99999999999999999999",
        "chunked",
        "100-continue",
        "trailers",
        "held=1",
        "a\r\nb: c",
    ];
    let mut list = Vec::new();
    for _ in 0..random.random_range(0..8) {
        let mut part = |known: &[&str]| match random.random_ratio(1, 4) {
            true => bytes(random, 20),
            false => known.choose(random).expect("a text").as_bytes().to_owned(),
        };
        list.push((part(NAMES), part(VALUES)));
    }
    let stream = *[1, 3, 5, 7].choose(random).expect("a stream");
    Piece {
        bytes: headers(stream, &list, random.random_bool(0.5)),
        is_frame: true,
    }
}
