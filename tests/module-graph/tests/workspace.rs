//! No crate of the workspace has an import cycle.

use std::path::Path;

use module_graph::{Crate, cycles, targets};

/// The harness of the tests and the soak, which is not shipped and has four cycles.
const LEFT_OUT: &str = "e2e";

#[test]
fn workspace_has_no_import_cycle() {
    let targets = targets(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
    let (mut seen, mut found) = (0, Vec::new());
    for target in targets.iter().filter(|target| target.package != LEFT_OUT) {
        let read = Crate::read(&target.root).unwrap_or_else(|error| panic!("{error}"));
        seen += read.modules.len();
        let cycles = cycles(&read);
        found.extend(
            cycles
                .iter()
                .map(|cycle| format!("{}: {cycle}", target.package)),
        );
    }
    assert!(seen > 200, "only {seen} modules were read");
    assert!(
        found.is_empty(),
        "{} cycles\n{}",
        found.len(),
        found.join("\n")
    );
}
