//! Text of others, made safe for a terminal.

/// What others wrote must not move the cursor of a terminal, nor turn its text round: what cannot be seen is spelled out, but for the end of a line.
pub fn printable(text: &str) -> String {
    spell_out(
        text,
        |char| char != '\n',
        |char| char.escape_default().to_string(),
    )
}

/// The same for what must stay on its line.
pub fn one_line(text: &str) -> String {
    spell_out(text, |_| true, |char| char.escape_default().to_string())
}

/// Spells out those invisible characters that are asked for.
pub fn spell_out(
    text: &str,
    is_asked: impl Fn(char) -> bool,
    spelled: impl Fn(char) -> String,
) -> String {
    // Almost all of it: a workload may have a thousand entries to print.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        match is_invisible(char) && is_asked(char) {
            true => shown.push_str(&spelled(char)),
            false => shown.push(char),
        }
    }
    shown
}

/// Controls (C1 included), format characters such as U+202E, which reverses what follows, separators of lines, and what no font has: all that `Debug` of a string
/// spells out, which knows Unicode's categories.
pub fn is_invisible(char: char) -> bool {
    // Behind a letter: a combining mark is only spelled out where it begins a text.
    let is_spelled_out = || format!("a{char}").escape_debug().count() > 2;
    match char.is_ascii() {
        true => char.is_ascii_control(),
        false => is_spelled_out(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What must not reach a terminal: C0, DEL, C1, line separators, bidirectional controls, zero-width and tag characters, a byte order mark, private use.
    const INVISIBLE: &str = "\0\u{1b}\r\t\u{7f}\u{85}\u{9b}\u{ad}\u{61c}\u{200b}\u{200f}\u{2028}\u{2029}\u{202a}\u{202e}\u{2066}\u{2069}\u{feff}\u{fff9}\u{e000}\u{e0041}";
    const VISIBLE: &str = "Zoë e\u{301} боб 山田 हिन्दी 🦀 'a\\b\"";

    #[test]
    fn invisible_characters_are_spelled_out() {
        assert_eq!(
            one_line("bob\u{202e}eve\n\u{9b}2K"),
            "bob\\u{202e}eve\\n\\u{9b}2K"
        );
        for char in INVISIBLE.chars() {
            let text = printable(&char.to_string());
            assert!(
                text.starts_with('\\') && text.is_ascii(),
                "{char:?}: {text}"
            );
        }
        assert_eq!(printable("a\nb"), "a\nb");
        assert_eq!(one_line(VISIBLE), VISIBLE);
    }
}
