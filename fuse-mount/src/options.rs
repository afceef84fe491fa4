//! The list after `-o`, as mount(8) and fstab give it.

use crate::config::{LogLevel, MountConfig};
use crate::failure::Failure;
use lagan_host::log::LogFormat;
use lagan_host::units::{UnitError, parse_duration, parse_size};

/// Puts the options of a comma-separated list into the settings; later ones win.
///
/// # Errors
/// One line that names the option.
pub(crate) fn apply(config: &mut MountConfig, list: &str) -> Result<(), Failure> {
    for option in list.split(',').filter(|o| !o.is_empty()) {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        };
        let known = match value {
            None => flag(config, name),
            Some(value) => pair(config, name, value)
                .map_err(|e| Failure::usage(format!("option {name}: {e}")))?,
        };
        if !known && !of_mount(name) {
            return Err(Failure::usage(format!("unknown option `{option}`")));
        }
    }
    Ok(())
}

/// Options without a value; whether it is one.
fn flag(config: &mut MountConfig, name: &str) -> bool {
    match name {
        "ro" => config.read_only = true,
        "rw" => config.read_only = false,
        "suid" => config.suid = true,
        "nosuid" => config.suid = false,
        "dev" => config.dev = true,
        "nodev" => config.dev = false,
        "exec" => config.exec = true,
        "noexec" => config.exec = false,
        "allow_other" => config.allow_other = true,
        "noallow_other" => config.allow_other = false,
        "noatime" => config.no_atime = true,
        "atime" | "relatime" => config.no_atime = false,
        "nodiratime" => config.no_dir_atime = true,
        "diratime" => config.no_dir_atime = false,
        "locallocks" => config.local_locks = true,
        "nolocallocks" => config.local_locks = false,
        "readdirplus" => config.readdirplus = true,
        "noreaddirplus" => config.readdirplus = false,
        _ => return false,
    }
    true
}

/// Options with a value; whether it is one.
fn pair(config: &mut MountConfig, name: &str, value: &str) -> Result<bool, String> {
    match name {
        "timeout" => config.timeout = parse_duration(value).map_err(text)?,
        "write_buffer" => config.write_buffer_bytes = parse_size(value).map_err(text)?,
        "read_ahead" => config.read_ahead_bytes = parse_size(value).map_err(text)?,
        "run_dir" => config.run_dir = Some(value.into()),
        "bind" => config.bind = Some(value.parse().map_err(|_| not(value, "an address"))?),
        "max_background" => {
            config.max_background = value.parse().map_err(|_| not(value, "a number"))?;
        }
        "log_level" => {
            config.log.level = match value {
                "error" => LogLevel::Error,
                "warn" => LogLevel::Warn,
                "info" => LogLevel::Info,
                "debug" => LogLevel::Debug,
                "trace" => LogLevel::Trace,
                _ => return Err(not(value, "one of error, warn, info, debug, trace")),
            };
        }
        "log_format" => {
            config.log.format = match value {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                _ => return Err(not(value, "text or json")),
            };
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn text(error: UnitError) -> String {
    error.to_string()
}

fn not(value: &str, what: &str) -> String {
    format!("`{value}` is not {what}")
}

/// Options that mount(8), fstab and systemd use themselves, and those that
/// describe what this file system does anyway.
fn of_mount(name: &str) -> bool {
    matches!(
        name,
        "defaults"
            | "auto"
            | "noauto"
            | "user"
            | "nouser"
            | "users"
            | "owner"
            | "group"
            | "nofail"
            | "_netdev"
            | "async"
            | "default_permissions"
            | "comment"
    ) || name.starts_with("x-")
        || name.starts_with("X-")
}

#[cfg(test)]
mod tests {
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
}
