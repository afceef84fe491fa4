//! The first bytes of a connection: identity of both sides, and protocol version.
//!
//! The opener sends its hello, the server answers with its own or with a
//! refusal and closes. Both have the same shape, little endian:
//!
//! | offset | bytes | hello | answer |
//! | --- | --- | --- | --- |
//! | 0 | 4 | `LAGN` | `LAGN` |
//! | 4 | 2 | lowest version spoken | version chosen |
//! | 6 | 2 | highest version spoken | 0 accepted, 1 refused |
//! | 8 | 4 | length of the body | length of the body |
//! | 12 | 4 | CRC-32 of bytes 0..12 and body | the same |
//! | 16 | | [`Hello`] | [`Hello`], or the reason as text |
//!
//! This layout never changes, whatever the versions: fields are only added at
//! the end of the hello, and a reader skips what it does not know.

use crate::error::NetError;
use lagan_types::ask::Asker;
use lagan_types::codec;
use lagan_types::limits::PROTOCOL_VERSIONS;
use lagan_types::message::Service;
use lagan_types::{Incarnation, NodeId, StoreId};
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

#[cfg(test)]
mod tests;

const MAGIC: [u8; 4] = *b"LAGN";
const PREFACE_LEN: usize = 16;
/// Bytes of a hello or a reason: both are short.
const BODY_LEN_MAX: usize = 4096;
/// Bytes of a refusal's text.
const REASON_LEN_MAX: usize = 1024;

/// The part that one side of a connection plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A mount, or any other client of the file system.
    Mount,
    /// A storage server.
    Server,
    /// The admin command.
    Admin,
}

impl Role {
    /// Whether it may send what `asker` may send.
    pub fn may_ask(self, asker: Asker) -> bool {
        match asker {
            Asker::Anybody => true,
            Asker::Operator => matches!(self, Role::Server | Role::Admin),
            Asker::Server => self == Role::Server,
            Asker::Leader => false,
        }
    }
}

/// The identity that one side of a connection shows (docs/DESIGN.md "Identity and epochs").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Its role.
    pub role: Role,
    /// The incarnation of its cluster; `None` asks for the server's (init, join,
    /// admin).
    pub incarnation: Option<Incarnation>,
    /// Its node id, if it is a node that has one.
    pub node: Option<NodeId>,
    /// The id of its store, if it has one.
    pub store: Option<StoreId>,
    /// Number of starts of its store (or mount).
    pub boot: u64,
    /// The use of the connection.
    pub service: Service,
    /// The program's version, for people to read.
    pub build: String,
}

type Wire = (
    u8,
    Option<Incarnation>,
    Option<NodeId>,
    Option<StoreId>,
    u64,
    u8,
    String,
);

