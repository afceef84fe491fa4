//! One object in one file: its bytes, then a record of what they are.
//!
//! ```text
//! 0                     len              file_len-12   file_len-8     file_len
//! | the object's bytes  | Record as JSON | its length  | "LGNS3OB1"   |
//! |                     |                | u32, big e. |              |
//! ```
//! The bytes come first, since their checksums are known only after them.

use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const MAGIC: &[u8; 8] = b"LGNS3OB1";
const TAIL_LEN: u64 = 12;
/// Bytes of JSON, at most: S3 allows 1 KiB of key and 2 KiB of metadata.
const JSON_LEN_MAX: u64 = 256 * 1024;

/// Headers that are kept with an object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attributes {
    pub cache_control: Option<String>,
    pub content_disposition: Option<String>,
    pub content_encoding: Option<String>,
    pub content_language: Option<String>,
    pub content_type: Option<String>,
    /// `x-amz-meta-*`.
    pub user: HashMap<String, String>,
}

/// Checksums of the bytes, base64, as S3 shows them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checksums {
    pub crc32: Option<String>,
    pub crc32c: Option<String>,
    pub crc64nvme: Option<String>,
    pub sha1: Option<String>,
    pub sha256: Option<String>,
}

/// All that is stored of an object besides its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub key: String,
    /// Bytes of the object.
    pub len: u64,
    /// The MD5 in hex; for a multipart upload, what S3 forms of its parts' MD5s.
    pub e_tag: String,
    /// Milliseconds since 1970.
    pub modified_ms: u64,
    pub checksums: Checksums,
    pub attributes: Attributes,
}

impl Record {
    /// Encodes the trailer that follows the object's bytes in its file.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self)?;
        let len = bytes.len() as u64;
        if len > JSON_LEN_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "metadata is too long",
            ));
        }
        bytes.extend_from_slice(&(len as u32).to_be_bytes());
        bytes.extend_from_slice(MAGIC);
        Ok(bytes)
    }

    /// Reads the record of a file.
    ///
    /// # Errors
    /// `InvalidData` if the file is not an object's.
    pub fn read(file: &File) -> io::Result<Self> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_string());
        let file_len = file.metadata()?.len();
        let tail_at = file_len
            .checked_sub(TAIL_LEN)
            .ok_or_else(|| bad("too short"))?;
        let mut tail = [0u8; TAIL_LEN as usize];
        file.read_exact_at(&mut tail, tail_at)?;
        let (len, magic) = tail.split_at(4);
        if magic != MAGIC {
            return Err(bad("no end mark"));
        }
        let json_len = len.iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
        let json_at = tail_at
            .checked_sub(json_len)
            .ok_or_else(|| bad("record too long"))?;
        if json_len > JSON_LEN_MAX {
            return Err(bad("record too long"));
        }
        let mut json = vec![0u8; json_len as usize];
        file.read_exact_at(&mut json, json_at)?;
        let record: Record = serde_json::from_slice(&json)?;
        if record.len != json_at {
            return Err(bad("length is not the file's"));
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn record(len: u64) -> Record {
        Record {
            key: "a/ä".into(),
            len,
            e_tag: "00".into(),
            modified_ms: 5,
            checksums: Checksums {
                crc32: Some("AAAA".into()),
                ..Checksums::default()
            },
            attributes: Attributes {
                content_type: Some("x/y".into()),
                ..Attributes::default()
            },
        }
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn a_record_is_read_back() {
        let mut bytes = b"hello".to_vec();
        bytes.extend(record(5).encode().unwrap());
        assert_eq!(Record::read(&file(&bytes)).unwrap(), record(5));
    }

    #[test]
    fn a_cut_or_changed_file_is_no_object() {
        let mut bytes = b"hello".to_vec();
        bytes.extend(record(5).encode().unwrap());
        for len in 0..bytes.len() {
            assert!(Record::read(&file(&bytes[..len])).is_err(), "cut to {len}");
        }
        bytes.insert(0, b'x');
        assert!(Record::read(&file(&bytes)).is_err());
    }
}
