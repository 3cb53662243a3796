//! Where results go: stdout in the format asked for. What people read while a command runs goes to stderr and is not made here.

use std::io::{self, Write};

use intercept_manifest::printable::{is_invisible, one_line, printable, spell_out};
use serde::Serialize;

use crate::args::Format;
use crate::error::{CliError, OrHint, Result};

/// A result that every format can show.
pub trait Shown: Serialize {
    /// For people, with its line ends.
    fn text(&self) -> String;

    /// The names in it.
    fn names(&self) -> Vec<&str>;
}

/// Prints a result on stdout.
pub fn print(format: Format, shown: &impl Shown) -> Result<()> {
    let text = match format {
        Format::Text => printable(&shown.text()),
        Format::Json => json(shown)?,
        Format::Yaml => yaml(shown)?,
        Format::Name => shown
            .names()
            .iter()
            .map(|name| one_line(name) + "\n")
            .collect(),
    };
    stdout(&text)
}

/// Writes to stdout. A reader that has gone away (`| head`) wanted no more: that is no failure.
pub fn stdout(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::failed(
            format_args!("stdout: {error}"),
            "check where the output goes: df -h .",
        )),
        _ => Ok(()),
    }
}

/// Outside of strings there is nothing invisible but line feeds, and no string has any.
fn json(value: &impl Serialize) -> Result<String> {
    let text =
        serde_json::to_string_pretty(value).or_hint("-o json", "use another format: -o text")?;
    let utf16 = |char: char| {
        let units = char.encode_utf16(&mut [0; 2]).to_vec();
        units.iter().map(|unit| format!("\\u{unit:04x}")).collect()
    };
    Ok(spell_out(&text, |char| char != '\n', utf16) + "\n")
}

/// A plain scalar cannot spell anything out, so a document that would have to is written as JSON, which is YAML too.
fn yaml(value: &impl Serialize) -> Result<String> {
    let text = serde_saphyr::to_string(value).or_hint("-o yaml", "use another format: -o json")?;
    if !text.chars().any(|char| is_invisible(char) && char != '\n') {
        return Ok(text.trim_end().to_owned() + "\n");
    }
    let text =
        serde_json::to_string_pretty(value).or_hint("-o yaml", "use another format: -o json")?;
    // YAML knows no surrogates.
    let utf32 = |char: char| format!("\\U{:08x}", u32::from(char));
    Ok(spell_out(&text, |char| char != '\n', utf32) + "\n")
}

/// Columns, each as wide as its widest cell, two blanks apart. A cell is one line whatever is in it.
pub fn table(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| one_line(cell)).collect())
        .collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column| {
        let cells = rows.iter().filter_map(|row| row.get::<usize>(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVISIBLE: &str = "\0\u{1b}\r\t\u{7f}\u{85}\u{9b}\u{ad}\u{200b}\u{2028}\u{202e}\u{2066}\u{feff}\u{e000}\u{e0041}";
    const VISIBLE: &str = "Zoë e\u{301} боб 山田 हिन्दी 🦀 'a\\b\"";

    #[derive(Serialize)]
    struct Name<'n> {
        name: &'n str,
    }

    impl Shown for Name<'_> {
        fn text(&self) -> String {
            format!("{}\n", self.name)
        }

        fn names(&self) -> Vec<&str> {
            vec![self.name]
        }
    }

    #[test]
    fn every_format_is_free_of_invisible_characters() {
        let text = format!("{VISIBLE}{INVISIBLE}");
        let name = Name { name: &text };
        let (json, yaml) = (json(&name).expect("JSON"), yaml(&name).expect("YAML"));
        for document in [&json, &yaml] {
            assert!(document.contains("山田"), "{document}");
            let has_invisible = document
                .chars()
                .any(|char| is_invisible(char) && char != '\n');
            assert!(!has_invisible, "{document:?}");
        }
        let read: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(read["name"], text);
        let read: serde_json::Value = serde_saphyr::from_str(&yaml).expect("YAML");
        assert_eq!(read["name"], text);
    }

    #[test]
    fn a_cell_stays_in_its_row_and_its_column_whatever_others_wrote() {
        let rows = [["x\u{1b}[2K\ny", "1"], ["z", "2"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        let expected = "x\\u{1b}[2K\\ny  1\nz              2\n";
        assert_eq!(table(&rows), expected);
    }
}
