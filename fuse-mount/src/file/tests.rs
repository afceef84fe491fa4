use super::*;
use lagan_host::log::LogFormat;
use std::time::Duration;

const WHOLE: &str = r#"
servers = ["10.0.0.1:7000", "10.0.0.2:7000"]
volume = "mail"
mount_point = "/srv/mail"
run_dir = "/run/x"
bind = "10.0.0.9"
timeout = "30s"
write_buffer = "16MiB"
locallocks = true
allow_other = false
read_only = true
noatime = true
nodiratime = true
max_background = 100
log = { format = "json", level = "debug" }
"#;

#[test]
fn a_whole_file_is_understood() {
    let c = parse(WHOLE).unwrap();
    assert_eq!(c.servers.len(), 2);
    assert_eq!(c.volume, "mail");
    assert_eq!(c.timeout, Duration::from_secs(30));
    assert_eq!(c.write_buffer_bytes, 16 << 20);
    assert!(c.local_locks && !c.allow_other && c.read_only);
    assert!(c.no_atime && c.no_dir_atime);
    assert_eq!(c.log.format, LogFormat::Json);
    assert_eq!(c.source(), "10.0.0.1:7000,10.0.0.2:7000:/mail");
}

#[test]
fn defaults_fill_a_short_file() {
    let c = parse("servers = [\"a:1\"]\nmount_point = \"/m\"\n").unwrap();
    let defaults = MountConfig::new(vec!["a:1".into()], "vol".into(), "/m".into());
    assert_eq!(c, defaults);
    assert!(c.allow_other && !c.local_locks);
}

fn refused(text: &str, line: &str, key: &str) {
    let error = parse(text).unwrap_err();
    assert!(error.starts_with(line), "{error}");
    assert!(error.contains(key), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn errors_name_line_and_key() {
    let start = "servers = [\"a:1\"]\nmount_point = \"/m\"\n";
    refused(&format!("{start}colour = 1\n"), "3:", "colour");
    refused(&format!("{start}timeout = \"2\"\n"), "3:", "duration");
    refused(&format!("{start}timeout = \"0s\"\n"), "3:", "timeout");
    refused(
        &format!("{start}log = {{ level = \"loud\" }}\n"),
        "3:",
        "loud",
    );
    refused(
        &format!("{start}write_buffer = \"1k\"\n"),
        "3:",
        "write_buffer",
    );
    refused("servers = [\"a\"]\nmount_point = \"/m\"\n", "1:", "servers");
    refused("servers = []\nmount_point = \"/m\"\n", "1:", "servers");
    refused("servers = [\"a:1\"]\n", "1:", "mount_point");
    refused("servers = [", "1:", "");
}

#[test]
fn each_option_has_its_key() {
    let text = "servers = [\"a:1\"]\nmount_point = \"/m\"\n";
    for key in known_keys(None).split_off(3) {
        // No option takes a number with a fraction: the key is known, its value is wrong.
        let error = parse(&format!("{text}{key} = 0.5\n")).unwrap_err();
        assert!(error.contains(key) && !error.contains("unknown"), "{error}");
    }
    let error = parse(&format!("{text}[log]\ncolour = 1\n")).unwrap_err();
    assert!(
        error.starts_with("4:") && error.contains("level"),
        "{error}"
    );
    let error = parse(&format!("{text}\"log.level\" = \"info\"\n")).unwrap_err();
    assert!(error.starts_with("3:"), "{error}");
}

#[test]
fn sizes_may_be_integers() {
    let text = "servers = [\"a:1\"]\nmount_point = \"/m\"\nread_ahead = 65536\n";
    assert_eq!(parse(text).unwrap().read_ahead_bytes, 65536);
}
