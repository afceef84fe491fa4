//! Sorts the SDK's errors into [`ErrorKind`]s.

use crate::{ErrorKind, ObjectError};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use std::error::Error;

/// The error of a call about a key.
pub(super) fn error<E>(op: &'static str, key: &str, error: SdkError<E, HttpResponse>) -> ObjectError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let chain = chain(&error);
    if chain.contains(NO_CREDENTIALS) {
        return ObjectError::new(ErrorKind::Permanent, op, key, SET_CREDENTIALS);
    }
    match &error {
        SdkError::ServiceError(service) => {
            let status = service.raw().status().as_u16();
            let code = service.err().code().map(str::to_string);
            let message = service.err().message().unwrap_or("no message");
            ObjectError {
                kind: service_kind(status, code.as_deref()),
                op,
                key: key.into(),
                message: format!("status {status}: {}", one_line(message)),
                code,
            }
        }
        SdkError::TimeoutError(_) | SdkError::ResponseError(_) => {
            ObjectError::new(ErrorKind::Transient, op, key, chain)
        }
        SdkError::DispatchFailure(failure) => {
            let kind = if failure.is_user() || is_credential_or_trust_problem(&chain) {
                ErrorKind::Permanent
            } else {
                ErrorKind::Transient
            };
            ObjectError::new(kind, op, key, chain)
        }
        _ => ObjectError::new(ErrorKind::Permanent, op, key, chain),
    }
}

/// Begins the SDK's message, some kilobytes long, when it finds no credentials anywhere.
const NO_CREDENTIALS: &str = "the credential provider was not enabled";
/// The same in words that help.
const SET_CREDENTIALS: &str = "no S3 credentials: set access_key and secret_key under [s3] in \
    server.toml, or give the server process AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a \
    profile or a role";

/// The error of a call about the bucket: there, "not found" is permanent.
pub(super) fn bucket_error<E>(
    op: &'static str,
    bucket: &str,
    sdk: SdkError<E, HttpResponse>,
) -> ObjectError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let mut error = error(op, bucket, sdk);
    if error.kind == ErrorKind::NotFound {
        error.kind = ErrorKind::Permanent;
        error.message = format!("no such bucket ({})", error.message);
    }
    error
}

/// The kind of one key's error inside an answer.
pub(super) fn code_kind(code: Option<&str>) -> ErrorKind {
    service_kind(0, code)
}

/// Codes say more than the status; the status decides for those not known here.
fn service_kind(status: u16, code: Option<&str>) -> ErrorKind {
    match code {
        Some("NoSuchKey" | "NoSuchUpload" | "NoSuchVersion" | "NotFound") => ErrorKind::NotFound,
        Some("NoSuchBucket" | "PermanentRedirect" | "AuthorizationHeaderMalformed") => {
            ErrorKind::Permanent
        }
        Some(
            "BadDigest"
            | "InvalidDigest"
            | "XAmzContentChecksumMismatch"
            | "XAmzContentSHA256Mismatch",
        ) => ErrorKind::ChecksumMismatch,
        Some(
            "RequestTimeout"
            | "SlowDown"
            | "InternalError"
            | "ServiceUnavailable"
            | "Throttling"
            | "ThrottlingException"
            | "TooManyRequests"
            | "OperationAborted"
            | "IncompleteBody"
            | "ConditionalRequestConflict"
            | "RequestTimeTooSlow",
        ) => ErrorKind::Transient,
        _ => status_kind(status),
    }
}

fn status_kind(status: u16) -> ErrorKind {
    match status {
        404 => ErrorKind::NotFound,
        412 => ErrorKind::Precondition,
        408 | 409 | 425 | 429 => ErrorKind::Transient,
        // "not implemented" does not pass by itself
        501 => ErrorKind::Permanent,
        500..=599 => ErrorKind::Transient,
        // an answer that no S3 server gives: a proxy in between
        100..=299 => ErrorKind::Transient,
        _ => ErrorKind::Permanent,
    }
}

/// The SDK reports missing credentials and untrusted certificates like a
/// network's failure; neither passes by itself.
fn is_credential_or_trust_problem(chain: &str) -> bool {
    let chain = chain.to_ascii_lowercase();
    ["credentials", "invalid peer certificate", "unknownissuer"]
        .iter()
        .any(|s| chain.contains(s))
}

/// An error and its causes in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = one_line(&error.to_string());
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = one_line(&error.to_string());
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// At most 300 characters, no line breaks: what an endpoint says is not trusted.
fn one_line(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ErrorKind::{ChecksumMismatch, NotFound, Permanent, Precondition, Transient};

    #[test]
    fn answers_are_sorted() {
        let cases = [
            (403, Some("AccessDenied"), Permanent),
            (403, Some("SignatureDoesNotMatch"), Permanent),
            (403, Some("InvalidAccessKeyId"), Permanent),
            (403, None, Permanent),
            (404, Some("NoSuchBucket"), Permanent),
            (404, Some("NoSuchKey"), NotFound),
            (404, None, NotFound),
            (301, Some("PermanentRedirect"), Permanent),
            (400, Some("BadDigest"), ChecksumMismatch),
            (400, Some("RequestTimeout"), Transient),
            (400, Some("InvalidArgument"), Permanent),
            (412, Some("PreconditionFailed"), Precondition),
            (503, Some("SlowDown"), Transient),
            (500, None, Transient),
            (502, None, Transient),
            (501, Some("NotImplemented"), Permanent),
            (429, None, Transient),
            (408, None, Transient),
            (200, None, Transient),
        ];
        for (status, code, kind) in cases {
            assert_eq!(service_kind(status, code), kind, "{status} {code:?}");
        }
    }

    #[test]
    fn what_an_endpoint_says_stays_on_one_line() {
        assert_eq!(one_line("a\nb\r\u{1b}[31m"), "a b  [31m");
        assert_eq!(one_line(&"x".repeat(10_000)).len(), 300);
    }
}
