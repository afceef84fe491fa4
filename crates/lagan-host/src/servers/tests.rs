use super::*;

#[test]
fn servers_have_addresses_or_names() {
    for good in [
        "10.0.0.1:7700",
        "[::1]:7700",
        "::1:7700",
        "store1:7700",
        "store_1:7700",
        "a.b-c.example:1",
        "a:65535",
        "größe.example:1",
        "fe80::1%eth0:7700",
        "fe80::1%br-lan.100:7700",
        "fe80::1%2:7700",
        "[fe80::1%2]:7700",
    ] {
        assert_eq!(check(good), Ok(()), "{good}");
    }
    for bad in [
        "",
        "10.0.0.1",
        "store1",
        ":7700",
        "store1:",
        "store1:0",
        "10.0.0.1:0",
        "a b:1",
        " a:1",
        "a/b:1",
        "a,b:1",
        "a:b:1",
        "a:70000",
        "http://a:1",
        "[::1:7700",
        "fe80::1%:7700",
        "fe80::1%eth0",
        "fe80::1%eth0:0",
        "fe80::1%e/0:7700",
        "fe80::1%a%b:7700",
        "store1%eth0:7700",
    ] {
        let wrong = check(bad).unwrap_err();
        assert_eq!(wrong, NotAnAddress(bad.into()));
        assert!(wrong.to_string().contains("ip:port or name:port"));
    }
}

#[tokio::test]
async fn names_are_looked_up_and_unknown_ones_told_apart() {
    let servers = ["localhost:7700", "no-such-host.invalid:7700", "10.0.0.1:1"];
    let servers: Vec<String> = servers.map(String::from).into();
    let found = look_up(&servers).await;
    let names: Vec<&String> = found.iter().map(|(server, _)| server).collect();
    assert_eq!(names, Vec::from_iter(&servers));
    let local = found[0].1.as_ref().unwrap();
    assert!(
        local
            .iter()
            .all(|a| a.ip().is_loopback() && a.port() == 7700)
    );
    let unknown = found[1].1.as_ref().unwrap_err();
    assert!(matches!(unknown, LookUpError::Unknown { .. }), "{unknown}");
    assert!(unknown.to_string().contains(&servers[1]), "{unknown}");
    assert_eq!(
        *found[2].1.as_ref().unwrap(),
        ["10.0.0.1:1".parse().unwrap()]
    );
    let in_zone = look_up_one("fe80::1%lo:7700").await.unwrap();
    let [SocketAddr::V6(in_zone)] = in_zone[..] else {
        panic!("{in_zone:?}");
    };
    assert!(in_zone.scope_id() != 0 && in_zone.port() == 7700);
    let wrong = look_up_one("nonsense").await.unwrap_err();
    assert!(matches!(wrong, LookUpError::NotAnAddress(_)), "{wrong}");
}
