use super::*;
use tokio::io::duplex;

/// The version that two of this build choose.
const OURS: u16 = PROTOCOL_VERSIONS.1;

fn hello() -> Hello {
    Hello {
        role: Role::Server,
        incarnation: Some(Incarnation(7)),
        node: Some(NodeId(2)),
        store: Some(StoreId(9)),
        boot: 3,
        service: Service::Raft,
        build: "x".to_owned(),
    }
}

/// Returns the answer of the server's side to these bytes.
async fn answer_to(bytes: &[u8]) -> Result<(u16, Hello), HandshakeError> {
    let (mut near, mut far) = duplex(64 * 1024);
    near.write_all(bytes).await.unwrap();
    near.shutdown().await.unwrap();
    answer(&mut far, |_| Ok(hello())).await
}

#[test]
fn hello_bytes_are_golden() {
    assert_eq!(
        message(1, 1, &hello().encode()),
        [
            b'L', b'A', b'G', b'N', 1, 0, 1, 0, 11, 0, 0, 0, 229, 137, 176, 17, 1, 1, 7, 1, 2, 1,
            9, 3, 5, 1, b'x'
        ]
    );
}

#[tokio::test]
async fn both_sides_learn_who_the_other_is() {
    let (mut near, mut far) = duplex(64 * 1024);
    let mut server = hello();
    server.boot = 55;
    let answered = server.clone();
    let asked = hello();
    let (opened, accepted) =
        tokio::join!(open(&mut near, &asked), answer(&mut far, |_| Ok(answered)));
    assert_eq!(opened.unwrap(), (OURS, server));
    assert_eq!(accepted.unwrap(), (OURS, hello()));
}

#[tokio::test]
async fn a_refusal_carries_its_reason() {
    let (mut near, mut far) = duplex(64 * 1024);
    let asked = hello();
    let (opened, _) = tokio::join!(
        open(&mut near, &asked),
        answer(&mut far, |_| Err("not today".to_owned()))
    );
    assert!(matches!(opened, Err(HandshakeError::Refused(r)) if r == "not today"));
}

#[tokio::test]
async fn a_server_of_another_incarnation_is_refused_by_the_opener() {
    let (mut near, mut far) = duplex(64 * 1024);
    let mut other = hello();
    other.incarnation = Some(Incarnation(8));
    let asked = hello();
    let (opened, _) = tokio::join!(open(&mut near, &asked), answer(&mut far, |_| Ok(other)));
    assert!(matches!(opened, Err(HandshakeError::Refused(_))));
}

#[tokio::test]
async fn wrong_bytes_are_told_apart() {
    let good = message(OURS, OURS, &hello().encode());
    assert!(answer_to(&good).await.is_ok());

    let mut bytes = good.clone();
    bytes[0] = b'X';
    assert!(matches!(
        answer_to(&bytes).await,
        Err(HandshakeError::Magic(_))
    ));
    let mut bytes = good.clone();
    bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(
        answer_to(&bytes).await,
        Err(HandshakeError::TooLong(_))
    ));
    let mut bytes = good.clone();
    *bytes.last_mut().unwrap() ^= 1;
    assert!(matches!(
        answer_to(&bytes).await,
        Err(HandshakeError::Checksum)
    ));
    let future = message(90, 99, &hello().encode());
    assert!(matches!(
        answer_to(&future).await,
        Err(HandshakeError::Version((90, 99)))
    ));
    for len in 0..good.len() {
        assert!(matches!(
            answer_to(&good[..len]).await,
            Err(HandshakeError::Io(_))
        ));
    }
}

#[tokio::test]
async fn opener_of_another_build_is_told_which_side_speaks_what() {
    let (mut near, mut far) = duplex(64 * 1024);
    let future = message(90, 99, &hello().encode());
    near.write_all(&future).await.unwrap();
    let _ = answer(&mut far, |_| Ok(hello())).await;
    let (_, verdict, reason) = read_message(&mut near).await.unwrap();
    assert_eq!(verdict, 1);
    let (least, most) = PROTOCOL_VERSIONS;
    let told = format!("this server speaks protocol versions {least}-{most}, you speak 90-99: ");
    assert!(String::from_utf8(reason).unwrap().starts_with(&told));
}

#[tokio::test]
async fn fields_of_a_later_build_are_skipped() {
    let mut body = hello().encode();
    body.extend_from_slice(b"more to come");
    let (version, theirs) = answer_to(&message(1, OURS, &body)).await.unwrap();
    assert_eq!((version, theirs), (OURS, hello()));
}

#[tokio::test]
async fn unknown_roles_are_refused() {
    let mut body = hello().encode();
    body[0] = 77;
    let got = answer_to(&message(OURS, OURS, &body)).await;
    assert!(matches!(got, Err(HandshakeError::Malformed(_))));
}

#[test]
fn each_role_asks_what_it_may() {
    use lagan_types::Asker::{Anybody, Leader, Operator, Server};
    let askers = [Anybody, Operator, Server, Leader];
    let may = |role: Role| askers.map(|asker| role.may_ask(asker));
    assert_eq!(may(Role::Mount), [true, false, false, false]);
    assert_eq!(may(Role::Admin), [true, true, false, false]);
    assert_eq!(may(Role::Server), [true, true, true, false]);
}
