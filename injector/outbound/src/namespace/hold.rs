//! How SYNs wait for the outcome of their dial.

/// By what a SYN is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// The queue of nftables.
    Queue,
    /// The same queue by the target of iptables, for kernels without `nft_queue`.
    Target,
    /// Not at all: a connection opens before the cluster has answered, and breaks where it refuses.
    None,
}

impl Hold {
    /// All of them, the best first.
    pub const ALL: [Self; 3] = [Self::Queue, Self::Target, Self::None];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Target => "target",
            Self::None => "none",
        }
    }

    /// The inverse of [`Self::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hold| hold.as_str() == word)
    }
}
