//! `lagan init` and `lagan join`: make a cluster by hand.

use crate::admin::config;
use crate::admin::output::print_json;
use crate::cli::{InitArgs, LocalServer};
use crate::discover::toml_failure;
use crate::exit::{Failure, OK, Outcome};
use crate::net::{self, Cluster, resolve_one};
use crate::up::plan::default_min_copies;
use lagan_types::cluster::Config;
use lagan_types::message::{InitCluster, JoinVia, Joined, Message, NodeRequest};
use lagan_types::{ClusterId, Incarnation};
use std::net::SocketAddr;
use std::time::Duration;

/// Longest wait: the server makes stores and elects itself.
const DEADLINE: Duration = Duration::from_secs(30);

/// Makes a cluster of this machine's server.
///
/// # Errors
/// Status 2 for wrong settings; status 1 with the server's reason.
pub fn init(args: &InitArgs, json: bool) -> Outcome<u8> {
    let server = address(&args.server)?;
    let mut shared = Config {
        cluster: ClusterId(rand::random()),
        incarnation: Incarnation(rand::random()),
        volume: volume(&args.volume)?,
        ..Config::default()
    };
    config::change(&mut shared, &with_default_min_copies(&args.settings))?;
    admit(server, InitCluster { config: shared }, json)
}

/// Adds this machine's server to the cluster that `via` belongs to.
///
/// # Errors
/// Status 1 with the server's reason.
pub fn join(via: &str, local: &LocalServer, json: bool) -> Outcome<u8> {
    let via = resolve_one(via)?.to_string();
    admit(address(local)?, JoinVia { via }, json)
}

fn admit(
    server: SocketAddr,
    ask: impl Message<Request = NodeRequest, Answer = Joined>,
    json: bool,
) -> Outcome<u8> {
    let cluster = net::run(async {
        let client = Cluster::new(&[server.to_string()]).await?;
        client.admit(server, ask, DEADLINE).await
    })?;
    if json {
        print_json(&serde_json::json!({
            "schema": 1, "server": server.to_string(), "cluster_id": cluster,
        }))?;
    } else {
        println!("{server} belongs to cluster {cluster}");
    }
    Ok(OK)
}

/// Adds the default of `min_copies` for the number of copies, if only the copies are given.
fn with_default_min_copies(settings: &[String]) -> Vec<String> {
    let mut settings = settings.to_vec();
    let value = |key: &str| {
        let found = settings.iter().filter_map(|s| s.split_once('='));
        found
            .filter(|(k, _)| k.trim() == key)
            .map(|(_, v)| v.trim().to_owned())
            .next_back()
    };
    if let (Some(copies), None) = (value("copies"), value("min_copies"))
        && let Ok(copies) = copies.parse()
    {
        settings.push(format!("min_copies={}", default_min_copies(copies)));
    }
    settings
}

fn volume(name: &str) -> Outcome<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match (1..=64).contains(&name.len()) && name.chars().all(plain) {
        true => Ok(name.to_owned()),
        false => Err(Failure::usage(format!(
            "--volume {name}: 1 to 64 letters, digits, `-`, `_` and `.`"
        ))),
    }
}

/// The address of this machine's server for clients.
fn address(local: &LocalServer) -> Outcome<SocketAddr> {
    if let Some(server) = &local.server {
        return resolve_one(server);
    }
    let path = &local.config;
    let text = std::fs::read_to_string(path).map_err(|e| {
        Failure::usage(format!(
            "read {}: {e}; name the server by --config FILE or --server ip:port",
            path.display()
        ))
    })?;
    let table: toml::Table = toml::from_str(&text).map_err(|e| toml_failure(path, &text, &e))?;
    let listen = table.get("listen").and_then(|l| l.as_str());
    let listen =
        listen.ok_or_else(|| Failure::usage(format!("{}: no `listen`", path.display())))?;
    resolve_one(listen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_is_found_by_its_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("server.toml");
        std::fs::write(&config, "name = 'a'\nlisten = '10.0.0.1:7700'\n").unwrap();
        let mut local = LocalServer {
            config,
            server: None,
        };
        assert_eq!(address(&local).unwrap().to_string(), "10.0.0.1:7700");
        local.server = Some("10.0.0.2:1".into());
        assert_eq!(address(&local).unwrap().to_string(), "10.0.0.2:1");
        local.server = Some("host".into());
        assert_eq!(address(&local).unwrap_err().status, 2);
    }

    #[test]
    fn three_copies_want_two_at_least() {
        let settings = with_default_min_copies(&["copies=3".into()]);
        assert_eq!(settings, ["copies=3", "min_copies=2"]);
        let given = ["copies=3".to_owned(), "min_copies=1".to_owned()];
        assert_eq!(with_default_min_copies(&given), given);
    }
}
