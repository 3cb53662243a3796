//! A pattern as an automaton over bytes, and the shortest word that several automata accept.
//! Knows only words and letters, no headers, paths or intercepts.

use std::cell::RefCell;
use std::collections::HashSet;

use intercept_core::pattern::TEXT_LIMIT;
use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson::{self, WhichCaptures};
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};
use regex_syntax::hir::Hir;

/// How many states one search may visit before it gives up.
///
/// Typical patterns need a few hundred at most.
pub(super) const STATES_PER_SEARCH: usize = 20_000;

/// Memory limit for the lazily built states of one automaton, in bytes.
const CACHE_CAPACITY: usize = 16 << 20;

/// Represents every character above U+007F.
///
/// A pattern that `parse_ascii` accepts cannot tell them apart.
pub(super) const BEYOND_ASCII: u8 = 0x80;

/// One compiled pattern, evaluated letter by letter.
pub(super) struct Automaton {
    dfa: DFA,
    cache: RefCell<Cache>,
}

/// The words that a search considers.
pub(super) struct Space<'a> {
    /// The prefix of every word.
    pub(super) from: &'a [u8],
    /// The letters after the prefix, in order of preference.
    pub(super) letters: &'a [u8],
    /// May a word begin and end with a blank?
    pub(super) outer_blanks: bool,
}

/// The result of a search for a word that several patterns match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Common {
    /// A word that all of them match.
    Word(String),
    /// There is no such word.
    Nothing,
    /// Undecided, or the word cannot be written down: the patterns may overlap.
    Unknown,
}

/// How many states all searches of one check may still visit.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) left: usize,
    pub(super) visited: usize,
}

impl Work {
    pub(super) fn new(left: usize) -> Self {
        Self { left, visited: 0 }
    }
}

/// The limit that a search reached.
enum GaveUp {
    /// The number of states: a retry would end the same.
    Bounds,
    /// The memory of an automaton's cache.
    Memory,
}

impl Automaton {
    /// Compiles `pattern`, which must be anchored at both ends. `None` if that exceeds the limits.
    pub(super) fn new(pattern: &Hir) -> Option<Self> {
        let nfa = thompson::Compiler::new()
            .configure(
                thompson::Config::new()
                    .utf8(false)
                    .which_captures(WhichCaptures::None)
                    .nfa_size_limit(Some(1 << 20)),
            )
            .build_from_hir(pattern)
            .ok()?;
        let dfa = DFA::builder()
            .configure(
                DFA::config()
                    .match_kind(MatchKind::All)
                    .cache_capacity(CACHE_CAPACITY)
                    .skip_cache_capacity_check(true)
                    // Never clear the cache: that would invalidate the states that a search holds.
                    .minimum_cache_clear_count(Some(0)),
            )
            .build_from_nfa(nfa)
            .ok()?;
        let cache = RefCell::new(dfa.create_cache());
        Some(Self { dfa, cache })
    }

    fn start(&self) -> Result<LazyStateID, GaveUp> {
        let config = start::Config::new().anchored(Anchored::Yes);
        self.dfa
            .start_state(&mut self.cache.borrow_mut(), &config)
            .map_err(|_| GaveUp::Memory)
    }

    fn step(&self, state: LazyStateID, letter: u8) -> Result<LazyStateID, GaveUp> {
        let next = self
            .dfa
            .next_state(&mut self.cache.borrow_mut(), state, letter)
            .map_err(|_| GaveUp::Memory)?;
        if next.is_quit() {
            Err(GaveUp::Memory)
        } else {
            Ok(next)
        }
    }

    fn accepts(&self, state: LazyStateID) -> Result<bool, GaveUp> {
        self.dfa
            .next_eoi_state(&mut self.cache.borrow_mut(), state)
            .map(|end| end.is_match())
            .map_err(|_| GaveUp::Memory)
    }

    fn reset(&self) {
        self.cache.borrow_mut().reset(&self.dfa);
    }
}

/// The shortest word of the space that every automaton accepts, preferring earlier letters.
///
/// The empty word only if there is no other: an empty value is a poor example.
pub(super) fn common_word(automata: &[&Automaton], space: &Space, work: &mut Work) -> Common {
    let mut search = Search::new(automata, space);
    let found = search.run(work).or_else(|why| match why {
        GaveUp::Bounds => Err(why),
        // Earlier searches may have filled the cache of a shared automaton.
        GaveUp::Memory => {
            automata.iter().for_each(|automaton| automaton.reset());
            search = Search::new(automata, space);
            search.run(work)
        }
    });
    match found {
        Ok(Some(word)) if word.len() > TEXT_LIMIT => Common::Nothing,
        Ok(Some(word)) => String::from_utf8(word).map_or(Common::Unknown, Common::Word),
        Ok(None) => Common::Nothing,
        Err(GaveUp::Bounds | GaveUp::Memory) => Common::Unknown,
    }
}

