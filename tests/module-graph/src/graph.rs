//! Finds cycles among a module and its children.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::path::PathBuf;

use crate::imports::{Import, imports};
use crate::source::{Crate, ModuleId};

/// A cycle of modules.
#[derive(Debug)]
pub struct Cycle {
    /// All modules of the cycle, as paths from the crate's root.
    ///
    /// A directory includes everything below it.
    pub modules: Vec<String>,
    /// A shortest way round; the last step closes it.
    pub steps: Vec<Step>,
}

/// One import of a cycle.
#[derive(Debug)]
pub struct Step {
    /// The file that imports.
    pub file: PathBuf,
    /// The line in that file.
    pub line: usize,
    /// The imported path.
    pub path: String,
    /// The module that contains it.
    pub to: String,
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "import cycle: {}", self.modules.join(", "))?;
        self.steps.iter().try_for_each(|step| {
            let Step {
                file,
                line,
                path,
                to,
            } = step;
            write!(f, "\n  {}:{line}: {path}, of {to}", file.display())
        })
    }
}

/// The cycles of a crate; none if it is in order.
pub fn cycles(of: &Crate) -> Vec<Cycle> {
    let imports = imports(of);
    (0..of.modules.len())
        .flat_map(|parent| cycles_below(of, parent, &imports))
        .collect()
}

type Edges<'i> = BTreeMap<ModuleId, BTreeMap<ModuleId, &'i Import>>;

fn cycles_below(of: &Crate, parent: ModuleId, imports: &[Import]) -> Vec<Cycle> {
    let mut edges = Edges::new();
    for import in imports {
        let (Some(from), Some(to)) = (of.node(parent, import.from), of.node(parent, import.to))
        else {
            continue;
        };
        if from != to {
            edges.entry(from).or_default().entry(to).or_insert(import);
        }
    }
    let mut done = BTreeSet::new();
    let mut cycles = Vec::new();
    for &node in edges.keys() {
        if done.contains(&node) {
            continue;
        }
        let Some(way) = way_round(&edges, node) else {
            continue;
        };
        let circle: BTreeSet<ModuleId> = reached(&edges, node)
            .into_iter()
            .filter(|&other| reached(&edges, other).contains(&node))
            .collect();
        cycles.push(Cycle {
            modules: circle
                .iter()
                .map(|&module| of.modules[module].path.clone())
                .collect(),
            steps: way.into_iter().map(|import| of.step(import)).collect(),
        });
        done.extend(circle);
    }
    cycles
}

impl Crate {
    /// The node of a module in the graph of `parent`.
    ///
    /// `parent` itself, or its child that contains the module.
    fn node(&self, parent: ModuleId, mut module: ModuleId) -> Option<ModuleId> {
        while module != parent && self.modules[module].parent != Some(parent) {
            module = self.modules[module].parent?;
        }
        Some(module)
    }

    fn step(&self, import: &Import) -> Step {
        Step {
            file: self.modules[import.from].file.clone(),
            line: import.line,
            path: import.path.clone(),
            to: self.modules[import.to].path.clone(),
        }
    }
}

/// All nodes that are reachable from this one. Contains the node itself only if it is in a cycle.
fn reached(edges: &Edges<'_>, from: ModuleId) -> BTreeSet<ModuleId> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(node) = open.pop() {
        open.extend(
            edges
                .get(&node)
                .into_iter()
                .flat_map(BTreeMap::keys)
                .filter(|&&to| reached.insert(to)),
        );
    }
    reached
}

/// A shortest way from a node back to itself.
fn way_round<'i>(edges: &Edges<'i>, start: ModuleId) -> Option<Vec<&'i Import>> {
    let mut ways: BTreeMap<ModuleId, Vec<&Import>> = BTreeMap::new();
    let mut open = VecDeque::from([(start, Vec::new())]);
    while let Some((node, way)) = open.pop_front() {
        for (&to, &import) in edges.get(&node).into_iter().flatten() {
            if ways.contains_key(&to) {
                continue;
            }
            let mut longer = way.clone();
            longer.push(import);
            if to == start {
                return Some(longer);
            }
            ways.insert(to, longer.clone());
            open.push_back((to, longer));
        }
    }
    None
}
