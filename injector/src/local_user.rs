//! Who claims an intercept where no API server says so (the user name of this machine), and what an intercept is called that was given no name.

use intercept_manifest::digest;

use crate::flags::label;

/// The longest DNS label.
const LABEL: usize = 63;

/// How many digits of a hash tell two lossy names apart: 40 bits.
const DIGITS: usize = 10;

/// How much of a target's name is kept beside a hash; the rest is the user's.
const TARGET: usize = 32;

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

/// The default name of an intercept: `TARGET-USER`, where that is a DNS label from which both can be read back. Otherwise what is readable of the two and digits
/// of a hash of the whole: no two users get one name, nor does one user get one name for two targets.
pub fn intercept_name(target: &str, user: &str) -> String {
    let plain = format!("{target}-{user}");
    // The user is what follows the last `-`, so it has none itself, and is not taken for the digits of a hash.
    let is_word = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let is_readable = !user.is_empty() && is_word(user) && !is_hash(user) && !target.is_empty();
    if is_readable && label(&plain) == plain {
        return plain;
    }
    let hash = &digest::sha256(format!("{target}\0{user}"))[..DIGITS];
    let (mut target, user) = (label(target), label(user));
    target.truncate(TARGET);
    // The end of `arn:aws:sts::1:assumed-role/ROLE/bob@example.com` says who it is.
    let room = LABEL - DIGITS - 2 - target.len();
    let user = &user[user.len().saturating_sub(room)..];
    let parts = [&target, user, hash].map(|part| part.trim_matches('-'));
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("-")
}

fn is_hash(text: &str) -> bool {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.len() == DIGITS && text.bytes().all(is_digit)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn default_name_is_target_and_user() {
        for (target, user, name) in [
            ("orders", "bob", "orders-bob"),
            ("orders-v2", "b0b", "orders-v2-b0b"),
            ("orders", "deadbeef", "orders-deadbeef"),
        ] {
            assert_eq!(intercept_name(target, user), name);
        }
    }

    #[test]
    fn lossy_name_ends_with_a_hash() {
        for (target, user, readable) in [
            (
                "orders",
                "Bob.Smith@example.com",
                "orders-bob-smith-example-com",
            ),
            ("orders", "боб", "orders"),
            ("orders", "a-b", "orders-a-b"),
            ("orders", "deadbeef00", "orders-deadbeef00"),
            ("my.orders", "bob", "my-orders-bob"),
            (
                "orders",
                "arn:aws:sts::1:assumed-role/AWSReservedSSO_X/alice@example.com",
                "orders-sumed-role-awsreservedsso-x-alice-example-com",
            ),
        ] {
            let name = intercept_name(target, user);
            let (before, hash) = name.rsplit_once('-').expect("a hash");
            assert!(is_hash(hash), "{name}");
            assert_eq!(before, readable);
        }
    }

    /// What users and targets are called, few letters often: so that pairs come close to each other.
    fn words() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ab-]{0,3}",
            "[aA._@ -]{1,4}",
            "[a-z0-9-]{1,70}",
            "[0-9a-f]{10}",
            "a-[0-9a-f]{10}",
            "\\PC{0,12}",
            "arn:aws:sts::1:assumed-role/AWSReservedSSO_[a-z]{1,60}/[ab]@example.com",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn distinct_pairs_have_distinct_names(pairs in prop::collection::vec((words(), words()), 2..60)) {
            let mut names = BTreeMap::new();
            for pair in pairs {
                let name = intercept_name(&pair.0, &pair.1);
                prop_assert_eq!(&label(&name), &name);
                prop_assert!((1..=LABEL).contains(&name.len()));
                if let Some(other) = names.insert(name.clone(), pair.clone()) {
                    prop_assert_eq!(other, pair, "{}", name);
                }
            }
        }
    }

    #[test]
    fn close_pairs_have_distinct_names() {
        let sso = |user| {
            format!(
                "arn:aws:sts::1:assumed-role/AWSReservedSSO_{}/{user}@example.com",
                "X".repeat(60)
            )
        };
        let (alice, bob) = (sso("alice"), sso("bob"));
        let hashed = intercept_name("orders", "bob.smith");
        let (target, user) = hashed.rsplit_once('-').expect("a hash");
        for (one, other) in [
            (("orders", &*alice), ("orders", &*bob)),
            (("orders", "bob.smith"), ("orders", "bob_smith")),
            (("orders", "bob-smith"), ("orders-bob", "smith")),
            (("orders", "Bob"), ("orders", "bob")),
            (("orders", "боб"), ("orders", "боба")),
            (("orders", "bob.smith"), (target, user)),
        ] {
            assert_ne!(
                intercept_name(one.0, one.1),
                intercept_name(other.0, other.1),
                "{one:?} {other:?}"
            );
        }
    }
}
