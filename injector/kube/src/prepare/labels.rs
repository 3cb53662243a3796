//! Labels, and what selects by them.

use std::collections::BTreeMap;

/// By their keys.
pub type Labels = BTreeMap<String, String>;

/// Are all labels of `selector` among `labels`?
pub fn contains(labels: &Labels, selector: &Labels) -> bool {
    selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}
