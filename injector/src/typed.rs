//! The command line as it was typed, for hints that run when they are pasted. Knows no flag by name.

use crate::shell::quote;

/// The command as it was typed, with this value of a flag put right.
pub fn retyped(flag: &str, wrong: &str, right: &str) -> String {
    let arguments = std::env::args_os().skip(1);
    let arguments = arguments.map(|word| word.to_string_lossy().into_owned());
    corrected(arguments, flag, wrong, right)
}

fn corrected(
    arguments: impl Iterator<Item = String>,
    flag: &str,
    wrong: &str,
    right: &str,
) -> String {
    let (joined, mut words) = (format!("{flag}={wrong}"), vec!["injector".to_owned()]);
    let mut is_corrected = false;
    for word in arguments {
        let is_value = word == wrong && words.last().is_some_and(|last| last == flag);
        let word = match () {
            () if is_corrected => word,
            () if word == joined => format!("{flag}={right}"),
            () if is_value => right.to_owned(),
            () => {
                words.push(word);
                continue;
            }
        };
        is_corrected = true;
        words.push(word);
    }
    if !is_corrected {
        return format!("injector intercept … {}", quote(&format!("{flag}={right}")));
    }
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hint_keeps_what_was_typed() {
        for (typed, expected) in [
            (
                &[
                    "intercept",
                    "orders",
                    "-p",
                    "3000",
                    "--http-header=Coder= Bob",
                ][..],
                "injector intercept orders -p 3000 --http-header=Coder=Bob",
            ),
            (
                &[
                    "-n",
                    "shop",
                    "intercept",
                    "--http-header",
                    "Coder= Bob",
                    "orders",
                    "--",
                    "npm",
                    "run dev",
                ],
                "injector -n shop intercept --http-header Coder=Bob orders -- npm 'run dev'",
            ),
            (
                &["intercept", "orders"],
                "injector intercept … --http-header=Coder=Bob",
            ),
        ] {
            let typed = typed.iter().map(|word| (*word).to_owned());
            assert_eq!(
                corrected(typed, "--http-header", "Coder= Bob", "Coder=Bob"),
                expected
            );
        }
    }
}
