//! Where results go: stdout in the format asked for. What people read while a command runs goes to stderr and is not made here.

use std::io::{self, Write};

use serde::Serialize;

use crate::cli::Format;
use crate::hint::{Failure, OrHint, Result};

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

/// What others wrote must not move the cursor of somebody's terminal: control characters are spelled out, but for the end of a line.
pub fn printable(text: &str) -> String {
    spell_out(text, |char| char.is_control() && char != '\n')
}

/// The same for what must stay on its line.
pub fn one_line(text: &str) -> String {
    spell_out(text, char::is_control)
}

fn spell_out(text: &str, is_spelled_out: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        match is_spelled_out(char) {
            true => shown.extend(char.escape_default()),
            false => shown.push(char),
        }
    }
    shown
}

/// Writes to stdout. A reader that has gone away (`| head`) wanted no more: that is no failure.
pub fn stdout(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::failed(
            format_args!("stdout: {error}"),
            "check where the output goes: df -h .",
        )),
        _ => Ok(()),
    }
}

fn json(value: &impl Serialize) -> Result<String> {
    let text =
        serde_json::to_string_pretty(value).or_hint("-o json", "use another format: -o text")?;
    Ok(text + "\n")
}

fn yaml(value: &impl Serialize) -> Result<String> {
    let text = serde_saphyr::to_string(value).or_hint("-o yaml", "use another format: -o json")?;
    Ok(text.trim_end().to_owned() + "\n")
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

    #[test]
    fn a_cell_stays_in_its_row_and_its_column_whatever_others_wrote() {
        let rows = [["x\u{1b}[2K\ny", "1"], ["z", "2"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        let expected = "x\\u{1b}[2K\\ny  1\nz              2\n";
        assert_eq!(table(&rows), expected);
    }
}
