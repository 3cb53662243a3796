//! Resolves the paths in a module to modules.

use std::collections::BTreeSet;

use crate::source::{Crate, ModuleId};

/// One module's import of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The module that contains the path.
    pub from: ModuleId,
    /// The module that contains its target.
    pub to: ModuleId,
    /// The line in `from`'s file.
    pub line: usize,
    /// The path as written, with `::` between segments.
    ///
    /// For a nested `use`, the whole path of one name.
    pub path: String,
}

/// The target of a path.
#[derive(Clone, Copy)]
enum Place {
    Module(ModuleId),
    /// An item in this module.
    Inside(ModuleId),
}

/// All imports between the modules of a crate, in the order of the source.
pub fn imports(of: &Crate) -> Vec<Import> {
    let mut imports = Vec::new();
    for (from, module) in of.modules.iter().enumerate() {
        for mention in &module.mentions {
            let to = match of.resolve(from, &mention.path, &mut BTreeSet::new()) {
                Some(Place::Module(to) | Place::Inside(to)) if to != from => to,
                _ => continue,
            };
            let (line, path) = (mention.line, mention.path.join("::"));
            imports.push(Import {
                from,
                to,
                line,
                path,
            });
        }
    }
    imports
}

impl Crate {
    /// The target of a path; `None` for another crate's or a local item.
    ///
    /// `seen` holds the names in progress, for circular imports.
    fn resolve(
        &self,
        from: ModuleId,
        path: &[String],
        seen: &mut BTreeSet<(ModuleId, String)>,
    ) -> Option<Place> {
        let (first, rest) = path.split_first()?;
        let start = match first.as_str() {
            "crate" => Place::Module(0),
            "self" => Place::Module(from),
            "super" => Place::Module(self.modules[from].parent?),
            name => self.lookup(from, name, seen)?,
        };
        Some(rest.iter().fold(start, |place, name| {
            match place {
                // An associated item or a variant.
                Place::Inside(_) => place,
                Place::Module(module) if name == "super" => match self.modules[module].parent {
                    Some(parent) => Place::Module(parent),
                    None => place,
                },
                // A missing item was written by a macro.
                Place::Module(module) => self
                    .lookup(module, name, seen)
                    .unwrap_or(Place::Inside(module)),
            }
        }))
    }

    fn lookup(
        &self,
        module: ModuleId,
        name: &str,
        seen: &mut BTreeSet<(ModuleId, String)>,
    ) -> Option<Place> {
        let here = &self.modules[module];
        if let Some(child) = here.children.get(name) {
            return Some(Place::Module(*child));
        }
        if here.defined.contains(name) {
            return Some(Place::Inside(module));
        }
        if !seen.insert((module, name.to_owned())) {
            return None;
        }
        if let Some(path) = here.aliases.get(name) {
            return self.resolve(module, path, seen);
        }
        here.globs
            .iter()
            .find_map(|path| match self.resolve(module, path, seen)? {
                Place::Module(of) => self.lookup(of, name, seen),
                Place::Inside(_) => None,
            })
    }
}
