//! A command line to paste: one request that an intercept matches, quoted for a POSIX shell.

/// Quoted so that a POSIX shell hands it on unchanged, and left bare where it needs no quotes.
pub fn quote(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
