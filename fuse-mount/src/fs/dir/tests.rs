use super::*;
use lagan_types::Kind;

fn page(after: u64, cookies: &[u64], end: bool) -> Page {
    let entries = cookies.iter().map(|&cookie| Entry {
        name: format!("name-{cookie}").into_bytes(),
        ino: Ino(1000 + cookie),
        kind: Kind::File,
        cookie,
        attr: None,
    });
    Page {
        after,
        page: DirPage {
            entries: entries.collect(),
            end,
            parent: Ino(1),
        },
    }
}

fn offsets(page: Page, offset: u64) -> Vec<u64> {
    let listing = Listing {
        page: Arc::new(page),
        offset,
    };
    let offset_of = |item: Item<'_>| match item {
        Item::Dot(_, _, offset) | Item::Entry(_, offset) => offset,
    };
    listing.items(Ino(7)).map(offset_of).collect()
}

#[test]
fn a_listing_begins_with_the_dots() {
    assert_eq!(offsets(page(0, &[1, 5, 9], true), 0), [1, 2, 3, 7, 11]);
    assert_eq!(offsets(page(0, &[1, 5, 9], true), 1), [2, 3, 7, 11]);
    assert_eq!(offsets(page(0, &[1, 5, 9], true), 2), [3, 7, 11]);
    assert_eq!(offsets(page(0, &[], true), 0), [1, 2]);
    assert_eq!(offsets(page(0, &[], true), 2), [] as [u64; 0]);
}

#[test]
fn the_dots_name_the_directory_and_its_parent() {
    let listing = Listing {
        page: Arc::new(page(0, &[], true)),
        offset: 0,
    };
    let items: Vec<_> = listing.items(Ino(7)).collect();
    assert_eq!(items[0], Item::Dot(".", Ino(7), 1));
    assert_eq!(items[1], Item::Dot("..", Ino(1), 2));
}

#[test]
fn a_listing_goes_on_after_an_entry_that_was_removed() {
    assert_eq!(offsets(page(0, &[1, 9], true), 7), [11]);
    assert_eq!(offsets(page(5, &[9], true), 7), [11]);
    assert_eq!(offsets(page(0, &[1, 5, 9], true), 11), [] as [u64; 0]);
}

#[test]
fn a_page_serves_only_what_it_covers() {
    let middle = page(10, &[11, 20], false);
    assert!(middle.serves(12, false));
    assert!(middle.serves(13, false));
    assert!(!middle.serves(11, false), "before its beginning");
    assert!(!middle.serves(22, false), "its last entry was given");
    let last = page(10, &[11, 20], true);
    assert!(last.serves(22, false), "nothing follows");
    assert!(last.serves(4000, false));
}

#[test]
fn rewinding_and_asking_for_attributes_fetch_anew() {
    let first = page(0, &[1, 2], true);
    assert!(!first.serves(0, false));
    assert!(first.serves(1, false));
    assert!(!first.serves(1, true), "it has no attributes");
}
