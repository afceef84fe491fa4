//! `lagan set`: shows and changes the configuration that all servers share.

use crate::admin::output::print_json;
use crate::exit::{Failure, OK, Outcome};
use crate::net::Cluster;
use lagan_host::units::parse_duration;
use lagan_types::cluster::{ArchiveConfig, Config};

/// Changes the configuration by `KEY=VALUE`s, or shows it.
///
/// # Errors
/// Status 2 for an unknown key or a value out of range; status 1 for another endpoint or
/// bucket while objects are in the present one, unless `force`; those of the cluster.
pub async fn run(cluster: &Cluster, changes: &[String], force: bool, json: bool) -> Outcome<u8> {
    let mut config = cluster.map().await?.config;
    if !changes.is_empty() {
        let old = config.clone();
        change(&mut config, changes)?;
        if !force && leaves_bucket(&old, &config) {
            check_bucket_empty(cluster).await?;
        }
        cluster.set_config(config.clone()).await?;
    }
    if json {
        print_json(&serde_json::json!({"schema": 1, "config": config}))?;
    } else {
        print!("{}", text(&config));
    }
    Ok(OK)
}

/// Whether the servers would look for objects in another place than the present one.
fn leaves_bucket(old: &Config, new: &Config) -> bool {
    let place = |c: &Config| {
        c.archive
            .as_ref()
            .map(|a| (a.endpoint.clone(), a.bucket.clone()))
    };
    // from no archive to one as well: the place before is not known any more
    place(old) != place(new)
}

/// Refuses another place while files have objects: objects do not move by themselves, and
/// nobody could read released files.
async fn check_bucket_empty(cluster: &Cluster) -> Outcome<()> {
    let archived = cluster.status().await?.counters.archived_files;
    if archived == 0 {
        return Ok(());
    }
    Err(Failure::error(format!(
        "{archived} files have objects where the archive is or was, and released ones have no \
         other copy: copy the objects to the new place first, then repeat with --force"
    )))
}

/// Applies `KEY=VALUE`s, all or none.
///
/// # Errors
/// Status 2, naming the key.
pub fn change(config: &mut Config, changes: &[String]) -> Outcome<()> {
    let mut new = config.clone();
    for text in changes {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("`{text}`: write KEY=VALUE")))?;
        set(&mut new, key.trim(), value.trim())
            .map_err(|why| Failure::usage(format!("{key}: {why}")))?;
    }
    new.check().map_err(Failure::usage)?;
    *config = new;
    Ok(())
}

fn set(config: &mut Config, key: &str, value: &str) -> Result<(), String> {
    match key {
        "copies" => config.copies = number(value)?,
        "min_copies" => config.min_copies = number(value)?,
        "archive_after" => config.archive_after_ms = millis(value)?,
        "replace_after" => config.replace_after_ms = millis(value)?,
        "high_water" => config.high_water_percent = number(value.trim_end_matches('%'))?,
        "low_water" => config.low_water_percent = number(value.trim_end_matches('%'))?,
        "s3" if value == "none" => config.archive = None,
        "endpoint" => archive(config).endpoint = (!value.is_empty()).then(|| value.into()),
        "region" => archive(config).region = value.into(),
        "bucket" => archive(config).bucket = value.into(),
        "prefix" => archive(config).prefix = value.trim_matches('/').into(),
        _ => {
            return Err(
                "unknown; there are copies, min_copies, archive_after, replace_after, high_water, \
                 low_water, endpoint, region, bucket, prefix, s3 (none)"
                    .into(),
            );
        }
    }
    Ok(())
}

/// A duration in milliseconds.
fn millis(value: &str) -> Result<u64, String> {
    let duration = parse_duration(value).map_err(|e| e.to_string())?;
    Ok(duration.as_millis() as u64)
}

fn number(value: &str) -> Result<u8, String> {
    value
        .parse()
        .map_err(|_| format!("`{value}` is no number that fits"))
}

fn archive(config: &mut Config) -> &mut ArchiveConfig {
    config.archive.get_or_insert_with(|| ArchiveConfig {
        endpoint: None,
        region: "us-east-1".into(),
        bucket: String::new(),
        prefix: String::new(),
    })
}

fn text(config: &Config) -> String {
    let ms = |ms: u64| match ms % 1000 {
        0 => format!("{}s", ms / 1000),
        _ => format!("{ms}ms"),
    };
    let mut out = format!(
        "volume={}\ncopies={}\nmin_copies={}\narchive_after={}\nreplace_after={}\nhigh_water={}%\nlow_water={}%\n",
        config.volume,
        config.copies,
        config.min_copies,
        ms(config.archive_after_ms),
        ms(config.replace_after_ms),
        config.high_water_percent,
        config.low_water_percent
    );
    match &config.archive {
        None => out.push_str("s3=none\n"),
        Some(a) => out.push_str(&format!(
            "endpoint={}\nregion={}\nbucket={}\nprefix={}\n",
            a.endpoint.as_deref().unwrap_or(""),
            a.region,
            a.bucket,
            a.prefix
        )),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[&str]) -> Outcome<Config> {
        let mut config = Config::default();
        let changes: Vec<String> = changes.iter().map(|s| s.to_string()).collect();
        change(&mut config, &changes).map(|()| config)
    }

    #[test]
    fn shown_configuration_can_be_set_again() {
        let config = changed(&[
            "copies=3",
            "min_copies=2",
            "archive_after=90s",
            "bucket=b",
            "prefix=/p/",
        ])
        .unwrap();
        assert_eq!(config.archive_after_ms, 90_000);
        assert_eq!(config.archive.as_ref().unwrap().prefix, "p");
        let shown: Vec<String> = text(&config).lines().skip(1).map(str::to_owned).collect();
        let mut again = Config::default();
        change(&mut again, &shown).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn bad_values_change_nothing_and_name_the_key() {
        for (bad, key) in [
            ("copies=0", "copies"),
            ("min_copies=3", "min_copies"),
            ("archive_after=10", "archive_after"),
            ("colour=blue", "colour"),
            ("endpoint=http://x", "bucket"),
            ("low_water=90", "low_water"),
            ("low_water=85", "low_water"),
            ("high_water=100", "high_water"),
        ] {
            let failure = changed(&["replace_after=1h", bad]).unwrap_err();
            assert_eq!(failure.status, 2, "{bad}");
            assert!(failure.message.starts_with(key), "{failure}");
        }
    }

    #[test]
    fn another_endpoint_or_bucket_leaves_the_objects_behind() {
        let mut old = Config::default();
        change(&mut old, &["bucket=a".into(), "region=r".into()]).unwrap();
        for (text, leaves) in [
            ("prefix=p", false),
            ("copies=3", false),
            ("bucket=b", true),
            ("endpoint=http://127.0.0.1:1", true),
            ("s3=none", true),
        ] {
            let mut new = old.clone();
            change(&mut new, &[text.to_owned()]).unwrap();
            assert_eq!(leaves_bucket(&old, &new), leaves, "{text}");
        }
        assert!(leaves_bucket(&Config::default(), &old));
        assert!(!leaves_bucket(&Config::default(), &Config::default()));
    }
}
