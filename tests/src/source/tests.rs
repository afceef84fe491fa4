use super::circles::{self, Circle};
use super::*;
use std::collections::BTreeSet;
use std::io;

fn load(files: &[(&str, &str)]) -> Crate {
    let read = |path: &Path| {
        let found = files.iter().find(|(name, _)| Path::new(name) == path);
        found
            .map(|(_, text)| (*text).to_owned())
            .ok_or(io::Error::from(io::ErrorKind::NotFound))
    };
    Crate::load(Path::new("lib.rs"), read).expect("it parses")
}

fn circles_of(files: &[(&str, &str)]) -> Vec<Circle> {
    circles::of(&load(files))
}

fn check(files: &[(&str, &str)], expected: &[&[&str]]) {
    let found: Vec<BTreeSet<_>> = circles_of(files).into_iter().map(|c| c.files).collect();
    let expected: Vec<BTreeSet<_>> = expected
        .iter()
        .map(|files| files.iter().map(PathBuf::from).collect())
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn two_files_that_import_each_other_are_a_circle() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use crate::b::B; pub struct A(B);"),
        ("b.rs", "use crate::a::A; pub struct B(Box<A>);"),
        ("c.rs", "use crate::{a::A, b::B}; pub struct C(A, B);"),
    ];
    check(&files, &[&["a.rs", "b.rs"]]);
    let text = circles_of(&files)[0].to_string();
    assert_eq!(text, "circle of 2:\n  a.rs -> b.rs: B\n  b.rs -> a.rs: A\n");
}

#[test]
fn paths_in_code_types_and_macros_count() {
    for b in [
        "pub fn b() { crate::a::a() }",
        "pub fn b() { super::a::a() }",
        "pub fn b() { for _ in [crate::a::K; 2] {} }",
        "pub fn b() -> Vec<Option<crate::a::S>> { vec![] }",
        "pub fn b() { println!(\"{}\", crate::a::K) }",
        "pub fn b() { use crate::a as other; other::a() }",
        "use crate::a; pub fn b() { a::a() }",
        "use crate::a::{self, S as R}; pub fn b() {}",
        "use super::a::*; pub fn b() {}",
    ] {
        let a = "pub const K: u8 = 0; pub trait T {} pub struct S; pub fn a() { crate::b::b() }";
        let files = [("lib.rs", "mod a; mod b;"), ("a.rs", a), ("b.rs", b)];
        assert_eq!(circles_of(&files).len(), 1, "{b}");
    }
}

#[test]
fn impl_blocks_of_another_file_count() {
    let a = "use crate::b::B; pub trait T {} pub struct S(B);";
    for b in [
        "pub struct B; impl crate::a::T for B {}",
        "pub struct B; impl crate::a::S { fn x() {} }",
    ] {
        let files = [("lib.rs", "mod a; mod b;"), ("a.rs", a), ("b.rs", b)];
        check(&files, &[&["a.rs", "b.rs"]]);
    }
}

#[test]
fn what_is_no_code_does_not_count() {
    for b in [
        "// crate::a::a()\npub fn b() {}",
        "/// See [`crate::a::a`].\npub fn b() {}",
        "pub fn b() { let _ = \"crate::a::a()\"; }",
        "pub fn b() {} #[cfg(test)] mod tests { use crate::a::a; }",
        "pub fn b() {} #[cfg(test)] use crate::a::a;",
        "pub fn b() {} #[test] fn t() { crate::a::a() }",
        "pub fn b() {} #[cfg(all(test, unix))] fn t() { crate::a::a() }",
        "pub(in crate::a) fn c() {} pub fn b() {}",
        "use crate::a; pub fn b() {}",
        "pub fn b(x: X) { x.a.a() }",
        "use std::a::a; pub fn b() { a() }",
    ] {
        let a = "pub fn a() { crate::b::b() }";
        check(
            &[("lib.rs", "mod a; mod b;"), ("a.rs", a), ("b.rs", b)],
            &[],
        );
    }
}

#[test]
fn parent_that_declares_and_passes_on_is_in_no_circle() {
    let files = [
        ("lib.rs", "mod a; pub use a::{A, B as C}; mod d;"),
        ("a.rs", "mod b; pub use b::B; pub struct A;"),
        ("a/b.rs", "use super::A; pub struct B(A);"),
        (
            "d.rs",
            "pub use crate::C; use crate::a::B; pub struct D(B);",
        ),
    ];
    check(&files, &[]);
}

#[test]
fn re_export_leads_to_the_file_that_defines() {
    let files = [
        (
            "lib.rs",
            "mod a; mod b; pub use b::inner::N as M; pub mod prelude { pub use crate::b::*; }",
        ),
        (
            "a.rs",
            "use crate::prelude::M as Name; use crate::M; pub struct A;",
        ),
        ("b.rs", "pub mod inner; pub use inner::*;"),
        (
            "b/inner.rs",
            "use crate::a::A; pub struct N(A); pub type Q = N;",
        ),
    ];
    check(&files, &[&["a.rs", "b/inner.rs"]]);
    let mut through_glob = files;
    through_glob[1].1 = "pub struct A; fn q() -> crate::prelude::Q { loop {} }";
    check(&through_glob, &[&["a.rs", "b/inner.rs"]]);
}