/// A breadth-first search through the product automaton.
struct Search<'a> {
    automata: &'a [&'a Automaton],
    space: &'a Space<'a>,
    letters: Vec<u8>,
    nodes: Vec<Node>,
    seen: HashSet<Box<[LazyStateID]>>,
}

/// A state of the product automaton, and how the search reached it.
struct Node {
    states: Box<[LazyStateID]>,
    parent: usize,
    letter: u8,
}

impl<'a> Search<'a> {
    fn new(automata: &'a [&'a Automaton], space: &'a Space<'a>) -> Self {
        Self {
            automata,
            space,
            letters: distinct_letters(automata, space.letters),
            nodes: Vec::new(),
            seen: HashSet::new(),
        }
    }

    fn run(&mut self, work: &mut Work) -> Result<Option<Vec<u8>>, GaveUp> {
        let Some(start) = self.start()? else {
            return Ok(None);
        };
        let is_start_accepted = self.accepts(&start)?;
        if is_start_accepted && !self.space.from.is_empty() {
            return Ok(Some(self.space.from.to_vec()));
        }
        let empty = is_start_accepted.then(Vec::new);
        // Not marked as seen: a longer word may return to it, and be accepted where the empty word is not wanted.
        self.nodes.push(Node {
            states: start,
            parent: 0,
            letter: 0,
        });
        let mut at = 0;
        while at < self.nodes.len() {
            if at == STATES_PER_SEARCH || work.left == 0 {
                return empty.map(Some).ok_or(GaveUp::Bounds);
            }
            work.left -= 1;
            work.visited += 1;
            if let Some(word) = self.expand(at)? {
                return Ok(Some(word));
            }
            at += 1;
        }
        Ok(empty)
    }

    fn start(&self) -> Result<Option<Box<[LazyStateID]>>, GaveUp> {
        let mut states = self
            .automata
            .iter()
            .map(|automaton| automaton.start())
            .collect::<Result<Box<[_]>, _>>()?;
        for letter in self.space.from {
            match self.step(&states, *letter)? {
                Some(next) => states = next,
                None => return Ok(None),
            }
        }
        Ok(Some(states))
    }

    /// Extends a node by one letter. Returns the whole word once it is accepted.
    fn expand(&mut self, at: usize) -> Result<Option<Vec<u8>>, GaveUp> {
        let is_first = at == 0 && self.space.from.is_empty();
        for index in 0..self.letters.len() {
            let letter = self.letters[index];
            let is_outer_blank = !self.space.outer_blanks && matches!(letter, b' ' | b'\t');
            if is_first && is_outer_blank {
                continue;
            }
            let Some(states) = self.step(&self.nodes[at].states, letter)? else {
                continue;
            };
            if !is_outer_blank && self.accepts(&states)? {
                return Ok(Some(self.word(at, letter)));
            }
            if self.seen.insert(states.clone()) {
                self.nodes.push(Node {
                    states,
                    parent: at,
                    letter,
                });
            }
        }
        Ok(None)
    }

    /// The next states; `None` for a dead end.
    fn step(
        &self,
        states: &[LazyStateID],
        letter: u8,
    ) -> Result<Option<Box<[LazyStateID]>>, GaveUp> {
        let mut next = Vec::with_capacity(states.len());
        for (automaton, state) in self.automata.iter().zip(states) {
            let state = automaton.step(*state, letter)?;
            if state.is_dead() {
                return Ok(None);
            }
            next.push(state);
        }
        Ok(Some(next.into_boxed_slice()))
    }

    fn accepts(&self, states: &[LazyStateID]) -> Result<bool, GaveUp> {
        for (automaton, state) in self.automata.iter().zip(states) {
            if !automaton.accepts(*state)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn word(&self, mut at: usize, last: u8) -> Vec<u8> {
        let mut word = vec![last];
        while at != 0 {
            word.push(self.nodes[at].letter);
            at = self.nodes[at].parent;
        }
        word.extend(self.space.from.iter().rev());
        word.reverse();
        word
    }
}

/// One letter, the first, of each group that no automaton tells apart.
fn distinct_letters(automata: &[&Automaton], letters: &[u8]) -> Vec<u8> {
    if automata.len() > size_of::<u64>() {
        return letters.to_vec();
    }
    let classes = |letter: u8| {
        automata.iter().fold(0, |classes: u64, automaton| {
            classes << 8 | u64::from(automaton.dfa.byte_classes().get(letter))
        })
    };
    // A few dozen at most, so a linear search is cheaper than hashing.
    let mut known = Vec::new();
    let is_new = |letter: &u8| {
        let classes = classes(*letter);
        let is_new = !known.contains(&classes);
        if is_new {
            known.push(classes);
        }
        is_new
    };
    letters.iter().copied().filter(is_new).collect()
}
