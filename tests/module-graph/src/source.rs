//! Parses the modules of a crate: what each defines, imports and names. Resolves no paths.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use proc_macro2::{TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Ident, Item, ItemMod, ItemUse, UseTree};

/// The index of a module in [`Crate::modules`].
pub type ModuleId = usize;

/// A crate's modules; the first one is the root.
#[derive(Debug)]
pub struct Crate {
    /// Parents before their children.
    pub modules: Vec<Module>,
}

/// A module, in its own file or inline.
#[derive(Debug)]
pub struct Module {
    /// The path from the crate's root: `crate::session::plan`.
    pub path: String,
    /// The file that contains it.
    pub file: PathBuf,
    /// `None` for the root.
    pub parent: Option<ModuleId>,
    /// Its child modules, by name.
    pub children: BTreeMap<String, ModuleId>,
    pub(crate) defined: BTreeSet<String>,
    /// Imports by local name, with their paths.
    pub(crate) aliases: BTreeMap<String, Vec<String>>,
    pub(crate) globs: Vec<Vec<String>>,
    pub(crate) mentions: Vec<Mention>,
}

/// A path of at least two segments, as written.
#[derive(Debug)]
pub(crate) struct Mention {
    pub(crate) line: usize,
    pub(crate) path: Vec<String>,
}

/// Why a crate's source cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// A file is not valid Rust.
    #[error("{}:{}: {error}", path.display(), error.span().start().line)]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        error: syn::Error,
    },
    /// The file of `mod x;` does not exist.
    #[error("{}: module {name}: no such file", path.display())]
    NoFile {
        /// The file that declares it.
        path: PathBuf,
        /// Its name.
        name: String,
    },
}

impl Crate {
    /// Reads the crate with this root file.
    pub fn read(root: &Path) -> Result<Self, SourceError> {
        let mut read = Self {
            modules: Vec::new(),
        };
        let dir = root.parent().unwrap_or(Path::new("."));
        read.add_file("crate".to_owned(), None, root, dir)?;
        Ok(read)
    }

    /// Adds a module from a file. `dir` is the directory of its children's files.
    fn add_file(
        &mut self,
        path: String,
        parent: Option<ModuleId>,
        file: &Path,
        dir: &Path,
    ) -> Result<ModuleId, SourceError> {
        let text = fs::read_to_string(file).map_err(|error| SourceError::Io {
            path: file.to_owned(),
            error,
        })?;
        let parsed = syn::parse_file(&text).map_err(|error| SourceError::Syntax {
            path: file.to_owned(),
            error,
        })?;
        self.add(path, parent, &parsed.items, file, dir)
    }

    fn add(
        &mut self,
        path: String,
        parent: Option<ModuleId>,
        items: &[Item],
        file: &Path,
        dir: &Path,
    ) -> Result<ModuleId, SourceError> {
        let mut scan = Scan::default();
        items.iter().for_each(|item| scan.visit_item(item));
        let id = self.modules.len();
        self.modules.push(Module {
            path: path.clone(),
            file: file.to_owned(),
            parent,
            children: BTreeMap::new(),
            defined: items.iter().filter_map(defined).collect(),
            aliases: scan.aliases,
            globs: scan.globs,
            mentions: scan.mentions,
        });
        for item in items {
            let Item::Mod(module) = item else { continue };
            if is_test(&module.attrs) {
                continue;
            }
            let name = module.ident.unraw().to_string();
            let (child, below) = (format!("{path}::{name}"), dir.join(&name));
            let child = match &module.content {
                Some((_, items)) => self.add(child, Some(id), items, file, &below)?,
                None => self.add_file(child, Some(id), &file_of(&name, dir, file)?, &below)?,
            };
            self.modules[id].children.insert(name, child);
        }
        Ok(id)
    }
}

/// Finds the file of `mod name;` (<https://doc.rust-lang.org/reference/items/modules.html>).
fn file_of(name: &str, dir: &Path, declared_in: &Path) -> Result<PathBuf, SourceError> {
    [
        dir.join(format!("{name}.rs")),
        dir.join(name).join("mod.rs"),
    ]
    .into_iter()
    .find(|file| file.is_file())
    .ok_or_else(|| SourceError::NoFile {
        path: declared_in.to_owned(),
        name: name.to_owned(),
    })
}

/// The name that an item defines in its module.
fn defined(item: &Item) -> Option<String> {
    let name: &Ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::TraitAlias(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(name.unraw().to_string())
}

/// Is it `#[cfg(test)]`, alone or inside `all(…)`?
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let mut found = false;
        if attribute.path().is_ident("cfg") {
            let _ = attribute.parse_nested_meta(|meta| {
                found |= meta.path.is_ident("test");
                if meta.path.is_ident("all") {
                    meta.parse_nested_meta(|inner| {
                        found |= inner.path.is_ident("test");
                        Ok(())
                    })?;
                }
                Ok(())
            });
        }
        found
    })
}

#[derive(Default)]
struct Scan {
    aliases: BTreeMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
    mentions: Vec<Mention>,
}

impl Scan {
    fn mention(&mut self, line: usize, path: Vec<String>) {
        if path.len() > 1 {
            self.mentions.push(Mention { line, path });
        }
    }

    fn tree(&mut self, tree: &UseTree, mut path: Vec<String>) {
        let line = tree.span().start().line;
        match tree {
            UseTree::Path(part) => {
                path.push(part.ident.unraw().to_string());
                self.tree(&part.tree, path);
            }
            UseTree::Group(group) => group
                .items
                .iter()
                .for_each(|tree| self.tree(tree, path.clone())),
            UseTree::Glob(_) => {
                self.globs.push(path.clone());
                self.mentions.push(Mention { line, path });
            }
            UseTree::Name(name) => self.name(line, path, &name.ident, &name.ident),
            UseTree::Rename(name) => self.name(line, path, &name.ident, &name.rename),
        }
    }

    /// Records an imported name. `{self}` stands for the path before it.
    fn name(&mut self, line: usize, mut path: Vec<String>, ident: &Ident, alias: &Ident) {
        if ident != "self" || path.is_empty() {
            path.push(ident.unraw().to_string());
        }
        let alias = match alias == "self" {
            true => path.last().cloned().unwrap_or_default(),
            false => alias.unraw().to_string(),
        };
        self.aliases.insert(alias, path.clone());
        self.mentions.push(Mention { line, path });
    }

    /// Records paths in the arguments of a macro, which are not parsed.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut line = 0;
        let mut colons = 0;
        for token in tokens {
            match &token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => {
                    colons += 1;
                    continue;
                }
                TokenTree::Ident(ident) if colons == 2 && !path.is_empty() => {
                    path.push(ident.unraw().to_string())
                }
                _ => {
                    self.mention(line, std::mem::take(&mut path));
                    if let TokenTree::Ident(ident) = &token {
                        line = ident.span().start().line;
                        // `::name` names another crate.
                        if colons != 2 {
                            path.push(ident.unraw().to_string());
                        }
                    }
                }
            }
            colons = 0;
            if let TokenTree::Group(group) = token {
                self.tokens(group.stream());
            }
        }
        self.mention(line, path);
    }
}

impl<'ast> Visit<'ast> for Scan {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_test(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    /// Skips nested modules, which [`Crate::add`] reads.
    fn visit_item_mod(&mut self, _: &'ast ItemMod) {}

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if item.leading_colon.is_none() {
            self.tree(&item.tree, Vec::new());
        }
    }

    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            let line = path.span().start().line;
            self.mention(
                line,
                path.segments
                    .iter()
                    .map(|part| part.ident.unraw().to_string())
                    .collect(),
            );
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone());
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