#[test]
fn name_that_a_parent_passes_on_and_uses_ties_it() {
    let files = [
        ("lib.rs", "mod a;"),
        (
            "a.rs",
            "mod b; pub use b::B; pub struct A; pub fn f(_: B) {}",
        ),
        ("a/b.rs", "use super::A; pub struct B(A);"),
    ];
    check(&files, &[&["a.rs", "a/b.rs"]]);
}

#[test]
fn circles_that_share_no_file_are_counted_apart() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c; mod d; mod e;"),
        ("a.rs", "use crate::b::B; use crate::d::D; pub struct A;"),
        ("b.rs", "use crate::c::C; pub struct B;"),
        ("c.rs", "use crate::a::A; pub struct C;"),
        ("d.rs", "use crate::e::E; pub struct D;"),
        ("e.rs", "use crate::d::D; pub struct E;"),
    ];
    check(&files, &[&["a.rs", "b.rs", "c.rs"], &["d.rs", "e.rs"]]);
}

#[test]
fn folder_and_its_head_are_one_folder() {
    let circle = |files: &[&str]| Circle {
        files: files.iter().map(PathBuf::from).collect(),
        ties: Vec::new(),
    };
    for (files, expected) in [
        (&["a.rs", "b.rs"][..], false),
        (&["a.rs", "a/b.rs", "a/c.rs"], false),
        (&["lib.rs", "b.rs"], false),
        (&["a/b.rs", "a/b/c.rs"], false),
        (&["a.rs", "b/c.rs"], true),
        (&["a.rs", "b.rs", "b/c.rs"], true),
        (&["a/b.rs", "c/d.rs"], true),
    ] {
        assert_eq!(circle(files).is_across(), expected, "{files:?}");
    }
}

#[test]
fn visible_is_what_another_crate_can_name() {
    let krate = load(&[
        (
            "lib.rs",
            "mod a; pub mod b; pub use a::A; pub use a::deep::f as g; pub(crate) use a::Hidden;",
        ),
        (
            "a.rs",
            "pub mod deep; pub struct A; pub struct Hidden; impl A { pub fn m(&self) {} fn p() {} }
             impl Hidden { pub fn n() {} }",
        ),
        ("a/deep.rs", "pub fn f() {} pub fn h() {}"),
        (
            "b.rs",
            "pub const K: u8 = 0; pub(crate) fn c() {} fn d() {} impl crate::A { pub fn o() {} }",
        ),
    ]);
    let found = visible::items(&krate);
    let found: Vec<_> = found.iter().map(String::as_str).collect();
    assert_eq!(
        found,
        ["a::A", "a::A::m", "a::A::o", "a::deep::f", "b", "b::K"]
    );
}

#[test]
fn function_is_as_long_as_its_lines() {
    let text = "/// Docs.\n#[inline]\npub fn f(\n    x: u8,\n) {\n}\n
        #[cfg(test)] mod tests { fn g() {} }
        trait T { fn required(); fn h() {\n} } impl X { fn i() {} }";
    let parsed = syn::parse_file(text).expect("it parses");
    let found = functions::all(Path::new("x.rs"), &parsed);
    let found: Vec<_> = found.iter().map(|f| (f.name.as_str(), f.lines)).collect();
    assert_eq!(found, [("f", 4), ("h", 2), ("i", 1)]);
}

#[test]
fn calls_are_found_outside_of_tests() {
    let text = "const A: V = V(1);\nfn f() { x::V(1); V(2); W(1) }
        #[cfg(test)] mod tests { const B: V = V(1); }";
    let parsed = syn::parse_file(text).expect("it parses");
    assert_eq!(calls::lines(&parsed, "V", "1"), [1, 2]);
}

#[test]
fn citations_are_found_in_prose() {
    assert_eq!(
        cites::documents("See (docs/A.md), `../B.md`. And C-D.md. Not .md, x.mdx."),
        ["docs/A.md", "../B.md", "C-D.md"]
    );
    assert_eq!(
        cites::invariants("INV-1, INV-6a's: INV-12; not INV-n or INV-"),
        ["INV-1", "INV-6a", "INV-12"]
    );
}

#[test]
fn citation_without_its_document_is_broken() {
    let text = |path: &str, text: &str| cites::Text {
        path: path.into(),
        text: text.to_owned(),
    };
    let texts = [
        text("ARCHITECTURE.md", "| INV-1 | see INV-3 |\n| INV-6a | x |"),
        text(
            "docs/A.md",
            "See ../tests/B.md, A.md, ARCHITECTURE.md, C.md.",
        ),
        text("tests/B.md", "INV-1 and INV-6a hold."),
        text(
            "tests/x.rs",
            "// See A.md, B.md, INV-2.\nlet a = \"D.md\"; self.md;",
        ),
    ];
    assert_eq!(
        cites::broken(&texts),
        [
            "ARCHITECTURE.md: INV-3",
            "docs/A.md: C.md",
            "tests/x.rs: INV-2"
        ]
    );
}
