//! YAML with comments above fields, which no serializer writes: the outline is laid out here, every key and every scalar is left to the serializer.

use serde_json::{Map, Value};

/// Comments are wrapped at this column.
const WIDTH: usize = 140;

/// A comment above one field.
#[derive(Debug, Clone)]
pub(super) struct Note {
    /// A JSON pointer (RFC 6901) into the object.
    pub(super) pointer: String,
    /// No `#`; wrapped when it is printed.
    pub(super) text: String,
}

/// One document: the comment, then the object with its notes.
pub(super) fn document(
    comment: &str,
    value: &Value,
    notes: &[Note],
) -> Result<String, serde_saphyr::ser::Error> {
    let mut printer = Printer {
        notes,
        text: String::new(),
    };
    printer.comment(0, comment);
    match value {
        Value::Object(map) if !map.is_empty() => printer.map(map, "", 0, false)?,
        other => printer.text.push_str(&serde_saphyr::to_string(other)?),
    }
    Ok(printer.text)
}

struct Printer<'a> {
    notes: &'a [Note],
    text: String,
}

impl Printer<'_> {
    /// `in_item`: the first key continues the line that a list's dash began.
    fn map(
        &mut self,
        map: &Map<String, Value>,
        at: &str,
        indent: usize,
        in_item: bool,
    ) -> Result<(), serde_saphyr::ser::Error> {
        for (index, (key, value)) in map.iter().enumerate() {
            let pointer = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
            if !(in_item && index == 0) {
                self.notes_at(&pointer, indent);
                self.text.push_str(&" ".repeat(indent));
            }
            let line = pair(key, value)?;
            match value {
                Value::Object(inner) if !inner.is_empty() => {
                    self.text.push_str(&line);
                    self.map(inner, &pointer, indent + 2, false)?;
                }
                Value::Array(items) if !items.is_empty() => {
                    self.text.push_str(&line);
                    self.list(items, &pointer, indent)?;
                }
                _ => self.push_indented(&line, indent),
            }
        }
        Ok(())
    }

    fn list(
        &mut self,
        items: &[Value],
        at: &str,
        indent: usize,
    ) -> Result<(), serde_saphyr::ser::Error> {
        for (index, item) in items.iter().enumerate() {
            let pointer = format!("{at}/{index}");
            self.notes_at(&pointer, indent);
            // A note on the first key of an item would stand between the dash and the key.
            if let Some(first) = item.as_object().and_then(|map| map.keys().next()) {
                self.notes_at(&format!("{pointer}/{first}"), indent);
            }
            self.text.push_str(&" ".repeat(indent));
            self.text.push_str("- ");
            match item {
                Value::Object(inner) if !inner.is_empty() => {
                    self.map(inner, &pointer, indent + 2, true)?;
                }
                other => self.push_indented(&scalar(other)?, indent + 2),
            }
        }
        Ok(())
    }

    fn notes_at(&mut self, pointer: &str, indent: usize) {
        let notes = self.notes;
        for note in notes.iter().filter(|note| note.pointer == pointer) {
            self.comment(indent, &note.text);
        }
    }

    fn comment(&mut self, indent: usize, text: &str) {
        for line in text.lines().flat_map(|line| wrapped(line, WIDTH - indent)) {
            self.text
                .push_str(format!("{}# {line}", " ".repeat(indent)).trim_end());
            self.text.push('\n');
        }
    }

    /// The first line stands where the text is; the lines of a block scalar are moved.
    fn push_indented(&mut self, text: &str, indent: usize) {
        for (index, line) in text.lines().enumerate() {
            if index > 0 && !line.is_empty() {
                self.text.push_str(&" ".repeat(indent));
            }
            self.text.push_str(line);
            self.text.push('\n');
        }
    }
}

/// `key: value`, or `key:` and a line's end where lines of their own follow.
fn pair(key: &str, value: &Value) -> Result<String, serde_saphyr::ser::Error> {
    let has_lines = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    let shown = if has_lines { &Value::Null } else { value };
    let line = serialized(&Value::Object(Map::from_iter([(
        key.to_owned(),
        shown.clone(),
    )])))?;
    if has_lines {
        return Ok(line.trim_end().trim_end_matches(" null").to_owned() + "\n");
    }
    Ok(line)
}

fn scalar(value: &Value) -> Result<String, serde_saphyr::ser::Error> {
    serialized(value)
}

fn serialized(value: &Value) -> Result<String, serde_saphyr::ser::Error> {
    let options =
        serde_saphyr::ser_options! { prefer_block_scalars: true, folded_wrap_chars: usize::MAX };
    serde_saphyr::to_string_with_options(value, options)
}

/// An empty line stays one; an indented line is a command to copy and stays whole.
fn wrapped(line: &str, width: usize) -> Vec<String> {
    if line.starts_with(' ') {
        return vec![line.to_owned()];
    }
    let mut lines = vec![String::new()];
    for word in line.split(' ') {
        let current = lines.last_mut().expect("there is always a line");
        if !current.is_empty() && current.len() + 1 + word.len() > width.saturating_sub(2) {
            lines.push(word.to_owned());
            continue;
        }
        if !current.is_empty() {
            current.push(' ');
        }
        current.push_str(word);
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn note(pointer: &str, text: &str) -> Note {
        Note {
            pointer: pointer.to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_comment_stands_above_its_field() {
        let value =
            json!({"a": {"b/c": 1, "d": [{"e": "x: y", "f": ["g"]}, "h"]}, "i": {}, "j": []});
        let notes = [
            note("/a/b~1c", "one"),
            note("/a/d/0/f", "two"),
            note("/a/d/0/e", "three"),
            note("/a/d/1", "four"),
        ];
        insta::assert_snapshot!(document("top", &value, &notes).unwrap(), @r#"
        # top
        a:
          # one
          b/c: 1
          d:
          # three
          - e: "x: y"
            # two
            f:
            - g
          # four
          - h
        i: {}
        j: []
        "#);
    }

    #[test]
    fn yaml_round_trips() {
        let value = json!({
            "text": "line\n\n  indented\nlast", "kept": "ends\n", "null": null, "yes": "yes", "on": true, "n": "1", "0x1": "0x1", "big": u32::MAX, "minus": -1000,
            "list": ["- a", ["nested", {"x": "# no comment"}], {"": "empty key"}, "multi\nline"], "colon: ": " spaces ", "outbound|8080||a": "*",
        });
        let text = document("", &value, &[]).unwrap();
        assert_eq!(
            serde_saphyr::from_str::<Value>(&text).unwrap(),
            value,
            "{text}"
        );
    }

    #[test]
    fn long_comments_are_wrapped() {
        let command = format!("  {}", "word ".repeat(60).trim_end());
        let comment = format!("{}\n\n{command}", "word ".repeat(60));
        let text = document(&comment, &json!({"a": 1}), &[]).unwrap();
        let (long, wrapped): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.len() > WIDTH);
        assert_eq!(long, [format!("# {command}")]);
        assert_eq!(
            wrapped.iter().filter(|line| **line == "#").count(),
            1,
            "{text}"
        );
    }
}
