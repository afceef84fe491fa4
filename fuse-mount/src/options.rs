//! The table of mount options. `--help`, `-o` and the keys of `mount.toml` follow from it.
//!
//! To add an option: a row here, a field with its default in [`MountConfig`], and a row in
//! docs/OPERATIONS.md, which a test compares with this table.

use crate::config::{LogLevel, MountConfig};
use crate::failure::Failure;
use lagan_host::log::LogFormat;
use lagan_host::units::{Size, Span, UnitError, parse_duration, parse_size};
use serde::de::value::StrDeserializer;
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, IntoDeserializer};
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

#[cfg(test)]
mod tests;

/// One option.
pub(crate) struct MountOption {
    /// Key in `mount.toml`; `table.key` for one in a table.
    pub(crate) key: &'static str,
    how: How,
    /// One line for `--help`.
    help: &'static str,
}

/// How an option is given after `-o`, and the field of the settings that it sets.
enum How {
    /// Words that set the field to true, and words that set it to false. In `mount.toml` its
    /// value is a boolean.
    Words {
        on: &'static [&'static str],
        off: &'static [&'static str],
        place: fn(&mut MountConfig) -> &mut bool,
    },
    /// `name=value`.
    Value(&'static str, Place),
}

/// A field of the settings. The variant is the type of its value, after `-o` and in
/// `mount.toml`.
enum Place {
    Duration(fn(&mut MountConfig) -> &mut Duration),
    Size(fn(&mut MountConfig) -> &mut u64),
    Number(fn(&mut MountConfig) -> &mut u16),
    Path(fn(&mut MountConfig) -> &mut Option<PathBuf>),
    Ip(fn(&mut MountConfig) -> &mut Option<IpAddr>),
    Level(fn(&mut MountConfig) -> &mut LogLevel),
    Format(fn(&mut MountConfig) -> &mut LogFormat),
}

/// All options, in the order of `--help`.
pub(crate) static OPTIONS: &[MountOption] = &[
    value(
        "timeout",
        "timeout",
        Place::Duration(|c| &mut c.timeout),
        "every call is answered within about this, 1s to 24h",
    ),
    value(
        "write_buffer",
        "write_buffer",
        Place::Size(|c| &mut c.write_buffer_bytes),
        "written bytes of all files that may wait, 4MiB to 16GiB",
    ),
    value(
        "read_ahead",
        "read_ahead",
        Place::Size(|c| &mut c.read_ahead_bytes),
        "the kernel's read-ahead, 4KiB to 64MiB",
    ),
    value(
        "max_background",
        "max_background",
        Place::Number(|c| &mut c.max_background),
        "read-ahead requests at the same time, 1 to 65535",
    ),
    value(
        "bind",
        "bind",
        Place::Ip(|c| &mut c.bind),
        "address that outgoing connections come from",
    ),
    value(
        "run_dir",
        "run_dir",
        Place::Path(|c| &mut c.run_dir),
        "directory of lock, session and log",
    ),
    words(
        "lease",
        (&["lease"], &["nolease"]),
        |c| &mut c.lease,
        "names and attributes are remembered while nobody else changes them",
    ),
    words(
        "locallocks",
        (&["locallocks"], &["nolocallocks"]),
        |c| &mut c.local_locks,
        "locks are known to this mount only",
    ),
    words(
        "allow_other",
        (&["allow_other"], &["noallow_other"]),
        |c| &mut c.allow_other,
        "users other than root may enter",
    ),
    words(
        "read_only",
        (&["ro"], &["rw"]),
        |c| &mut c.read_only,
        "nothing can be changed through this mount",
    ),
    words(
        "suid",
        (&["suid"], &["nosuid"]),
        |c| &mut c.suid,
        "set-user-id and set-group-id bits work",
    ),
    words(
        "dev",
        (&["dev"], &["nodev"]),
        |c| &mut c.dev,
        "device nodes work",
    ),
    words(
        "exec",
        (&["exec"], &["noexec"]),
        |c| &mut c.exec,
        "files can be executed",
    ),
    words(
        "noatime",
        (&["noatime"], &["atime", "relatime"]),
        |c| &mut c.no_atime,
        "reading moves no access times",
    ),
    words(
        "nodiratime",
        (&["nodiratime"], &["diratime"]),
        |c| &mut c.no_dir_atime,
        "reading moves no access times of directories",
    ),
    words(
        "readdirplus",
        (&["readdirplus"], &["noreaddirplus"]),
        |c| &mut c.readdirplus,
        "directory listings bring attributes along",
    ),
    value(
        "log.level",
        "log_level",
        Place::Level(|c| &mut c.log.level),
        "error, warn, info, debug or trace",
    ),
    value(
        "log.format",
        "log_format",
        Place::Format(|c| &mut c.log.format),
        "text or json",
    ),
];

