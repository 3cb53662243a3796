//! Answers of the cluster's resolver, for as long as they may be kept.
//!
//! A name outside the cluster costs six questions to it first, by the search list, and each of them a round trip.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::message::{age, lifetime};

/// How long it is believed that there is no such name.
const EMPTY_LIFETIME: Duration = Duration::from_secs(5);

/// Beyond this the expired are forgotten, and then all: a program that asks for so many names gains nothing from a cache.
const MAX_ANSWERS: usize = 4096;

/// Where the identifier of a message ends, which is another in every query.
const ID: usize = 2;

#[derive(Debug)]
struct Answer {
    message: Vec<u8>,
    stored: Instant,
    expires: Instant,
}

/// Answers by their queries.
#[derive(Debug, Default)]
pub struct Cache(Mutex<HashMap<Vec<u8>, Answer>>);

impl Cache {
    /// The answer to the same query, with what is left of its lifetime.
    pub fn get(&self, query: &[u8]) -> Option<Vec<u8>> {
        let now = Instant::now();
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = answers.get(query.get(ID..)?)?;
        if answer.expires <= now {
            return None;
        }
        let mut message = answer.message.clone();
        message.get_mut(..ID)?.copy_from_slice(query.get(..ID)?);
        let seconds = now.duration_since(answer.stored).as_secs();
        age(&mut message, u32::try_from(seconds).unwrap_or(u32::MAX));
        Some(message)
    }

    /// Keeps an answer, unless it is a failure.
    pub fn put(&self, query: &[u8], message: &[u8]) {
        let kept_for = match lifetime(message) {
            Some(Ok(seconds)) => Duration::from_secs(seconds.into()),
            Some(Err(_)) => EMPTY_LIFETIME,
            None => return,
        };
        let Some(key) = query.get(ID..) else { return };
        let stored = Instant::now();
        let answer = Answer {
            message: message.to_vec(),
            stored,
            expires: stored + kept_for,
        };
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= MAX_ANSWERS {
            answers.retain(|_, answer| answer.expires > stored);
        }
        if answers.len() >= MAX_ANSWERS {
            answers.clear();
        }
        answers.insert(key.to_vec(), answer);
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{Code, failure};
    use super::*;

    const QUERY: &[u8] = b"\x00\x01\x01\x00\x00\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";

    fn answer(ttl: u32) -> Vec<u8> {
        let mut answer = QUERY.to_vec();
        answer[7] = 1;
        answer.extend(b"\xc0\x0c\0\x01\0\x01");
        answer.extend(ttl.to_be_bytes());
        answer.extend(b"\0\x04\x0a\x60\0\x05");
        answer
    }

    #[tokio::test(start_paused = true)]
    async fn answers_live_by_their_ttl() {
        let cache = Cache::default();
        cache.put(QUERY, &answer(30));
        tokio::time::advance(Duration::from_secs(10)).await;
        let mut other = QUERY.to_vec();
        other[1] = 9;
        let mut expected = answer(20);
        expected[1] = 9;
        assert_eq!(cache.get(&other), Some(expected));
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(cache.get(QUERY), None);
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_names_live_five_seconds() {
        let cache = Cache::default();
        cache.put(QUERY, &failure(QUERY, Code::UnknownName).unwrap());
        tokio::time::advance(Duration::from_millis(4_900)).await;
        assert!(cache.get(QUERY).is_some());
        tokio::time::advance(Duration::from_millis(200)).await;
        assert_eq!(cache.get(QUERY), None);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_not_kept() {
        let cache = Cache::default();
        cache.put(QUERY, &failure(QUERY, Code::ServerFailure).unwrap());
        assert_eq!(cache.get(QUERY), None);
    }

    #[tokio::test(start_paused = true)]
    async fn size_is_bounded() {
        let cache = Cache::default();
        for number in 0..=MAX_ANSWERS as u32 {
            let mut query = QUERY.to_vec();
            query.extend(number.to_be_bytes());
            cache.put(&query, &answer(30));
        }
        assert!(cache.0.lock().unwrap().len() <= MAX_ANSWERS);
    }
}
