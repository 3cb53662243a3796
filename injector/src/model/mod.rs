//! An intercept as a command sees it, wherever it is kept: what was planned, and what a backend says of it.

mod answers;
mod backend;
mod plan;

pub use self::answers::{
    Found, Live, Named, NotRenewed, Placement, Replicas, Seen, SelectPort, TargetPort, settled,
};
pub use self::backend::{Backend, Check, Target};
pub use self::plan::Plan;
