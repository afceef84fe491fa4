use super::*;

#[test]
fn a_full_table_is_read() {
    let config: S3Config = toml::from_str(
        r#"
        endpoint = "https://s3.example.org:9000"
        region = "eu-central-1"
        bucket = "mails"
        path_style = true
        ca_file = "/etc/lagan/ca.pem"
        checksum = "when-required"
        credentials = { source = "static", access_key = "AK", secret_key = "hush" }
        timeouts = { connect_ms = 500 }
        "#,
    )
    .unwrap();
    assert_eq!(config.check(), Ok(()));
    assert_eq!(config.checksum, Checksum::WhenRequired);
    assert_eq!(config.timeouts.connect(), Duration::from_millis(500));
    assert!(
        matches!(config.credentials, Credentials::Static { ref access_key, .. } if access_key == "AK")
    );
}

#[test]
fn secrets_are_not_shown() {
    let mut config = S3Config::new("b");
    config.credentials = Credentials::Static {
        access_key: "AK".into(),
        secret_key: Secret::new("hush"),
        session_token: Some(Secret::new("token")),
    };
    let shown = format!("{config:?} {config:#?}");
    assert!(shown.contains("AK"));
    assert!(
        !shown.contains("hush") && !shown.contains("token\""),
        "{shown}"
    );
}

#[test]
fn unknown_keys_are_refused() {
    assert!(toml::from_str::<S3Config>("bucket = 'b'\nbuket = 'c'").is_err());
}

#[test]
fn wrong_values_are_named() {
    let mut config = S3Config::new("b");
    config.endpoint = Some("ftp://x".into());
    assert!(config.check().unwrap_err().starts_with("s3.endpoint"));
    assert!(
        S3Config::new("")
            .check()
            .unwrap_err()
            .starts_with("s3.bucket")
    );
}

#[test]
fn large_transfers_get_more_time() {
    let timeouts = Timeouts::default();
    assert!(timeouts.attempt(64 << 20) > timeouts.attempt(0) + Duration::from_secs(200));
}
