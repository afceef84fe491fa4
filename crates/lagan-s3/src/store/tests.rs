use super::*;
use std::io::Read;

fn put(store: &Store, key: &str, bytes: &[u8]) {
    let mut draft = store.begin().unwrap();
    draft.write(bytes).unwrap();
    let record = record(
        key,
        draft.len(),
        "e".into(),
        Checksums::default(),
        Attributes::default(),
    );
    store.commit("b", draft, record, false).unwrap();
}

fn get(store: &Store, key: &str) -> Option<Vec<u8>> {
    let (file, record) = store.open_object("b", key).unwrap()?;
    let mut bytes = Vec::new();
    file.take(record.len).read_to_end(&mut bytes).unwrap();
    Some(bytes)
}

fn store(dir: &tempfile::TempDir) -> Store {
    let store = Store::open(dir.path(), false).unwrap();
    store.create_bucket("b").unwrap();
    store
}

fn files(dir: &tempfile::TempDir) -> usize {
    let bucket = dir.path().join("buckets/b");
    let folders = fs::read_dir(bucket).unwrap();
    folders
        .map(|f| fs::read_dir(f.unwrap().path()).unwrap().count())
        .sum()
}

#[test]
fn only_the_owner_may_read() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let store = store(&dir);
    put(&store, "k", b"hush");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(dir.path()), 0o700);
    assert_eq!(mode(&dir.path().join("lock")), 0o600);
    let folders = fs::read_dir(dir.path().join("buckets/b")).unwrap();
    for folder in folders {
        for object in fs::read_dir(folder.unwrap().path()).unwrap() {
            assert_eq!(mode(&object.unwrap().path()), 0o600);
        }
    }
}

#[test]
fn objects_of_any_key_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let long = format!("a/{}/../%2e/ü {}", "x".repeat(300), "y".repeat(500));
    let first = store(&dir);
    put(&first, &long, b"long");
    put(&first, "a", b"file");
    put(&first, "a/b", b"below a file");
    put(&first, "a", b"replaced");
    drop(first);
    let second = store(&dir);
    assert_eq!(get(&second, &long).unwrap(), b"long");
    assert_eq!(get(&second, "a").unwrap(), b"replaced");
    assert_eq!(get(&second, "a/b").unwrap(), b"below a file");
    assert_eq!(files(&dir), 3);
}

#[test]
fn after_a_crash_between_rename_and_removal_the_newer_wins() {
    let dir = tempfile::tempdir().unwrap();
    let first = store(&dir);
    put(&first, "k", b"old");
    let old = first.object_path("b", first.entry("b", "k").unwrap().unwrap().sequence);
    let copy = dir.path().join("old");
    fs::copy(&old, &copy).unwrap();
    put(&first, "k", b"new");
    drop(first);
    fs::copy(&copy, &old).unwrap();
    assert_eq!(files(&dir), 2);
    let second = store(&dir);
    assert_eq!(get(&second, "k").unwrap(), b"new");
    assert_eq!(files(&dir), 1);
}

#[test]
fn drafts_and_torn_files_are_no_objects() {
    let dir = tempfile::tempdir().unwrap();
    let first = store(&dir);
    put(&first, "k", b"good");
    let mut draft = first.begin().unwrap();
    draft.write(b"half").unwrap();
    std::mem::forget(draft);
    fs::create_dir_all(dir.path().join("buckets/b/77")).unwrap();
    fs::write(dir.path().join("buckets/b/77/0000000000000f77"), b"torn").unwrap();
    drop(first);
    let second = store(&dir);
    assert_eq!(
        second
            .list(
                "b",
                ListQuery {
                    limit: 9,
                    ..Default::default()
                }
            )
            .unwrap()
            .objects
            .len(),
        1
    );
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    put(&second, "l", b"x");
    assert!(second.entry("b", "l").unwrap().unwrap().sequence > 0xf77);
}

#[test]
fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = store(&dir);
    assert!(matches!(
        lock(dir.path(), Duration::ZERO),
        Err(StoreError::InUse(_))
    ));
}

#[test]
fn a_replaced_object_stays_readable_where_it_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    put(&store, "k", b"old");
    let (mut file, _) = store.open_object("b", "k").unwrap().unwrap();
    put(&store, "k", b"new");
    store.delete("b", "k").unwrap();
    let mut bytes = [0; 3];
    file.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"old");
    assert_eq!(get(&store, "k"), None);
    store.delete("b", "k").unwrap();
}

#[test]
fn only_new_refuses_an_existing_key() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    put(&store, "k", b"old");
    let draft = store.begin().unwrap();
    let record = record(
        "k",
        0,
        "e".into(),
        Checksums::default(),
        Attributes::default(),
    );
    assert!(matches!(
        store.commit("b", draft, record, true),
        Err(StoreError::Exists)
    ));
    assert_eq!(get(&store, "k").unwrap(), b"old");
}

fn index(keys: &[&str]) -> Index {
    let entry = Entry {
        sequence: 1,
        len: 0,
        e_tag: String::new(),
        modified_ms: 0,
    };
    keys.iter()
        .map(|k| (k.to_string(), entry.clone()))
        .collect()
}

/// All pages of a listing, groups and objects in order of appearance.
fn all_pages(index: &Index, prefix: &str, delimiter: Option<&str>, limit: usize) -> Vec<String> {
    let mut all = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let query = ListQuery {
            prefix,
            delimiter,
            after: after.as_deref(),
            limit,
        };
        let page = list(index, query);
        let mut names: Vec<String> = page.objects.into_iter().map(|(k, _)| k).collect();
        names.extend(page.common_prefixes);
        names.sort();
        assert!(names.len() <= limit);
        all.extend(names);
        match page.next {
            Some(next) => after = Some(next),
            None => return all,
        }
    }
}

#[test]
fn listings_group_and_page() {
    let index = index(&["a", "a-b", "a/1", "a/2", "a/x/3", "b/1", "c"]);
    for limit in 1..9 {
        assert_eq!(all_pages(&index, "", None, limit).len(), 7);
        assert_eq!(
            all_pages(&index, "", Some("/"), limit),
            ["a", "a-b", "a/", "b/", "c"]
        );
        assert_eq!(
            all_pages(&index, "a/", Some("/"), limit),
            ["a/1", "a/2", "a/x/"]
        );
        assert_eq!(
            all_pages(&index, "z", Some("/"), limit),
            Vec::<String>::new()
        );
    }
}
