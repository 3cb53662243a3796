//! Who claims an intercept where no API server says so: the user name of this machine.

/// `$USER`, else `$LOGNAME`, else the number of the user.
pub fn name() -> String {
    let variable = |name| {
        std::env::var(name)
            .ok()
            .filter(|name| !name.trim().is_empty())
    };
    variable("USER")
        .or_else(|| variable("LOGNAME"))
        .unwrap_or_else(|| format!("uid-{}", rustix::process::getuid().as_raw()))
}

/// The name of an intercept that was given none: `TARGET-USER`.
pub fn intercept_name(target: &str, developer: &str) -> String {
    crate::flags::label(&format!("{target}-{developer}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_name_is_a_dns_label() {
        let cases = [
            ("orders", "bob", "orders-bob"),
            (
                "orders",
                "Bob.Smith@example.com",
                "orders-bob-smith-example-com",
            ),
            ("orders", "боб", "orders"),
            ("orders", "-b_", "orders--b"),
        ];
        for (target, user, name) in cases {
            assert_eq!(intercept_name(target, user), name);
        }
    }

    #[test]
    fn a_long_name_is_cut_and_never_ends_in_a_hyphen() {
        let name = intercept_name(&"a".repeat(62), "bob");
        assert_eq!(name, "a".repeat(62));
        assert_eq!(intercept_name(&"a".repeat(50), &"b".repeat(50)).len(), 63);
    }
}
