//! `injector forward`: ports of this machine that lead into the cluster, without an intercept.

use intercept_manifest::printable::one_line;

use crate::args::{ForwardCommand, Global};
use crate::backend;
use crate::error::{OrHint, Result};
use crate::local_user;
use crate::outbound::{Forwards, Line, Link, Registration};
use crate::session::Signals;

/// Forwards connections until a signal ends it.
pub async fn run(global: &Global, flags: &ForwardCommand) -> Result<()> {
    let mut signals = Signals::catch().or_hint("signals", "injector forward --help")?;
    let backend = backend::open(global).await?;
    let (relay, outbound) = backend.ways_in().await?;
    let forwards = Forwards::bind(&flags.forwards).await?;
    let lines = forwards.lines();
    let name = local_user::intercept_name("forward", &backend.owner().await?);
    let registration = Registration::open(&relay, &name).await?;
    let mut link = Link::open(&outbound, &registration.secret, &name, forwards).await?;
    let say = global.log();
    lines.iter().for_each(|line| say(&one_line(line)));
    loop {
        tokio::select! {
            _ = signals.next() => return Ok(()),
            line = link.next() => match line {
                Line::Note(text) => say(&format!("note: {}", one_line(&text))),
                Line::Warning(text) => say(&format!("warning: {}", one_line(&text))),
            },
        }
    }
}
