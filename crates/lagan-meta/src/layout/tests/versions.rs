//! Rows in versions that this build does not write.

use super::*;
use crate::layout::version::{Versioned, first_version, versions};
use lagan_types::codec::{Decode, Encode};

/// The first version of a made-up row: a width only.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "lagan_types::codec::bincode")]
struct SailV1 {
    width: u32,
}

first_version!(1: SailV1);

/// Its second version: both lengths.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "lagan_types::codec::bincode")]
struct SailV2 {
    width: u32,
    height: u32,
}

impl Versioned for SailV2 {
    const VERSION: u8 = 2;
    type Previous = SailV1;

    fn from_previous(SailV1 { width }: SailV1) -> Self {
        let height = width;
        SailV2 { width, height }
    }
}

/// Its current version; number 3 was never used.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "lagan_types::codec::bincode")]
struct Sail {
    area: u64,
}

impl Versioned for Sail {
    const VERSION: u8 = 4;
    type Previous = SailV2;

    fn from_previous(SailV2 { width, height }: SailV2) -> Self {
        let area = u64::from(width) * u64::from(height);
        Sail { area }
    }
}

fn read<T: Versioned>(value: &[u8]) -> Result<T, StoreError> {
    decode(Table::Object, value)
}

#[test]
fn row_is_written_in_its_version_and_read_in_all_before() {
    let sail = Sail { area: 12 };
    assert_eq!(encode(&sail), [4, 12]);
    assert_eq!(read::<Sail>(&[4, 12]).unwrap(), sail);
    assert_eq!(read::<Sail>(&[2, 3, 4]).unwrap(), sail);
    assert_eq!(read::<Sail>(&[1, 3]).unwrap(), Sail { area: 9 });
    let before = SailV2 {
        width: 3,
        height: 3,
    };
    assert_eq!(read::<SailV2>(&[1, 3]).unwrap(), before);
    assert_eq!(versions::<Sail>(), (1, 4));
    assert_eq!(versions::<SailV1>(), (1, 1));
}

#[test]
fn damage_in_an_old_row_is_no_unknown_version() {
    for value in [&[2, 3][..], &[2, 3, 4, 5], &[1], &[4], &[]] {
        let error = read::<Sail>(value).unwrap_err();
        assert!(matches!(error, StoreError::Malformed(..)), "{error}");
    }
}

#[test]
fn unknown_version_is_refused_by_name_with_what_to_do() {
    for (version, build, todo) in [
        (0, "an older build", "begin with an empty data directory"),
        (5, "a newer build", "start that build"),
    ] {
        let error = read::<Sail>(&[version, 1]).unwrap_err();
        let known = (Table::Object, version, 1, 4);
        assert!(
            matches!(error, StoreError::Version { table, found, oldest, newest }
                if (table, found, oldest, newest) == known),
            "{error:?}"
        );
        let text = error.to_string();
        let named =
            format!("table Object have version {version}, this build reads versions 1 to 4");
        for part in [named.as_str(), build, todo] {
            assert!(text.contains(part), "{text}");
        }
    }
    // A version that was left out is neither.
    assert!(read::<Sail>(&[3, 1]).is_err());
    let error = decode_raw(Table::Xattr, vec![1, 3]).unwrap_err();
    assert!(error.to_string().contains("this build reads version 2:"));
}

#[test]
fn state_of_another_build_is_refused_as_a_whole() {
    let mut store = MemoryStore::new();
    check_versions(&store).unwrap();
    let row = encode(&DentryRow {
        ino: Ino(1),
        kind: Kind::File,
        cookie: 1,
    });
    store.put(Table::Dentry, &key_name(5, b"a"), &row).unwrap();
    store
        .put(Table::Orphan, &key1(5), &encode_raw(&[]))
        .unwrap();
    check_versions(&store).unwrap();
    for (table, key, version) in [
        (Table::Dentry, 0, 1),
        (Table::Dentry, 9, 9),
        (Table::Orphan, 0, 3),
        (Table::Config, 0, 1),
        // Remembered answers of the build before.
        (Table::Answer, 9, 2),
    ] {
        let mut other = store.clone();
        other.put(table, &key1(key), &[version, 5]).unwrap();
        let error = check_versions(&other).unwrap_err();
        assert!(
            matches!(error, StoreError::Version { table: t, found, .. }
                if t == table && found == version),
            "{error:?}"
        );
    }
}
