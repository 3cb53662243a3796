//! Figures, printed; the bounds are generous, since the machine is shared.

use libtest_mimic::Trial;

use super::fixture::{Fixture, output, trial};
use super::server;

/// The tests of this file.
pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "speed::thousand_connections_at_once",
            thousand_connections_at_once,
        ),
        trial("speed::bulk_both_ways", bulk_both_ways),
        trial("speed::connect_and_echo", connect_and_echo),
        trial("speed::namespace_is_ready_soon", namespace_is_ready_soon),
    ]
}

/// What the client prints, in the namespace or outside it.
fn measure(fixture: &Fixture, is_inside: bool, kind: &str, address: &str, number: &str) -> f64 {
    let words = [fixture.program(), "client", kind, address, number];
    let command = match is_inside {
        true => fixture.inside(&words),
        false => {
            let mut command = fixture.command(words[0]);
            command.args(&words[1..]);
            command
        }
    };
    let output = output(command);
    let text = String::from_utf8_lossy(&output.stdout);
    let number = text.trim_end().parse();
    number.unwrap_or_else(|_| panic!("{kind} {address}: {output:?}"))
}

fn thousand_connections_at_once() {
    let (fixture, port) = (Fixture::new(), server::start());
    let address = format!("10.96.0.5:{port}");
    assert_eq!(measure(&fixture, true, "many", &address, "1000"), 1000.0);
}

fn bulk_both_ways() {
    let (fixture, port) = (Fixture::new(), server::start());
    let direct = format!("127.0.0.1:{port}");
    let cluster = format!("10.96.0.5:{port}");
    for kind in ["down", "up"] {
        // Neighbours in time share the machine's load; the best pair is the one that it disturbed least.
        let (mut cluster_ratio, mut host_ratio) = (0_f64, 0_f64);
        for _ in 0..4 {
            let plain = measure(&fixture, false, kind, &direct, "256");
            let through = measure(&fixture, true, kind, &cluster, "256");
            let spliced = measure(&fixture, true, kind, &direct, "256");
            println!(
                "{kind}: direct {plain:.0} MiB/s, cluster {through:.0}, host's loopback {spliced:.0}"
            );
            cluster_ratio = cluster_ratio.max(through / plain);
            host_ratio = host_ratio.max(spliced / plain);
        }
        println!("{kind}: cluster {cluster_ratio:.2} of direct, host's loopback {host_ratio:.2}");
        assert!(cluster_ratio >= 0.3, "{kind}: {cluster_ratio:.2}");
        assert!(host_ratio >= 0.3, "{kind}: {host_ratio:.2}");
    }
}

fn connect_and_echo() {
    let (fixture, port) = (Fixture::new(), server::start());
    let direct = format!("127.0.0.1:{port}");
    let cluster = format!("10.96.0.5:{port}");
    let (mut plain, mut through) = (f64::MAX, f64::MAX);
    for _ in 0..3 {
        plain = plain.min(measure(&fixture, false, "latency", &direct, "200"));
        through = through.min(measure(&fixture, true, "latency", &cluster, "200"));
    }
    println!("connect and echo: direct {plain} us, cluster {through} us");
    // A SYN that is lost costs a second.
    assert!(through - plain < 200_000.0, "{through} us over {plain} us");
}

fn namespace_is_ready_soon() {
    let fixture = Fixture::new();
    let mut took: Vec<u64> = (0..15)
        .map(|_| {
            let output = output(fixture.inside(&["true"]));
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            let word = text.split(' ').nth(2).and_then(|word| word.parse().ok());
            word.unwrap_or_else(|| panic!("{text}"))
        })
        .collect();
    took.sort_unstable();
    let [best, median] = [took[0], took[took.len() / 2]];
    println!("namespace ready: best {best} us, median {median} us");
    assert!(best < 1_000_000, "{took:?}");
}
