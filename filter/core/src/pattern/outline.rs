//! Properties of a pattern that need no compiling.
//!
//! The size of its program, and a text that every match contains.
//!
//! The size is that of `regex-lite` on a 64-bit machine. The crate's own limit counts other bytes in the filter (wasm32) than in the command, so they would
//! disagree. The size is exact except for character classes, whose ranges may overlap, and after an `i`, `s` or `R` flag: there it may be too high. A pattern that
//! `regex-lite` rejects has some size, too. `tests/size.rs` compares the size with the crate's.

use std::str::Chars;

/// Sizes of a `State`, a character range, a branch target, and a group name.
const STATE: usize = 32;
const RANGE: usize = 8;
const TARGET: usize = 4;
const GROUP: usize = 16;

/// A branch with two targets.
const SPLIT: usize = STATE + 2 * TARGET;

/// Properties of a pattern.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outline {
    /// The size of the program in bytes, with `^(?:` and `)$` around it.
    pub(super) size: usize,
    /// The number of capture groups, including the whole match.
    pub(super) groups: usize,
    /// Does every `)` close an open group?
    pub(super) is_balanced: bool,
    /// Does it use the flag `x`?
    pub(super) is_extended: bool,
    /// A text that every match contains.
    pub(super) needle: String,
}

impl Outline {
    pub(super) fn of(pattern: &str) -> Self {
        let mut walk = Walk {
            rest: pattern.chars(),
            open: Vec::new(),
            group: Group::default(),
            groups: 1,
            extra: GROUP,
            is_balanced: true,
            is_extended: false,
            folds_case: false,
            is_crlf: false,
            run: Some(String::new()),
            needle: String::new(),
        };
        while let Some(char) = walk.rest.next() {
            walk.step(char);
        }
        while !walk.open.is_empty() {
            walk.close();
        }
        let Atom { size, .. } = walk.group.finish();
        let needle = match walk.run {
            Some(run) if run.len() > walk.needle.len() => run,
            Some(_) => walk.needle,
            None => String::new(),
        };
        Self {
            // Start and end of the whole match, the match state, and two anchors.
            size: size.saturating_add(walk.extra).saturating_add(5 * STATE),
            groups: walk.groups,
            is_balanced: walk.is_balanced,
            is_extended: walk.is_extended,
            needle,
        }
    }
}

/// The program of a part of the pattern.
#[derive(Debug, Clone, Copy)]
struct Atom {
    size: usize,
    /// Does it match the empty text?
    is_empty: bool,
}

/// An open group.
#[derive(Debug, Default)]
struct Group {
    is_capture: bool,
    /// The size of everything except `last`.
    size: usize,
    /// The part that a repetition would apply to.
    last: Option<Atom>,
    /// Does the current branch need at least one character so far?
    needs_text: bool,
    branches: usize,
    has_empty_branch: bool,
}

impl Group {
    fn push(&mut self, atom: Atom) {
        if let Some(last) = self.last.replace(atom) {
            self.size = self.size.saturating_add(last.size);
            self.needs_text |= !last.is_empty;
        }
    }

    fn end_branch(&mut self) {
        match self.last.take() {
            Some(last) => {
                self.size = self.size.saturating_add(last.size);
                self.needs_text |= !last.is_empty;
            }
            // An empty branch is a state, too.
            None => self.size = self.size.saturating_add(STATE),
        }
        self.has_empty_branch |= !self.needs_text;
        self.needs_text = false;
        self.branches = self.branches.saturating_add(1);
    }

    fn finish(mut self) -> Atom {
        self.end_branch();
        let mut size = self.size;
        if self.branches > 1 {
            let targets = self.branches.saturating_mul(TARGET);
            size = size.saturating_add(2 * STATE).saturating_add(targets);
        }
        if self.is_capture {
            size = size.saturating_add(2 * STATE);
        }
        Atom {
            size,
            is_empty: self.has_empty_branch,
        }
    }
}

/// Cuts `end` off the end of a text.
fn before<'t>(text: &'t str, end: &str) -> &'t str {
    let length = text.len().saturating_sub(end.len());
    text.get(..length).unwrap_or_default()
}