/// Options that mount(8), fstab and systemd use themselves, and some that say what this
/// file system does anyway. They are accepted and change nothing, like all that begin with
/// one of [`IGNORED_PREFIXES`].
pub(crate) const IGNORED: &[&str] = &[
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "nofail",
    "_netdev",
    "async",
    "default_permissions",
    "comment",
];
/// See [`IGNORED`].
pub(crate) const IGNORED_PREFIXES: &[&str] = &["x-", "X-"];

const fn value(
    key: &'static str,
    name: &'static str,
    place: Place,
    help: &'static str,
) -> MountOption {
    MountOption {
        key,
        how: How::Value(name, place),
        help,
    }
}

/// `names`: the words that set true, and those that set false.
const fn words(
    key: &'static str,
    names: (&'static [&'static str], &'static [&'static str]),
    place: fn(&mut MountConfig) -> &mut bool,
    help: &'static str,
) -> MountOption {
    let (on, off) = names;
    MountOption {
        key,
        how: How::Words { on, off, place },
        help,
    }
}

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
        let mut known = is_ignored(name);
        for row in OPTIONS {
            known |= row
                .give(config, name, value)
                .map_err(|e| Failure::usage(format!("option {name}: {e}")))?;
        }
        if !known {
            return Err(Failure::usage(format!("unknown option `{option}`")));
        }
    }
    Ok(())
}

fn is_ignored(name: &str) -> bool {
    IGNORED.contains(&name) || IGNORED_PREFIXES.iter().any(|p| name.starts_with(p))
}

/// The option with that key in `mount.toml`.
pub(crate) fn by_key(key: &str) -> Option<&'static MountOption> {
    OPTIONS.iter().find(|option| option.key == key)
}

/// All options, for `--help`: a line for each, and those that change nothing.
pub(crate) fn help() -> String {
    let mut text = String::new();
    for option in OPTIONS {
        let in_file = match option.how {
            How::Value(name, _) if name == option.key => String::new(),
            How::Words { on: [name], .. } if *name == option.key => String::new(),
            _ => format!("; in FILE: {}", option.key),
        };
        let (names, default) = (option.shown_names(), option.shown_default());
        text.push_str(&format!(
            "  {names:<23} {} [{default}]{in_file}\n",
            option.help
        ));
    }
    text.push_str("accepted and without effect:\n");
    let prefixes = IGNORED_PREFIXES.iter().map(|prefix| format!("{prefix}..."));
    let ignored = IGNORED.iter().map(ToString::to_string).chain(prefixes);
    for words in Vec::from_iter(ignored).chunks(8) {
        text.push_str(&format!("  {}\n", words.join(" ")));
    }
    text
}

