//! The load: requests of every kind at a fixed rate, half of them matched.
//!
//! The rate does not depend on the responses.

use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::app::Do;
use harness::client::{Ask, Client};
use tokio::time::MissedTickBehavior;

use crate::contract::Kind;
use crate::requests::{Shot, Until, fire};
use crate::world::{Lane, Person, World};

/// With more running requests than this, the machine cannot keep up.
const MOST: usize = 4_000;

/// The name of requests that bypass Envoy, to measure the machine's own latency.
pub const CONTROL: &str = "past Envoy, to the app";

/// The next request by number. A fifth of all requests run for a while.
fn shot(number: usize) -> Shot {
    // The cycle has a prime length, so that every kind is used for every developer.
    let kind = match number % 23 {
        0..=10 => Kind::Get,
        11..=15 => Kind::Post,
        16..=18 => Kind::Call,
        19..=20 => Kind::Talk,
        21 => Kind::Events,
        _ => Kind::Socket,
    };
    let to = match (kind, number % 7) {
        (Kind::Get, 0) | (Kind::Post, 0 | 1) => Do::Sleep(300),
        (Kind::Get, 1) => Do::Bytes(64_000),
        (Kind::Post, _) => Do::Echo,
        (Kind::Events, _) => Do::Ticks(100),
        _ => Do::Tell,
    };
    Shot {
        length: 1 << (8 + number % 8),
        until: Until::Count(4),
        pause: Duration::from_millis(100),
        is_h2: number.is_multiple_of(5),
        ..Shot::new(kind, to)
    }
}

/// Sends `rate` requests a second until the soak stops, then waits for the last response.
pub async fn run(world: Arc<World>, lanes: Vec<Arc<Lane>>, rate: f64, control: Option<Client>) {
    let mut clock = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
    clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let people: Vec<(Arc<Lane>, Arc<Person>)> = lanes
        .iter()
        .flat_map(|lane| {
            let people = lane.people.iter();
            people.map(|person| (Arc::clone(lane), Arc::clone(person)))
        })
        .collect();
    // Each request holds a clone.
    let under_way = Arc::new(());
    for number in 0_usize.. {
        let due = clock.tick().await;
        if world.is_stopping() {
            break;
        }
        if number.is_multiple_of(20)
            && let Some(client) = &control
        {
            tokio::spawn(past_envoy(Arc::clone(&world), client.clone()));
        }
        let shot = shot(number / 2);
        let (lane, person) = match number % 2 {
            0 => (Arc::clone(&lanes[number / 2 % lanes.len()]), None),
            _ => {
                let able = people.iter().filter(|(_, person)| person.takes(shot.kind));
                let able: Vec<_> = able.collect();
                let (lane, person) = able[number / 2 % able.len()];
                (Arc::clone(lane), Some(Arc::clone(person)))
            }
        };
        if Arc::strong_count(&under_way) > MOST {
            world.deviates(
                "the load cannot be sent",
                &format!("{MOST} requests are under way"),
            );
            continue;
        }
        let (world, under_way) = (Arc::clone(&world), Arc::clone(&under_way));
        tokio::spawn(async move {
            send(&world, &lane, person.as_deref(), shot, due.into_std()).await;
            drop(under_way);
        });
    }
    while Arc::strong_count(&under_way) > 1 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn send(world: &World, lane: &Lane, person: Option<&Person>, shot: Shot, due: Instant) {
    let is_quick = shot.kind == Kind::Get && shot.to == Do::Tell;
    fire(world, lane, person, shot).await;
    if is_quick {
        let which = if person.is_some() {
            "matched"
        } else {
            "unmatched"
        };
        note(world, which, due);
    }
}

/// Records a latency since the due time, which includes waiting behind a stall.
fn note(world: &World, which: &'static str, due: Instant) {
    let took = due.elapsed().as_secs_f32() * 1_000.0;
    let at = world.began.elapsed();
    let mut tally = world.tally.lock().expect("no panic");
    tally.latencies.entry(which).or_default().push((at, took));
}

async fn past_envoy(world: Arc<World>, client: Client) {
    let began = Instant::now();
    if client.ask(Ask::get("/soak")).await.is_ok() {
        note(&world, CONTROL, began);
    }
}