impl Hello {
    /// A client's hello: no node, no store.
    pub fn client(role: Role, incarnation: Option<Incarnation>, service: Service) -> Self {
        Hello {
            role,
            incarnation,
            node: None,
            store: None,
            boot: 0,
            service,
            build: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Checks that both sides are of one cluster, as far as both say.
    ///
    /// # Errors
    /// The reason of a refusal, when they name different incarnations.
    pub fn check_incarnation(&self, ours: Option<Incarnation>) -> Result<(), String> {
        match (self.incarnation, ours) {
            (Some(theirs), Some(ours)) if theirs != ours => Err(format!(
                "cluster incarnation {theirs}, here it is {ours}: another cluster or a restored one"
            )),
            _ => Ok(()),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let role = match self.role {
            Role::Mount => 0,
            Role::Server => 1,
            Role::Admin => 2,
        };
        let service = match self.service {
            Service::Node => 0,
            Service::Meta => 1,
            Service::Leader => 2,
            Service::Chunk => 3,
            Service::Archive => 4,
            Service::Raft => 5,
        };
        let wire: Wire = (
            role,
            self.incarnation,
            self.node,
            self.store,
            self.boot,
            service,
            self.build.clone(),
        );
        codec::encode(&wire)
    }

    fn decode(body: &[u8]) -> Result<Self, HandshakeError> {
        let (wire, _) = codec::decode_prefix::<Wire>(body)
            .map_err(|e| HandshakeError::Malformed(e.to_string()))?;
        let (role, incarnation, node, store, boot, service, build) = wire;
        let role = match role {
            0 => Role::Mount,
            1 => Role::Server,
            2 => Role::Admin,
            n => return Err(HandshakeError::Malformed(format!("unknown role {n}"))),
        };
        let service = match service {
            0 => Service::Node,
            1 => Service::Meta,
            2 => Service::Leader,
            3 => Service::Chunk,
            4 => Service::Archive,
            5 => Service::Raft,
            n => return Err(HandshakeError::Malformed(format!("unknown service {n}"))),
        };
        Ok(Hello {
            role,
            incarnation,
            node,
            store,
            boot,
            service,
            build,
        })
    }
}

/// The reason why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The first bytes are not `LAGN`.
    #[error("wrong magic {0:02x?}")]
    Magic([u8; 4]),
    /// More bytes than a hello can have.
    #[error("hello of {0} bytes")]
    TooLong(usize),
    /// The bytes changed on their way.
    #[error("hello with a wrong checksum")]
    Checksum,
    /// It is no hello, or one with a role or service that this build does not know.
    #[error("malformed hello: {0}")]
    Malformed(String),
    /// There is no version that both sides speak.
    #[error("speaks versions {}-{}, this build {}-{}", .0.0, .0.1, PROTOCOL_VERSIONS.0, PROTOCOL_VERSIONS.1)]
    Version((u16, u16)),
    /// One of the sides refused the other, for this reason.
    #[error("refused: {0}")]
    Refused(String),
    /// The connection broke, or ended early.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl HandshakeError {
    /// Turns it into the error of the side that opened the connection to `addr`.
    pub(crate) fn into_net(self, addr: SocketAddr) -> NetError {
        match self {
            HandshakeError::Refused(reason) => NetError::Refused { addr, reason },
            HandshakeError::Version(_) => NetError::Refused {
                addr,
                reason: self.to_string(),
            },
            other => NetError::Connect {
                addr,
                reason: format!("handshake: {other}"),
                silent: false,
            },
        }
    }
}

/// The opener's side: sends `hello`, returns the chosen version and the server's
/// hello. The caller sets the deadline.
///
/// # Errors
/// [`HandshakeError`]; `Refused` carries the server's reason.
pub async fn open<S>(stream: &mut S, hello: &Hello) -> Result<(u16, Hello), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let body = hello.encode();
    stream
        .write_all(&message(PROTOCOL_VERSIONS.0, PROTOCOL_VERSIONS.1, &body))
        .await?;
    let (version, verdict, body) = read_message(stream).await?;
    if verdict != 0 {
        let reason = String::from_utf8_lossy(&body).into_owned();
        return Err(HandshakeError::Refused(reason));
    }
    if version < PROTOCOL_VERSIONS.0 || version > PROTOCOL_VERSIONS.1 {
        return Err(HandshakeError::Version((version, version)));
    }
    let theirs = Hello::decode(&body)?;
    theirs
        .check_incarnation(hello.incarnation)
        .map_err(HandshakeError::Refused)?;
    Ok((version, theirs))
}

/// The server's side: reads a hello and lets `check` answer or refuse it. Returns
/// the chosen version and the opener's hello. The caller sets the deadline.
///
/// # Errors
/// [`HandshakeError`]; the opener has been told of a refusal that it can read.
pub async fn answer<S, F>(stream: &mut S, check: F) -> Result<(u16, Hello), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: FnOnce(&Hello) -> Result<Hello, String>,
{
    let (lowest, highest, body) = read_message(stream).await?;
    let version = match choose_version((lowest, highest)) {
        Some(version) => version,
        None => {
            let (least, most) = PROTOCOL_VERSIONS;
            let reason = format!(
                "this server speaks protocol versions {least}-{most}, you speak \
                 {lowest}-{highest}: use the same build on both sides"
            );
            refuse(stream, &reason).await?;
            return Err(HandshakeError::Version((lowest, highest)));
        }
    };
    let theirs = match Hello::decode(&body) {
        Ok(hello) => hello,
        Err(error) => {
            refuse(stream, &error.to_string()).await?;
            return Err(error);
        }
    };
    match check(&theirs) {
        Ok(ours) => {
            stream
                .write_all(&message(version, 0, &ours.encode()))
                .await?;
            Ok((version, theirs))
        }
        Err(reason) => {
            refuse(stream, &reason).await?;
            Err(HandshakeError::Refused(reason))
        }
    }
}

/// The highest version that both sides speak.
fn choose_version((lowest, highest): (u16, u16)) -> Option<u16> {
    let chosen = highest.min(PROTOCOL_VERSIONS.1);
    (chosen >= lowest && chosen >= PROTOCOL_VERSIONS.0).then_some(chosen)
}

async fn refuse<S: AsyncWrite + Unpin>(stream: &mut S, reason: &str) -> std::io::Result<()> {
    let text: String = reason.chars().take(REASON_LEN_MAX / 4).collect();
    stream
        .write_all(&message(PROTOCOL_VERSIONS.1, 1, text.as_bytes()))
        .await?;
    stream.shutdown().await
}

fn message(first: u16, second: u16, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(PREFACE_LEN + body.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&first.to_le_bytes());
    out.extend_from_slice(&second.to_le_bytes());
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    let crc = checksum(&out, body);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(body);
    out
}

fn checksum(preface: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(preface);
    hasher.update(body);
    hasher.finalize()
}

async fn read_message<S: AsyncRead + Unpin>(
    stream: &mut S,
) -> Result<(u16, u16, Vec<u8>), HandshakeError> {
    let mut magic = [0; 4];
    stream.read_exact(&mut magic).await?;
    if magic != MAGIC {
        return Err(HandshakeError::Magic(magic));
    }
    let first = stream.read_u16_le().await?;
    let second = stream.read_u16_le().await?;
    let len = stream.read_u32_le().await?;
    let crc = stream.read_u32_le().await?;
    if len as usize > BODY_LEN_MAX {
        return Err(HandshakeError::TooLong(len as usize));
    }
    let mut body = vec![0; len as usize];
    stream.read_exact(&mut body).await?;
    let sent = message(first, second, &body);
    if sent[PREFACE_LEN - 4..PREFACE_LEN] != crc.to_le_bytes() {
        return Err(HandshakeError::Checksum);
    }
    Ok((first, second, body))
}
