use super::*;

fn run(args: &[&str]) -> Result<Action, Failure> {
    parse(args.iter().map(OsString::from).collect())
}

fn mount(args: &[&str]) -> Invocation {
    match run(args).unwrap() {
        Action::Mount(invocation) => *invocation,
        other => panic!("{other:?}"),
    }
}

#[test]
fn helper_convention_of_mount_is_followed() {
    let m = mount(&[
        "/sbin/mount.lagan",
        "10.0.0.1:7000,10.0.0.2:7001:/vol",
        "/mnt",
        "-nsv",
        "-o",
        "rw,noatime,timeout=30s,_netdev,x-systemd.automount",
    ]);
    assert!(!m.foreground);
    assert_eq!(m.config.servers, ["10.0.0.1:7000", "10.0.0.2:7001"]);
    assert_eq!(m.config.volume, "vol");
    assert_eq!(m.config.timeout.as_secs(), 30);
    assert!(
        mount(&["mount.lagan", "a:1:/v", "/m", "-r"])
            .config
            .read_only
    );
}

#[test]
fn f_is_fake_for_the_helper_and_foreground_otherwise() {
    assert_eq!(
        run(&["mount.lagan", "a:1:/v", "/m", "-f"]),
        Ok(Action::Fake)
    );
    assert!(mount(&["lagan-mount", "a:1:/v", "/m", "-f"]).foreground);
    assert!(!mount(&["lagan-mount", "a:1:/v", "/m"]).foreground);
}

#[test]
fn a_config_file_means_foreground_unless_told_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mount.toml");
    std::fs::write(&file, "servers = [\"a:1\"]\nmount_point = \"/m\"\n").unwrap();
    let file = file.to_str().unwrap();
    assert!(mount(&["lagan-mount", "--config", file]).foreground);
    assert!(mount(&["lagan-mount", "--config", file, "--foreground"]).foreground);
    assert!(!mount(&["lagan-mount", "--config", file, "--background"]).foreground);
    let wrong = run(&["lagan-mount", "--config", "/does/not/exist"]).unwrap_err();
    assert_eq!(wrong.status(), 2);
}

#[test]
fn wrong_arguments_are_named() {
    for (args, word) in [
        (&["lagan-mount"][..], "--help"),
        (&["lagan-mount", "a:1:/v"], "--help"),
        (&["lagan-mount", "a:1:/v", "/m", "/n"], "/n"),
        (&["lagan-mount", "a:1", "/m"], "a:1"),
        (&["lagan-mount", "a:1:/", "/m"], "a:1:/"),
        (&["lagan-mount", "a,b:1:/v", "/m"], "`a`"),
        (&["lagan-mount", "--colour", "a:1:/v", "/m"], "--colour"),
        (&["lagan-mount", "-q", "a:1:/v", "/m"], "-q"),
        (&["lagan-mount", "a:1:/v", "/m", "-o"], "-o"),
        (&["lagan-mount", "a:1:/v", "/m", "-o", "colour"], "colour"),
    ] {
        let failure = run(args).unwrap_err();
        assert_eq!(failure.status(), 2);
        let text = failure.to_string();
        assert!(text.contains(word), "{text}");
        assert_eq!(text.lines().count(), 1);
    }
}