impl MountOption {
    /// Sets the field if this is the option's name, and says whether it is.
    fn give(
        &self,
        config: &mut MountConfig,
        name: &str,
        value: Option<&str>,
    ) -> Result<bool, String> {
        match (&self.how, value) {
            (How::Words { on, off, place }, None) => {
                let (is_on, is_off) = (on.contains(&name), off.contains(&name));
                if is_on || is_off {
                    *place(config) = is_on;
                }
                Ok(is_on || is_off)
            }
            (How::Value(own, place), Some(value)) if *own == name => {
                place.read(config, value)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// `name=TYPE`, or the words.
    fn shown_names(&self) -> String {
        match &self.how {
            How::Value(name, place) => format!("{name}={}", place.kind()),
            How::Words { on, off, .. } => [*on, *off].concat().join(" "),
        }
    }

    /// The default, as it is given after `-o`.
    fn shown_default(&self) -> String {
        let mut defaults = MountConfig::new(Vec::new(), String::new(), PathBuf::new());
        match &self.how {
            How::Value(_, place) => place.show(&mut defaults),
            How::Words { on, off, place } => {
                let words = if *place(&mut defaults) { on } else { off };
                words.join(" ")
            }
        }
    }
}

impl Place {
    /// The word that stands for the value in `--help`.
    fn kind(&self) -> &'static str {
        match self {
            Place::Duration(_) => "TIME",
            Place::Size(_) => "SIZE",
            Place::Number(_) => "NUMBER",
            Place::Path(_) => "DIR",
            Place::Ip(_) => "IP",
            Place::Level(_) => "LEVEL",
            Place::Format(_) => "FORMAT",
        }
    }

    /// Sets the field from a text, as it is given after `-o`.
    fn read(&self, config: &mut MountConfig, value: &str) -> Result<(), String> {
        match self {
            Place::Duration(place) => *place(config) = parse_duration(value).map_err(text)?,
            Place::Size(place) => *place(config) = parse_size(value).map_err(text)?,
            Place::Number(place) => *place(config) = parse(value, "a number that fits")?,
            Place::Path(place) => *place(config) = Some(value.into()),
            Place::Ip(place) => *place(config) = Some(parse(value, "an IP address")?),
            Place::Level(place) => *place(config) = one_of(value)?,
            Place::Format(place) => *place(config) = one_of(value)?,
        }
        Ok(())
    }

    /// Sets the field from a value of `mount.toml`.
    fn load<'de, D: Deserializer<'de>>(
        &self,
        config: &mut MountConfig,
        d: D,
    ) -> Result<(), D::Error> {
        match self {
            Place::Duration(place) => *place(config) = Span::deserialize(d)?.0,
            Place::Size(place) => *place(config) = Size::deserialize(d)?.0,
            Place::Number(place) => *place(config) = u16::deserialize(d)?,
            Place::Path(place) => *place(config) = Some(PathBuf::deserialize(d)?),
            Place::Ip(place) => *place(config) = Some(IpAddr::deserialize(d)?),
            Place::Level(place) => *place(config) = LogLevel::deserialize(d)?,
            Place::Format(place) => *place(config) = LogFormat::deserialize(d)?,
        }
        Ok(())
    }

    /// The value in these settings, as it is given after `-o`.
    fn show(&self, config: &mut MountConfig) -> String {
        match self {
            Place::Duration(place) => format!("{}s", place(config).as_secs()),
            Place::Size(place) => exact_size(*place(config)),
            Place::Number(place) => place(config).to_string(),
            Place::Path(place) => match place(config) {
                Some(path) => path.display().to_string(),
                None => "/run/lagan/MOUNT-POINT".into(),
            },
            Place::Ip(place) => place(config).map_or("none".into(), |ip| ip.to_string()),
            Place::Level(place) => place(config).name().into(),
            Place::Format(place) => match place(config) {
                LogFormat::Text => "text".into(),
                LogFormat::Json => "json".into(),
            },
        }
    }
}

fn text(error: UnitError) -> String {
    error.to_string()
}

fn parse<T: FromStr>(value: &str, what: &str) -> Result<T, String> {
    value
        .parse()
        .map_err(|_| format!("`{value}` is not {what}"))
}

/// One of the words that `T` has in `mount.toml`.
fn one_of<'a, T: Deserialize<'a>>(word: &'a str) -> Result<T, String> {
    let word: StrDeserializer<'a, de::value::Error> = word.into_deserializer();
    T::deserialize(word).map_err(|e| e.to_string())
}

/// Writes a size with the largest unit that leaves a whole number.
fn exact_size(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = UNITS
        .iter()
        .find(|(_, shift)| bytes.trailing_zeros() >= *shift);
    match unit {
        Some((unit, shift)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    }
}

/// Reads an option's value from `mount.toml` into the settings.
pub(crate) struct FromFile<'a>(
    pub(crate) &'static MountOption,
    pub(crate) &'a mut MountConfig,
);

impl<'de> DeserializeSeed<'de> for FromFile<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        let FromFile(option, config) = self;
        match &option.how {
            How::Words { place, .. } => {
                *place(config) = bool::deserialize(d)?;
                Ok(())
            }
            How::Value(_, place) => place.load(config, d),
        }
    }
}
