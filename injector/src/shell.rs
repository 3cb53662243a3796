//! Words of command lines that are shown, quoted for a POSIX shell.

use intercept_kube::KubeFlags;

/// The flags that choose a cluster and a namespace, with a blank before each word.
pub fn context_flags(flags: &KubeFlags) -> String {
    let kubeconfig = flags.kubeconfig.as_ref().map(|path| path.to_string_lossy());
    let words = [
        ("--context", flags.context.as_deref()),
        ("--kubeconfig", kubeconfig.as_deref()),
        ("-n", flags.namespace.as_deref()),
    ];
    let given = words
        .into_iter()
        .filter_map(|(flag, value)| Some((flag, value?)));
    given
        .map(|(flag, value)| format!(" {flag} {}", quote(value)))
        .collect()
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
pub(crate) mod tests {
    use std::process::Command;

    use super::*;

    /// What a shell makes of a text, word by word.
    pub(crate) fn words(script: &str) -> Vec<String> {
        let script = format!("set -- {script}; printf '%s\\0' \"$@\"");
        let output = Command::new("sh")
            .args(["-c", &script])
            .output()
            .expect("sh runs");
        assert!(output.status.success(), "{script}");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn a_shell_hands_on_what_was_quoted() {
        let texts = [
            "plain", "", " ", "it's", "a\"b", "$HOME", "`id`", "\\", "a\nb", "!x", "*", "~", "é",
            "'", "''", "a;b", "#c", "a&b", "(a|b)",
        ];
        for text in texts {
            assert_eq!(words(&quote(text)), [text]);
        }
    }

    #[test]
    fn context_flags_are_quoted() {
        let flags = KubeFlags {
            context: Some("two".to_owned()),
            kubeconfig: Some("/my files/config".into()),
            namespace: Some("mine".to_owned()),
        };
        assert_eq!(
            context_flags(&flags),
            " --context two --kubeconfig '/my files/config' -n mine"
        );
        assert_eq!(context_flags(&KubeFlags::default()), "");
    }

    #[test]
    fn what_needs_no_quotes_has_none() {
        assert_eq!(
            quote("http://127.0.0.1:10000/api"),
            "http://127.0.0.1:10000/api"
        );
        assert_eq!(quote("Coder: Bob"), "'Coder: Bob'");
    }
}
