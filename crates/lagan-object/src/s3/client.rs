//! Builds the SDK's client: TLS, credentials, time-outs, retries.

use crate::{Checksum, Credentials, ErrorKind, ObjectError, S3Config};
use aws_credential_types::Credentials as StaticCredentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedHttpClient,
};
use aws_smithy_http_client::Builder as HttpBuilder;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_types::retry::RetryConfig;
use std::path::Path;

/// Pinned: a newer one could change retries and checksums unseen.
fn behavior() -> BehaviorVersion {
    BehaviorVersion::v2026_01_12()
}

/// The client for a configuration.
pub(super) async fn build(config: &S3Config) -> Result<Client, ObjectError> {
    config.check().map_err(|message| refuse(config, message))?;
    let http = http_client(config)?;
    let retry = RetryConfig::standard().with_max_attempts(config.attempts_max.max(1));
    let mut builder = aws_sdk_s3::Config::builder()
        .behavior_version(behavior())
        .http_client(http.clone())
        .retry_config(retry)
        .force_path_style(config.uses_path_style())
        .request_checksum_calculation(request_checksums(config.checksum))
        .response_checksum_validation(response_checksums(config.checksum));
    if let Some(endpoint) = &config.endpoint {
        builder = builder.endpoint_url(endpoint);
    }
    let mut region = config.region.clone();
    match &config.credentials {
        Credentials::Static {
            access_key,
            secret_key,
            session_token,
        } => {
            let token = session_token.as_ref().map(|t| t.expose().to_string());
            builder = builder.credentials_provider(StaticCredentials::new(
                access_key,
                secret_key.expose(),
                token,
                None,
                "configuration",
            ));
        }
        Credentials::Chain => {
            let shared = aws_config::defaults(behavior())
                .http_client(http)
                .load()
                .await;
            region = region.or_else(|| shared.region().map(|r| r.as_ref().to_string()));
            builder.set_credentials_provider(shared.credentials_provider());
        }
    }
    let region = region.unwrap_or_else(|| "us-east-1".into());
    Ok(Client::from_conf(
        builder.region(Region::new(region)).build(),
    ))
}

fn refuse(config: &S3Config, message: String) -> ObjectError {
    ObjectError::new(ErrorKind::Permanent, "open", &config.bucket, message)
}

fn request_checksums(checksum: Checksum) -> RequestChecksumCalculation {
    match checksum {
        Checksum::Crc32 => RequestChecksumCalculation::WhenSupported,
        Checksum::WhenRequired | Checksum::None => RequestChecksumCalculation::WhenRequired,
    }
}

fn response_checksums(checksum: Checksum) -> ResponseChecksumValidation {
    match checksum {
        Checksum::Crc32 => ResponseChecksumValidation::WhenSupported,
        Checksum::WhenRequired | Checksum::None => ResponseChecksumValidation::WhenRequired,
    }
}

fn http_client(config: &S3Config) -> Result<SharedHttpClient, ObjectError> {
    let provider = Provider::rustls(CryptoMode::Ring);
    let mut builder = HttpBuilder::new().tls_provider(provider);
    if let Some(path) = &config.ca_file {
        let pem = read_ca(path).map_err(|message| refuse(config, message))?;
        let trust = TrustStore::default().with_pem_certificate(pem);
        let context = TlsContext::builder().with_trust_store(trust).build();
        builder = builder.tls_context(context.map_err(|e| refuse(config, e.to_string()))?);
    }
    Ok(builder.build_https())
}

/// Reads a CA file and makes sure that it holds certificates: the TLS library
/// panics on a file that does not.
fn read_ca(path: &Path) -> Result<Vec<u8>, String> {
    let named = |e: String| format!("s3.ca_file {}: {e}", path.display());
    let pem = std::fs::read(path).map_err(|e| named(e.to_string()))?;
    let text = std::str::from_utf8(&pem).map_err(|e| named(e.to_string()))?;
    let begins = text.matches("-----BEGIN CERTIFICATE-----").count();
    let ends = text.matches("-----END CERTIFICATE-----").count();
    if begins == 0 || begins != ends {
        return Err(named("holds no PEM certificate".into()));
    }
    Ok(pem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_ca_file_without_certificates_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, "not a certificate").unwrap();
        let mut config = S3Config::new("b");
        config.ca_file = Some(path);
        let error = build(&config).await.unwrap_err();
        assert!(
            error.is_permanent() && error.message.starts_with("s3.ca_file"),
            "{error}"
        );
        config.ca_file = Some(dir.path().join("absent.pem"));
        assert!(build(&config).await.unwrap_err().is_permanent());
    }
}
