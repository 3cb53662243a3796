//! `injector status`: intercepts in full.

use serde::Serialize;

use super::list::gather;
use crate::args::{Global, Status};
use crate::error::Result;
use crate::output::intercept::InterceptShown;
use crate::output::print::{self, Shown};

/// Prints all, or the one that is named.
pub async fn run(global: &Global, flags: &Status) -> Result<()> {
    let mut all = gather(global, flags.all_namespaces).await?;
    let Some(name) = &flags.name else {
        return print::print(global.output, &Blocks(all));
    };
    match all.iter().position(|shown| shown.name == *name) {
        Some(place) => print::print(global.output, &all.swap_remove(place)),
        None => Err(super::leave::unknown(
            name,
            all.iter().map(|shown| &shown.name),
            &global.context_flags_of(flags.all_namespaces),
        )),
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Blocks(Vec<InterceptShown>);

impl Shown for Blocks {
    fn text(&self) -> String {
        let blocks: Vec<String> = self.0.iter().map(Shown::text).collect();
        blocks.join("\n")
    }

    fn names(&self) -> Vec<&str> {
        self.0.iter().map(|shown| shown.name.as_str()).collect()
    }
}
