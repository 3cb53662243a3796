//! Synthetic crates: which imports form a cycle, and how the report names it.

use std::fs;

use module_graph::{Crate, cycles};

/// The cycles of a crate of these files, as reported.
fn found(files: &[(&str, &str)]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let file = dir.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    let root = dir.path().join("lib.rs");
    let read = Crate::read(&root).unwrap_or_else(|error| panic!("{error}"));
    let dir = format!("{}/", dir.path().display());
    let cycles = cycles(&read);
    cycles
        .iter()
        .map(|cycle| cycle.to_string().replace(&dir, ""))
        .collect()
}

#[test]
fn siblings_that_import_each_other() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use crate::{b::{self, f}, c};"),
        ("b.rs", "pub fn f() {}\nfn g() { super::a::h() }"),
        ("c.rs", ""),
    ];
    assert_eq!(
        found(&files),
        [
            "import cycle: crate::a, crate::b\n  a.rs:1: crate::b, of crate::b\n  b.rs:2: super::a::h, of crate::a"
        ]
    );
}

#[test]
fn cycle_through_a_third_module() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use crate::b::f;"),
        ("b.rs", "use crate::c::f;"),
        ("c.rs", "use crate::a::f;"),
    ];
    let [cycle] = found(&files).try_into().unwrap();
    assert_eq!(cycle.lines().count(), 4, "{cycle}");
}

#[test]
fn directories_count_as_one_module() {
    let files = [
        ("lib.rs", "mod a; mod b;"),
        ("a/mod.rs", "mod one; mod two;"),
        ("a/one.rs", "use crate::b::three::f;"),
        ("a/two.rs", ""),
        ("b.rs", "pub mod three; mod four;"),
        ("b/three.rs", "pub fn f() {}"),
        ("b/four.rs", "use crate::a::two::f;"),
    ];
    let [cycle] = found(&files).try_into().unwrap();
    assert!(
        cycle.starts_with("import cycle: crate::a, crate::b\n"),
        "{cycle}"
    );
}

#[test]
fn child_that_takes_what_sits_in_its_parent() {
    let child = ("a/child.rs", "use super::Shared;\npub fn f(_: Shared) {}");
    let used = [
        "mod child; pub struct Shared; fn g() { child::f(Shared) }",
        "mod child; pub struct Shared; pub use child::f;",
    ];
    for parent in used {
        let cycles = found(&[("lib.rs", "mod a;"), ("a.rs", parent), child]);
        let [cycle] = cycles.try_into().unwrap();
        assert!(
            cycle.starts_with("import cycle: crate::a, crate::a::child\n"),
            "{cycle}"
        );
    }
    // Only the child imports.
    let parent = "pub mod child; pub struct Shared;";
    assert_eq!(
        found(&[("lib.rs", "mod a;"), ("a.rs", parent), child]),
        [""; 0]
    );
}

#[test]
fn re_exports_are_followed_to_the_definition() {
    let files = [
        ("lib.rs", "mod a;"),
        ("a.rs", "mod x; mod y; mod z; pub use x::Y; use y::*;"),
        ("a/x.rs", "pub struct Y;"),
        ("a/y.rs", "pub struct Z; pub fn f(_: super::Y) {}"),
        ("a/z.rs", "use super::{Y, Z};"),
    ];
    assert_eq!(found(&files), [""; 0]);
}

#[test]
fn every_way_to_name_a_module_is_seen() {
    let ways = [
        "use crate::b::f;",
        "use super::b::{f as g};",
        "use crate::b::*;",
        "use crate::{b as other}; fn g() { other::f() }",
        "fn g() { crate::b::f() }",
        "fn g() { use crate::b; b::f() }",
        "fn g() -> Option<crate::b::T> { None }",
        "fn g() { println!(\"{}\", crate::b::f()) }",
        "impl crate::b::Trait for u8 {}",
        "mod inner { use super::super::b::f; }",
        "mod inner { fn g() { assert!([1].iter().all(|_| crate::b::f())) } }",
        "macro_rules! m { () => { $crate::b::f() } }",
    ];
    for way in ways {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", way),
            ("b.rs", "use crate::a::x;"),
        ];
        assert_eq!(found(&files).len(), 1, "{way}");
    }
}

#[test]
fn what_is_no_import_closes_no_cycle() {
    let others = [
        "use std::b::f;",
        "use ::b::f;",
        "/// [`crate::b::f`]\npub(in crate::b) fn g() {}",
        "#[cfg(test)] mod tests { use crate::b::f; }",
        "#[cfg(all(test, unix))] use crate::b::f;",
        "impl u8 { #[cfg(test)] fn g() { crate::b::f() } }",
        "fn g(b: Other) { b.f(); Other::b::<u8>(); \"crate::b::f\"; }",
    ];
    for other in others {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", other),
            ("b.rs", "use crate::a::x;"),
        ];
        assert_eq!(found(&files), [""; 0], "{other}");
    }
}
