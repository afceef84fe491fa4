//! Mail with attachments, made out of files that any Debian machine has.
//!
//! Text comes from documentation, attachments are archives, images and programs
//! as they are on the machine; sizes are as mail has them: most messages 2 to
//! 60 KiB, one in eight with an attachment, some up to 5 MiB. The same seed on
//! the same machine gives the same bytes.

use crate::manifest::{Entry, Manifest, files};
use crate::random::Random;
use anyhow::{Context, Result, ensure};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Directories that files are taken from; a slim machine has no documentation.
const SOURCES: [&str; 6] = [
    "/usr/share/common-licenses",
    "/usr/share/doc",
    "/usr/share/icons",
    "/usr/share/pixmaps",
    "/usr/share/zoneinfo",
    "/usr/lib/x86_64-linux-gnu",
];
/// Files to choose from.
const POOL: usize = 1500;
/// No single source is larger.
const SOURCE_LEN_MAX: u64 = 4 << 20;
/// Line length of base64 in mail (RFC 2045).
const LINE: usize = 76;

/// The files to choose from.
#[derive(Debug)]
struct Pool {
    text: Vec<u8>,
    attachments: Vec<PathBuf>,
}

/// Makes `mails` messages below `top`, some of the attachments beside them as
/// plain files, and says what is there.
///
/// # Errors
/// When the machine has too few files, or `top` cannot be written.
pub fn make(top: &Path, mails: usize, seed: u64) -> Result<Manifest> {
    let pool = Pool::find()?;
    let mut random = Random::new(seed);
    let mut manifest = Manifest::default();
    for n in 0..mails {
        let box_name = format!("2026-{:02}/user{:02}", n % 12 + 1, n % 7);
        let mut put = |name: String, bytes: &[u8]| -> Result<()> {
            let path = Path::new(&box_name).join(name);
            let full = top.join(&path);
            std::fs::create_dir_all(full.parent().context("no parent")?)?;
            std::fs::write(&full, bytes)?;
            manifest.0.insert(path, Entry::of(bytes));
            Ok(())
        };
        let attachment = match random.below(100) {
            0..2 => Some(pool.attachment(&mut random, 1 << 20, 5 << 20)?),
            2..13 => Some(pool.attachment(&mut random, 20 << 10, 400 << 10)?),
            _ => None,
        };
        if let Some((name, bytes)) = attachment.as_ref().filter(|_| n % 3 == 0) {
            put(format!("{n:05}-{name}"), bytes)?;
        }
        let mail = pool.mail(n, &mut random, attachment)?;
        put(format!("{n:05}.eml"), mail.as_bytes())?;
    }
    Ok(manifest)
}

impl Pool {
    fn find() -> Result<Pool> {
        let mut found = Vec::new();
        for source in SOURCES.iter().map(Path::new).filter(|s| s.is_dir()) {
            if found.len() < POOL {
                found.extend(files(source).unwrap_or_default());
            }
        }
        found.retain(|path| {
            let len = std::fs::metadata(path).map_or(0, |m| m.len());
            (256..SOURCE_LEN_MAX).contains(&len)
        });
        found.truncate(POOL);
        ensure!(
            found.len() >= 20,
            "too few files below {SOURCES:?} to make mail of"
        );
        let mut text = Vec::new();
        for path in found.iter().take(200) {
            let bytes = std::fs::read(path).unwrap_or_default();
            if bytes.iter().all(|&b| b.is_ascii() && b != 0) {
                text.extend_from_slice(&bytes);
            }
        }
        ensure!(text.len() >= 10_000, "too little text below {SOURCES:?}");
        Ok(Pool {
            text,
            attachments: found,
        })
    }

    /// Name and bytes of an attachment: files one after the other until it is long enough.
    fn attachment(&self, random: &mut Random, low: u64, high: u64) -> Result<(String, Vec<u8>)> {
        let want = random.size(low, high) as usize;
        let mut bytes = Vec::with_capacity(want);
        let mut name = String::new();
        while bytes.len() < want {
            let path = &self.attachments[random.below(self.attachments.len() as u64) as usize];
            let more = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
            bytes.extend_from_slice(&more);
            name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
        }
        bytes.truncate(want);
        Ok((name, bytes))
    }

    /// One message with its headers.
    fn mail(
        &self,
        n: usize,
        random: &mut Random,
        add: Option<(String, Vec<u8>)>,
    ) -> Result<String> {
        let len = random.size(2 << 10, 60 << 10) as usize;
        let boundary = format!("=_{:016x}", random.number());
        let mut mail = String::with_capacity(len * 2);
        write!(
            mail,
            "Return-Path: <user{n}@example.org>\r\nFrom: User {n} <user{n}@example.org>\r\n\
             To: team@example.org\r\nSubject: message {n}\r\nMessage-ID: <{:016x}@example.org>\r\n\
             Date: Mon, {} Jun 2026 {:02}:{:02}:00 +0000\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n\
             --{boundary}\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n",
            random.number(),
            n % 28 + 1,
            n % 24,
            n % 60,
        )?;
        let mut left = len;
        while left > 0 {
            let from = random.below(self.text.len() as u64 - 1) as usize;
            let part = &self.text[from..(from + left).min(self.text.len())];
            mail.push_str(&String::from_utf8_lossy(part));
            left -= part.len();
        }
        if let Some((name, bytes)) = add {
            write!(
                mail,
                "\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n\
                 Content-Disposition: attachment; filename=\"{name}\"\r\n\
                 Content-Transfer-Encoding: base64\r\n\r\n"
            )?;
            push_base64(&mut mail, &bytes);
        }
        write!(mail, "\r\n--{boundary}--\r\n")?;
        Ok(mail)
    }
}

fn push_base64(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for line in bytes.chunks(LINE / 4 * 3) {
        for group in line.chunks(3) {
            let byte = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
            let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
            for digit in 0..4 {
                let six = bits >> (18 - 6 * digit) & 63;
                let kept = digit <= group.len();
                out.push(if kept {
                    DIGITS[six as usize] as char
                } else {
                    '='
                });
            }
        }
        out.push_str("\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_gives_the_same_mail_in_the_sizes_of_mail() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let manifest = make(one.path(), 60, 7).unwrap();
        assert_eq!(manifest, make(two.path(), 60, 7).unwrap());
        manifest.check(one.path());
        assert!(manifest.0.len() >= 60);
        assert!(manifest.0.values().all(|e| e.len >= 2048 || e.len >= 256));
    }

    #[test]
    fn base64_is_as_in_rfc_4648() {
        let encode = |text: &str| {
            let mut out = String::new();
            push_base64(&mut out, text.as_bytes());
            out.trim_end().to_owned()
        };
        assert_eq!(encode("f"), "Zg==");
        assert_eq!(encode("fo"), "Zm8=");
        assert_eq!(encode("foobar"), "Zm9vYmFy");
    }
}
