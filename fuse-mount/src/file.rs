//! `mount.toml`: the settings of a mount in a file.
//!
//! Its keys are `servers`, `volume`, `mount_point`, and those of [`crate::options`]. An
//! unknown key is refused with its line.

use crate::config::MountConfig;
use crate::failure::Failure;
use crate::options::{self, FromFile, MountOption};
use lagan_types::Mistake;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use std::fmt;
use std::path::{Path, PathBuf};

#[cfg(test)]
mod tests;

/// Table of `mount.toml` that holds the options of the log.
const LOG: &str = "log";
/// The volume where the file names none.
const DEFAULT_VOLUME: &str = "vol";

/// Reads and checks a file.
///
/// # Errors
/// A line that names the file, the line and the key.
pub(crate) fn load(path: &Path) -> Result<MountConfig, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failure::usage(format!("read {}: {e}", path.display())))?;
    parse(&text).map_err(|e| Failure::usage(format!("{}:{e}", path.display())))
}

/// Reads and checks the text of a file. The error begins with the line's number.
pub(crate) fn parse(text: &str) -> Result<MountConfig, String> {
    let MountFile(config) = toml::from_str(text).map_err(|e| {
        let at = e.span().map(|span| span.start);
        Mistake::parsing(text, at, e.message()).to_string()
    })?;
    config
        .check()
        .map_err(|(key, e)| Mistake::value(text, key, &e).to_string())?;
    Ok(config)
}

/// The settings of the file over the defaults, not checked.
struct MountFile(MountConfig);

impl<'de> Deserialize<'de> for MountFile {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_map(FileVisitor)
    }
}

/// A key of the file.
enum Key {
    Servers,
    Volume,
    MountPoint,
    Log,
    Option(&'static MountOption),
}

/// Reads a key at the top (`None`), or in a table.
struct KeyOf(Option<&'static str>);

impl<'de> DeserializeSeed<'de> for KeyOf {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Key, D::Error> {
        d.deserialize_identifier(self)
    }
}

impl Visitor<'_> for KeyOf {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Key, E> {
        match (self.0, key) {
            (None, "servers") => return Ok(Key::Servers),
            (None, "volume") => return Ok(Key::Volume),
            (None, "mount_point") => return Ok(Key::MountPoint),
            (None, LOG) => return Ok(Key::Log),
            _ => {}
        }
        let found = match self.0 {
            // The keys of tables are found by their tables alone.
            None if key.contains('.') => None,
            None => options::by_key(key),
            Some(table) => options::by_key(&format!("{table}.{key}")),
        };
        found.map(Key::Option).ok_or_else(|| {
            let known = known_keys(self.0).join("`, `");
            E::custom(format_args!(
                "unknown field `{key}`, expected one of `{known}`"
            ))
        })
    }
}

/// All keys at the top (`None`), or in a table.
fn known_keys(table: Option<&str>) -> Vec<&'static str> {
    let options = options::OPTIONS.iter().map(|option| option.key);
    match table {
        None => ["servers", "volume", "mount_point", LOG]
            .into_iter()
            .chain(options.filter(|key| !key.contains('.')))
            .collect(),
        Some(table) => options
            .filter_map(|key| key.strip_prefix(table)?.strip_prefix('.'))
            .collect(),
    }
}

struct FileVisitor;

impl<'de> Visitor<'de> for FileVisitor {
    type Value = MountFile;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the settings of a mount")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MountFile, A::Error> {
        let mut config = MountConfig::new(Vec::new(), DEFAULT_VOLUME.into(), PathBuf::new());
        let (mut has_servers, mut has_point) = (false, false);
        while let Some(key) = map.next_key_seed(KeyOf(None))? {
            match key {
                Key::Servers => {
                    config.servers = map.next_value()?;
                    has_servers = true;
                }
                Key::MountPoint => {
                    config.mount_point = map.next_value()?;
                    has_point = true;
                }
                Key::Volume => config.volume = map.next_value()?,
                Key::Log => map.next_value_seed(LogTable(&mut config))?,
                Key::Option(option) => map.next_value_seed(FromFile(option, &mut config))?,
            }
        }
        match (has_servers, has_point) {
            (false, _) => Err(A::Error::missing_field("servers")),
            (true, false) => Err(A::Error::missing_field("mount_point")),
            (true, true) => Ok(MountFile(config)),
        }
    }
}

/// Reads the table `[log]` into the settings.
struct LogTable<'a>(&'a mut MountConfig);

impl<'de> DeserializeSeed<'de> for LogTable<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for LogTable<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table with format and level")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(KeyOf(Some(LOG)))? {
            if let Key::Option(option) = key {
                map.next_value_seed(FromFile(option, self.0))?;
            }
        }
        Ok(())
    }
}
