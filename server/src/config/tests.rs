use super::*;

const GOOD: &str = r#"
name = "server-1"
data = "/var/lib/lagan"
listen = "127.0.0.1:7701"
peer_listen = "127.0.0.1:7702"
http = "127.0.0.1:7703"
"#;

fn refusal(extra: &str) -> String {
    Config::parse(&format!("{GOOD}{extra}\n")).expect_err("must be refused")
}

#[test]
fn defaults_fill_what_is_left_out() {
    let config = Config::parse(GOOD).expect("good configuration");
    assert_eq!(config.segment_len, Size(64 << 20));
    assert_eq!(config.bind_from(), config.peer_listen.ip());
}

#[test]
fn unknown_key_is_named_with_its_line() {
    let text = refusal("colour = \"red\"");
    assert!(text.starts_with("7: ") && text.contains("colour"), "{text}");
}

#[test]
fn wrong_size_is_named_with_its_line() {
    let text = refusal("cache = \"12 parsecs\"");
    assert!(
        text.starts_with("7: ") && text.contains("cache") && text.contains("unit"),
        "{text}"
    );
}

#[test]
fn value_out_of_bounds_is_named_with_its_line() {
    let good = |from: &str, to: &str| GOOD.replace(from, to);
    for (text, told) in [
        (good("127.0.0.1:7701", "0.0.0.0:7701"), "4: listen: "),
        (good("127.0.0.1:7703", "[::]:7703"), "6: http: "),
        (
            good("7703", "7702"),
            "6: http: 127.0.0.1:7702 is the address of peer_listen",
        ),
        (good("server-1", ""), "2: name: "),
        (format!("{GOOD}segment_len = 5\n"), "7: segment_len: "),
        (
            format!("{GOOD}log_segment_len = \"2GiB\"\n"),
            "7: log_segment_len: ",
        ),
        (format!("{GOOD}\nuploads = 0\n"), "8: uploads: "),
        (
            format!("{GOOD}[s3]\naccess_key = \"a\"\n"),
            "8: s3.access_key: ",
        ),
        (
            format!("{GOOD}[s3]\nsecret_key = \"hush\"\n"),
            "8: s3.secret_key: ",
        ),
    ] {
        let error = Config::parse(&text).expect_err("refused");
        assert!(error.starts_with(told), "{error}");
        assert!(!error.contains("hush"), "{error}");
    }
}

#[test]
fn mistakes_do_not_show_the_secret() {
    for (extra, line) in [
        ("[s3]\nsecretkey = \"hush\"", "8: "),
        ("[s3]\nsecret_key = \"hush", "8: "),
        ("[s3]\nsecret_key = hush", "8: "),
        ("[s3]\nsecret_key \"hush\"", "8: "),
        ("[s3]\nsecret_key = [\"hush\"]", "8: "),
        ("[s3]\npath_style = \"hush\"", "8: "),
        ("s3 = \"access:hush\"", "7: "),
        ("secret_key = \"hush\"", "7: "),
    ] {
        let text = refusal(extra);
        assert!(!text.contains("hush"), "{text}");
        assert!(text.starts_with(line), "{extra}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}
