//! What becomes of a held SYN, in the words of the rules that see it next.

/// The mark with which a held SYN runs through the rules again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// The dial succeeded: capture it.
    Open,
    /// Answer with a reset.
    Refused,
    /// Answer with "host unreachable".
    Unreachable,
    /// Answer with "administratively prohibited".
    Denied,
}

impl Mark {
    /// As the kernel has it.
    pub fn number(self) -> u32 {
        match self {
            Self::Open => 1,
            Self::Refused => 2,
            Self::Unreachable => 3,
            Self::Denied => 4,
        }
    }
}

/// What becomes of a held SYN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It runs through the rules again.
    Repeat(Mark),
    /// It is lost, as on a line on which nothing answers; the program's kernel sends another.
    Drop,
}
