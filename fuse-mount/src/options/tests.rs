use super::*;

fn with(list: &str) -> Result<MountConfig, Failure> {
    let mut config = MountConfig::new(vec!["a:1".into()], "v".into(), "/m".into());
    apply(&mut config, list)?;
    Ok(config)
}

#[test]
fn options_set_what_they_name() {
    let c = with("ro,nosuid,,locallocks,timeout=5s,bind=127.0.0.1,max_background=7").unwrap();
    assert!(c.read_only && !c.suid && c.local_locks);
    assert_eq!(c.timeout.as_secs(), 5);
    assert_eq!(c.max_background, 7);
    assert_eq!(c.bind, Some([127, 0, 0, 1].into()));
    assert!(!with("ro,rw").unwrap().read_only);
    assert!(with("defaults,_netdev,x-systemd.requires=a,noauto").is_ok());
}

#[test]
fn access_times_are_relatime_unless_told_otherwise() {
    use lagan_client::AccessTimes;
    for (list, whose) in [
        ("", AccessTimes::All),
        ("noatime", AccessTimes::None),
        ("nodiratime", AccessTimes::NoDirectories),
        ("noatime,nodiratime", AccessTimes::None),
        ("noatime,relatime", AccessTimes::All),
        ("nodiratime,diratime,atime", AccessTimes::All),
        ("ro", AccessTimes::None),
    ] {
        assert_eq!(with(list).unwrap().access_times(), whose, "{list}");
    }
}

#[test]
fn unknown_options_and_values_are_refused() {
    for (list, word) in [
        ("ro,colour", "colour"),
        ("colour=red", "colour=red"),
        ("timeout=5", "timeout"),
        ("bind=here", "bind"),
        ("log_level=loud", "log_level"),
        ("strictatime", "strictatime"),
    ] {
        let failure = with(list).unwrap_err();
        assert!(failure.to_string().contains(word), "{failure}");
        assert_eq!(failure.status(), 2);
    }
}

#[test]
fn names_and_keys_mean_one_thing_each() {
    let mut seen: Vec<&str> = Vec::from(IGNORED);
    for option in OPTIONS {
        match &option.how {
            How::Value(name, _) => seen.push(name),
            How::Words { on, off, .. } => seen.extend([*on, *off].concat()),
        }
    }
    let count = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), count);
    for option in OPTIONS {
        assert!(std::ptr::eq(by_key(option.key).unwrap(), option));
    }
}

#[test]
fn every_default_is_understood_and_changes_nothing() {
    let defaults = with("").unwrap();
    for option in OPTIONS {
        let default = option.shown_default();
        if default == "none" || default.contains("MOUNT-POINT") {
            continue;
        }
        for word in default.split(' ') {
            let given = match &option.how {
                How::Value(name, _) => format!("{name}={word}"),
                How::Words { .. } => word.to_owned(),
            };
            assert_eq!(with(&given).unwrap(), defaults, "{given}");
        }
    }
}

#[test]
fn help_names_all_that_is_accepted() {
    let help = help();
    let names: Vec<&str> = help.split([' ', '\n', '=']).collect();
    for option in OPTIONS {
        match &option.how {
            How::Value(name, _) => assert!(names.contains(name), "{name}"),
            How::Words { on, off, .. } => {
                for word in on.iter().chain(*off) {
                    assert!(names.contains(word), "{word}");
                }
            }
        }
    }
    for word in IGNORED {
        assert!(names.contains(word), "{word}");
    }
    assert!(help.lines().all(|line| line.len() <= 100), "{help}");
}

/// Cells of the rows of the table of mount options in docs/OPERATIONS.md: key, option, default.
fn documented() -> (Vec<[String; 3]>, String) {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/OPERATIONS.md");
    let text = std::fs::read_to_string(file).unwrap();
    let (_, rest) = text
        .split_once("## mount.toml and mount options\n")
        .unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let rows = rows.map(|row| {
        let mut cells = row.split('|').skip(1).map(|cell| cell.trim().to_owned());
        std::array::from_fn(|_| cells.next().unwrap())
    });
    (rows.collect(), section.to_owned())
}

#[test]
fn operations_has_each_option_with_its_default() {
    let (rows, section) = documented();
    let expected = OPTIONS.iter().map(|option| {
        let key = match option.key.split_once('.') {
            Some((table, key)) => format!("`[{table}] {key}`"),
            None => format!("`{}`", option.key),
        };
        let mut defaults = with("").unwrap();
        match &option.how {
            How::Value(name, place) => {
                let default = match place.show(&mut defaults) {
                    none if none == "none" => none,
                    default => format!("`{default}`"),
                };
                [key, format!("`{name}=`"), default]
            }
            How::Words { on, off, place } => {
                let words = [*on, *off].concat().join("`, `");
                [
                    key,
                    format!("`{words}`"),
                    format!("`{}`", place(&mut defaults)),
                ]
            }
        }
    });
    let own = ["`servers`", "`volume`", "`mount_point`"];
    let rows: Vec<_> = rows
        .into_iter()
        .filter(|[key, ..]| !own.contains(&key.as_str()))
        .collect();
    assert_eq!(rows, Vec::from_iter(expected));
    for word in IGNORED {
        assert!(section.contains(&format!("`{word}`")), "{word}");
    }
    for prefix in IGNORED_PREFIXES {
        assert!(section.contains(&format!("`{prefix}...`")), "{prefix}");
    }
}
