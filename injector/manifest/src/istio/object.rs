//! A Kubernetes object with notes for reviewers. Knows the structure that all objects share, not their semantics.

use serde_json::Value;

use super::commented::{self, Note};

/// An object and its comments. The comments are for people: nothing of them reaches the API server.
#[derive(Debug, Clone)]
pub struct Object {
    value: Value,
    comment: String,
    notes: Vec<Note>,
}

impl Object {
    /// An object with the comment that stands above it.
    pub(super) fn new(comment: impl Into<String>, value: Value) -> Self {
        Self {
            value,
            comment: comment.into(),
            notes: Vec::new(),
        }
    }

    /// Says something above the field that `pointer` (RFC 6901) leads to.
    pub(super) fn note(mut self, pointer: impl Into<String>, text: impl Into<String>) -> Self {
        self.notes.push(Note {
            pointer: pointer.into(),
            text: text.into(),
        });
        self
    }

    /// Adds an item to the list that `pointer` leads to, and says something above it.
    pub(super) fn and(mut self, pointer: &str, item: Value, text: &str) -> Self {
        let list = self.value.pointer_mut(pointer);
        let list = list.and_then(Value::as_array_mut).expect("a list");
        list.push(item);
        let index = list.len() - 1;
        self.note(format!("{pointer}/{index}"), text)
    }

    /// The object as it is applied.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The first of this kind.
    pub fn of_kind<'o>(objects: &'o [Self], kind: &str) -> Option<&'o Self> {
        objects.iter().find(|object| object.kind() == kind)
    }

    /// `apiVersion`, for instance `apps/v1`.
    pub fn api_version(&self) -> &str {
        self.text("/apiVersion")
    }

    /// `kind`.
    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// `metadata.namespace`; `None` for what belongs to the whole cluster.
    pub fn namespace(&self) -> Option<&str> {
        self.value.pointer("/metadata/namespace")?.as_str()
    }

    /// One YAML document with all comments.
    pub fn yaml(&self) -> Result<String, serde_saphyr::ser::Error> {
        commented::document(&self.comment, &self.value, &self.notes)
    }

    #[cfg(test)]
    pub(super) fn notes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.notes
            .iter()
            .map(|note| (note.pointer.as_str(), note.text.as_str()))
    }

    fn text(&self, pointer: &str) -> &str {
        self.value
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
}