struct Walk<'p> {
    rest: Chars<'p>,
    /// The groups around the current one.
    open: Vec<Group>,
    group: Group,
    groups: usize,
    /// Size that repetitions do not multiply.
    extra: usize,
    is_balanced: bool,
    is_extended: bool,
    /// Assumed to apply up to the end once set.
    folds_case: bool,
    is_crlf: bool,
    /// Consecutive characters outside of any group; `None` once a match need not contain them.
    run: Option<String>,
    needle: String,
}

impl Walk<'_> {
    fn step(&mut self, char: char) {
        match char {
            '\\' => self.escape(),
            '[' => self.class(),
            '(' => self.open(),
            ')' if self.open.is_empty() => self.is_balanced = false,
            ')' => self.close(),
            '|' => {
                if self.open.is_empty() {
                    self.run = None;
                }
                self.group.end_branch();
            }
            '*' => self.repeat(0, None),
            '+' => self.repeat(1, None),
            '?' => self.repeat(0, Some(1)),
            '{' => self.counted(),
            '.' if self.is_crlf => self.ranges(3),
            '.' => self.ranges(2),
            '^' | '$' => self.look(),
            char => self.literal(char),
        }
    }

    fn literal(&mut self, char: char) {
        if self.folds_case {
            return self.ranges(2);
        }
        if let Some(run) = self.run.as_mut().filter(|_| self.open.is_empty()) {
            run.push(char);
        }
        self.group.push(Atom {
            size: STATE,
            is_empty: false,
        });
    }

    fn ranges(&mut self, count: usize) {
        self.end_run();
        self.group.push(Atom {
            size: count.saturating_mul(RANGE).saturating_add(STATE),
            is_empty: false,
        });
    }

    fn look(&mut self) {
        self.end_run();
        self.group.push(Atom {
            size: STATE,
            is_empty: true,
        });
    }

    fn end_run(&mut self) {
        if let Some(run) = &mut self.run {
            let run = std::mem::take(run);
            if run.len() > self.needle.len() {
                self.needle = run;
            }
        }
    }

    fn escape(&mut self) {
        match self.rest.next() {
            Some('d') => self.ranges(1),
            Some('s' | 'D') => self.ranges(2),
            Some('S') => self.ranges(3),
            Some('w') => self.ranges(4),
            Some('W') => self.ranges(5),
            Some(kind @ ('x' | 'u' | 'U')) => {
                self.hexadecimal(kind);
                self.ranges(if self.folds_case { 2 } else { 0 });
            }
            Some('A' | 'z' | 'b' | 'B' | '<' | '>') => self.look(),
            Some(char) if char.is_ascii_punctuation() => self.literal(char),
            Some(_) => self.ranges(0),
            None => {}
        }
    }

    fn hexadecimal(&mut self, kind: char) {
        let digits = match kind {
            'x' => 2,
            'u' => 4,
            _ => 8,
        };
        if self.rest.as_str().starts_with('{') {
            self.skip_braces();
        } else {
            self.rest.by_ref().take(digits).for_each(drop);
        }
    }

    /// Skips a class. A `]` at its start stands for itself, and so does each `-` before all others.
    ///
    /// Another one may belong to `[:name:]`.
    fn class(&mut self) {
        let mut count = usize::from(self.take('^'));
        let mut is_first = true;
        while self.take('-') {
            count = count.saturating_add(1);
            is_first = false;
        }
        let fold: usize = if self.folds_case { 2 } else { 1 };
        // Was the previous item a single character, which may begin a range?
        let mut may_begin = false;
        loop {
            let ranges = match self.rest.next() {
                None => break,
                Some(']') if !is_first => break,
                Some('[') => {
                    self.class_name();
                    5
                }
                Some('-') if may_begin && !self.rest.as_str().starts_with([']', '-']) => {
                    if self.rest.next() == Some('\\') {
                        self.class_escape();
                    }
                    0
                }
                Some('\\') => self.class_escape(),
                Some(_) => 1,
            };
            is_first = false;
            may_begin = ranges == 1;
            count = count.saturating_add(fold.saturating_mul(ranges));
        }
        self.ranges(count);
    }

    /// The number of ranges for an escape in a class.
    fn class_escape(&mut self) -> usize {
        match self.rest.next() {
            Some('s' | 'D') => 2,
            Some('S') => 3,
            Some('w') => 4,
            Some('W') => 5,
            Some(kind @ ('x' | 'u' | 'U')) => {
                self.hexadecimal(kind);
                1
            }
            _ => 1,
        }
    }

    /// Skips the rest of `[:name:]`, and reads no further than the name.
    fn class_name(&mut self) {
        let is_name = |char: char| char == '^' || char.is_ascii_alphabetic();
        let rest = self.rest.as_str().strip_prefix(':');
        let after = rest.and_then(|rest| rest.trim_start_matches(is_name).strip_prefix(":]"));
        if let Some(after) = after {
            self.rest = after.chars();
        }
    }

    fn open(&mut self) {
        let mut is_capture = true;
        let text = self.rest.as_str();
        if let Some(name) = text.strip_prefix("?P<").or_else(|| text.strip_prefix("?<")) {
            let end = name.find('>').unwrap_or(name.len());
            self.extra = self.extra.saturating_add(end).saturating_add(TARGET);
            self.rest = name.get(end..).unwrap_or_default().chars();
            self.take('>');
        } else if self.take('?') {
            is_capture = false;
            let flags = self.rest.as_str();
            let is_flag = |char: char| char == '-' || char.is_ascii_alphabetic();
            let after = flags.trim_start_matches(is_flag);
            let flags = before(flags, after);
            self.is_extended |= flags.contains('x');
            self.folds_case |= flags.contains('i');
            self.is_crlf |= flags.contains('R');
            self.rest = after.chars();
            if self.take(')') {
                // A repetition after the flags applies to the part before them.
                return;
            }
            self.take(':');
        }
        if is_capture {
            self.groups = self.groups.saturating_add(1);
            self.extra = self.extra.saturating_add(GROUP);
        }
        self.end_run();
        let group = Group {
            is_capture,
            ..Group::default()
        };
        self.open.push(std::mem::replace(&mut self.group, group));
    }

    fn close(&mut self) {
        let Some(outer) = self.open.pop() else {
            return;
        };
        let atom = std::mem::replace(&mut self.group, outer).finish();
        self.group.push(atom);
    }

    fn skip_braces(&mut self) {
        self.rest
            .by_ref()
            .take_while(|char| *char != '}')
            .for_each(drop);
    }

    /// Reads `{m}`, `{m,}` or `{m,n}`; `\b{start}` is no repetition.
    fn counted(&mut self) {
        let text = self.rest.as_str();
        let is_count = |char: char| char == ',' || char.is_ascii_digit() || char.is_whitespace();
        let after = text.trim_start_matches(is_count);
        let counts = before(text, after);
        if counts.is_empty() {
            return self.skip_braces();
        }
        self.rest = after.chars();
        self.take('}');
        let number = |text: &str| text.trim().parse::<usize>().unwrap_or(usize::MAX);
        match counts.split_once(',') {
            Some((least, "")) => self.repeat(number(least), None),
            Some((least, most)) => self.repeat(number(least), Some(number(most))),
            None => self.repeat(number(counts), Some(number(counts))),
        }
    }

    fn repeat(&mut self, least: usize, most: Option<usize>) {
        self.take('?');
        // The last character of the run is optional.
        if let Some(run) = self.run.as_mut().filter(|_| self.open.is_empty()) {
            run.pop();
            self.end_run();
        }
        let Some(Atom { size, is_empty }) = self.group.last else {
            return;
        };
        let copies = |count: usize| match count {
            0 => STATE,
            count => size.saturating_mul(count),
        };
        let repeated = match (least, most) {
            (0, Some(1)) => size.saturating_add(SPLIT + STATE),
            (0, None) if is_empty => size.saturating_add(2 * SPLIT + STATE),
            (least, None) => copies(least.max(1)).saturating_add(SPLIT),
            (least, Some(most)) if most <= least => copies(least),
            (least, Some(most)) => size
                .saturating_add(SPLIT)
                .saturating_mul(most.saturating_sub(least))
                .saturating_add(copies(least))
                .saturating_add(STATE),
        };
        self.group.last = Some(Atom {
            size: repeated,
            is_empty: is_empty || least == 0,
        });
    }

    /// Skips the next character if it is this one.
    fn take(&mut self, char: char) -> bool {
        let is_next = self.rest.as_str().starts_with(char);
        if is_next {
            self.rest.next();
        }
        is_next
    }
}
