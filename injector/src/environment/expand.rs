//! Expands `$(VAR)` as Kubernetes does (`k8s.io/kubernetes/third_party/forked/golang/expansion`).
//!
//! Once, from left to right; unknown names stay as written.

/// Expands the references that `lookup` knows. `$$` becomes `$`; any other `$` stays.
pub fn expand(text: &str, mut lookup: impl FnMut(&str) -> Option<String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('$') {
        expanded.push_str(before);
        if let Some(behind) = behind.strip_prefix('$') {
            expanded.push('$');
            rest = behind;
        } else if let Some((name, behind)) = behind
            .strip_prefix('(')
            .and_then(|open| open.split_once(')'))
        {
            match lookup(name) {
                Some(value) => expanded.push_str(&value),
                None => expanded.push_str(&format!("$({name})")),
            }
            rest = behind;
        } else {
            expanded.push('$');
            rest = behind;
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases of Kubernetes' own tests (`expand_test.go`), without redundant ones.
    #[test]
    fn references_are_expanded_as_kubernetes_does() {
        let known = |name: &str| match name {
            "VAR_A" => Some("A".to_owned()),
            "VAR_B" => Some("B".to_owned()),
            "VAR_REF" => Some("$(VAR_A)".to_owned()),
            "VAR_EMPTY" => Some(String::new()),
            _ => None,
        };
        let cases = [
            ("$(VAR_A)", "A"),
            ("___$(VAR_B)___", "___B___"),
            ("$(VAR_A)$(VAR_B)", "AB"),
            ("foo$(VAR_EMPTY)bar", "foobar"),
            ("$(VAR_REF)", "$(VAR_A)"),
            ("f000-$$VAR_A", "f000-$VAR_A"),
            ("foo\\$(VAR_A)bar", "foo\\Abar"),
            ("$$(VAR_A)", "$(VAR_A)"),
            ("$$$$(VAR_A)", "$$(VAR_A)"),
            ("$$$(VAR_A)", "$A"),
            ("$(VAR_UNKNOWN)-x", "$(VAR_UNKNOWN)-x"),
            ("$VAR_A)", "$VAR_A)"),
            ("${VAR_A}", "${VAR_A}"),
            ("$(VAR_A", "$(VAR_A"),
            ("foo--$(foo", "foo--$(foo"),
            ("$", "$"),
            ("a$", "a$"),
            ("$()", "$()"),
            ("$ü$(VAR_A)", "$üA"),
            ("$($(VAR_A))", "$($(VAR_A))"),
            ("$?_boo_$!(VAR_A", "$?_boo_$!(VAR_A"),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, known), expected, "{text}");
        }
    }
}
