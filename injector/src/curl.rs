//! A command line to paste: one request that an intercept matches, quoted for a POSIX shell.

use crate::conflict::{self, ExampleRequest};
use crate::session::plan::Plan;
use crate::tunnel::developer::LocalProtocol;

/// A request that the plan's intercept matches and that curl can send.
pub fn example(plan: &Plan) -> Option<ExampleRequest> {
    let example = conflict::example(&plan.intercept("", 0, 0))?;
    let is_sendable = |name: &str| !name.starts_with(':') || name.eq_ignore_ascii_case(":authority");
    let all = example.headers.iter().all(|(name, _)| is_sendable(name));
    all.then_some(example)
}

/// The line that sends it.
pub fn line(plan: &Plan, example: &ExampleRequest) -> String {
    let mut words = vec!["curl".to_owned()];
    if plan.protocol == LocalProtocol::Http2 {
        words.push("--http2-prior-knowledge".to_owned());
    }
    match example.method.as_str() {
        "GET" => {}
        // With -X curl would wait for a body that never comes.
        "HEAD" => words.push("--head".to_owned()),
        method => words.extend(["-X".to_owned(), quote(method)]),
    }
    for (name, value) in &example.headers {
        words.extend(["-H".to_owned(), quote(&header(name, value))]);
    }
    if example.path.contains(['{', '}', '[', ']']) {
        words.push("--globoff".to_owned());
    }
    if example.path.contains("/.") {
        words.push("--path-as-is".to_owned());
    }
    words.push(quote(&format!("{}{}", plan.url.trim_end_matches('/'), example.path)));
    words.join(" ")
}

fn header(name: &str, value: &str) -> String {
    let name = if name.eq_ignore_ascii_case(":authority") { "host" } else { name };
    match value {
        // So does curl spell a header without a value; `name:` would remove it.
        "" => format!("{name};"),
        value => format!("{name}: {value}"),
    }
}

/// Quoted so that a POSIX shell hands it on unchanged, and left bare where it needs no quotes.
pub fn quote(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_shell_hands_on_what_was_quoted() {
        let texts = [
            "plain", "", " ", "it's", "a\"b", "$HOME", "`id`", "\\", "a\nb", "!x", "*", "~", "é", "'", "''", "-n", "a;b", "#c",
        ];
        for text in texts {
            let script = format!("printf %s {}", quote(text));
            let output = Command::new("sh").args(["-c", &script]).output().expect("sh runs");
            assert_eq!(String::from_utf8_lossy(&output.stdout), text);
        }
    }

    #[test]
    fn what_needs_no_quotes_has_none() {
        assert_eq!(quote("http://127.0.0.1:10000/api"), "http://127.0.0.1:10000/api");
        assert_eq!(quote("Coder: Bob"), "'Coder: Bob'");
    }
}
