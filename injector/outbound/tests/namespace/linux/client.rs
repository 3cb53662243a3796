//! A client to measure with, run in the namespace and outside it.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

const BUFFER: usize = 64 * 1024;

/// `client KIND ADDRESS NUMBER`: prints one number.
pub fn run(arguments: &[OsString]) -> ExitCode {
    let word = |at: usize| arguments[at].to_str().expect("a word");
    let address: SocketAddr = word(1).parse().expect("an address");
    let number: u64 = word(2).parse().expect("a number");
    match word(0) {
        "down" => println!("{:.1}", download(address, number)),
        "up" => println!("{:.1}", upload(address, number)),
        "latency" => println!("{}", latency(address, number)),
        "many" => println!("{}", many(address, number)),
        other => panic!("no such kind: {other}"),
    }
    ExitCode::SUCCESS
}

/// MiB a second of so many MiB.
fn download(address: SocketAddr, mib: u64) -> f64 {
    let began = Instant::now();
    let mut stream = TcpStream::connect(address).expect("a connection");
    let length = mib << 20;
    stream.write_all(b"d").expect("a request");
    stream.write_all(&length.to_be_bytes()).expect("a length");
    let mut buffer = vec![0; BUFFER];
    let mut got = 0;
    loop {
        match stream.read(&mut buffer).expect("bytes") {
            0 => break,
            piece => got += piece as u64,
        }
    }
    assert_eq!(got, length);
    mib as f64 / began.elapsed().as_secs_f64()
}

fn upload(address: SocketAddr, mib: u64) -> f64 {
    let began = Instant::now();
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.write_all(b"u").expect("a request");
    let buffer = vec![0; BUFFER];
    for _ in 0..(mib << 20) / BUFFER as u64 {
        stream.write_all(&buffer).expect("room");
    }
    stream.shutdown(Shutdown::Write).expect("an end");
    let mut got = [0; 8];
    stream.read_exact(&mut got).expect("a count");
    assert_eq!(u64::from_be_bytes(got), mib << 20);
    mib as f64 / began.elapsed().as_secs_f64()
}

/// The median of connect and echo, in microseconds.
fn latency(address: SocketAddr, rounds: u64) -> u128 {
    let mut took: Vec<_> = (0..rounds)
        .map(|_| {
            let began = Instant::now();
            echo(address);
            began.elapsed().as_micros()
        })
        .collect();
    took.sort_unstable();
    took[took.len() / 2]
}

/// How many connections, all open at once, have each carried a byte there and back.
fn many(address: SocketAddr, number: u64) -> usize {
    let threads: Vec<_> = (0..number)
        .map(|_| thread::spawn(move || echo(address)))
        .collect();
    let streams = threads.into_iter().map(thread::JoinHandle::join);
    streams.filter(Result::is_ok).count()
}

fn echo(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.write_all(b"ex").expect("a request");
    let mut answer = [0];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"x");
    stream
}
