use super::*;

fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let entries = entries
        .iter()
        .map(|&(tag, perm, id)| Entry { tag, perm, id });
    Acl(entries.collect()).encode()
}

const NONE: u32 = u32::MAX;

fn with_mask() -> Acl {
    let value = acl(&[
        (USER_OBJ, 7, NONE),
        (USER, 6, 1000),
        (USER, 4, 1001),
        (GROUP_OBJ, 5, NONE),
        (MASK, 6, NONE),
        (OTHER, 1, NONE),
    ]);
    Acl::parse(&value).unwrap().unwrap()
}

#[test]
fn golden_bytes_of_a_list() {
    let bytes = [
        2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 6, 0, 232, 3, 0, 0,
    ];
    assert_eq!(with_mask().encode()[..20], bytes);
}

#[test]
fn lists_that_linux_refuses_are_refused() {
    let three = [(USER_OBJ, 7, NONE), (GROUP_OBJ, 5, NONE), (OTHER, 0, NONE)];
    assert!(Acl::parse(&acl(&three)).unwrap().is_some());
    assert_eq!(Acl::parse(&acl(&[])), Ok(None));
    let refused = |entries: &[(u16, u16, u32)]| {
        assert_eq!(
            Acl::parse(&acl(entries)),
            Err(FsError::Invalid),
            "{entries:?}"
        );
    };
    refused(&three[..2]);
    refused(&[three[0], (USER, 7, 5), three[1], three[2]]);
    refused(&[three[1], three[0], three[2]]);
    refused(&[three[0], three[0], three[1], three[2]]);
    refused(&[(USER_OBJ, 8, NONE), three[1], three[2]]);
    refused(&[three[0], three[1], (3, 1, NONE), three[2]]);
    let mut other = acl(&three);
    assert_eq!(Acl::parse(&other[..other.len() - 1]), Err(FsError::Invalid));
    assert_eq!(Acl::parse(&other[..3]), Err(FsError::Invalid));
    other[0] = 1;
    assert_eq!(Acl::parse(&other), Err(FsError::Unsupported));
}

#[test]
fn the_group_bits_are_the_mask_where_there_is_one() {
    let mut list = with_mask();
    assert_eq!(list.mode(0o4000), 0o4761);
    list.follow(0o640);
    assert_eq!(list.mode(0), 0o640);
    assert!(list.0.contains(&Entry {
        tag: GROUP_OBJ,
        perm: 5,
        id: NONE
    }));
    let three = acl(&[(USER_OBJ, 7, NONE), (GROUP_OBJ, 5, NONE), (OTHER, 0, NONE)]);
    let mut three = Acl::parse(&three).unwrap().unwrap();
    three.follow(0o604);
    assert_eq!((three.mode(0), three.says_more()), (0o604, false));
}

#[test]
fn what_is_inherited_is_limited_by_the_mode_it_is_made_with() {
    let mut list = with_mask();
    assert_eq!(list.limit(0o2640), 0o2640);
    assert_eq!(with_mask().limit(0o666), 0o660);
    assert!(list.says_more());
}
