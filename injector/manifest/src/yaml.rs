//! Configuration as people read it: YAML with a comment above each piece.

use serde_json::Value;

/// A piece of configuration.
#[derive(Debug, Clone)]
pub struct Piece {
    /// What it is and where it goes; no `#`.
    pub comment: String,
    /// The configuration.
    pub value: Value,
}

/// One YAML document per piece, so that a program can read what a reviewer reads.
pub fn documents(pieces: &[Piece]) -> Result<String, serde_saphyr::ser::Error> {
    let documents: Vec<String> = pieces.iter().map(document).collect::<Result<_, _>>()?;
    Ok(documents.join("---\n"))
}

fn document(piece: &Piece) -> Result<String, serde_saphyr::ser::Error> {
    let mut text = String::new();
    for line in piece.comment.lines() {
        let line = format!("# {line}");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let options =
        serde_saphyr::ser_options! { prefer_block_scalars: true, folded_wrap_chars: usize::MAX };
    text.push_str(&serde_saphyr::to_string_with_options(
        &piece.value,
        options,
    )?);
    Ok(text)
}
