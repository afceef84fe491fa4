//! The report of a check.

use crate::exit::{DEGRADED, ERROR, OK};
use lagan_host::units;
use lagan_types::SetId;
use lagan_types::cluster::{ClusterMap, NodeState};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Most findings that are kept; all are counted.
const FINDINGS_MAX: usize = 1_000;

/// Most reasons that are kept.
const REASONS_MAX: usize = 100;

/// The output of `lagan check --json`.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub struct Report {
    /// 1.
    pub schema: u32,
    /// Whether there are no findings.
    pub clean: bool,
    /// Number of files with content.
    pub files: u64,
    /// Number of extents.
    pub extents: u64,
    /// Number of chunks that the metadata names.
    pub chunks: u64,
    /// Number of replicas that were looked at.
    pub replicas: u64,
    /// Bytes of replicas that were read.
    pub bytes: u64,
    /// Extents that are in S3 only.
    pub object_extents: u64,
    /// Archived files whose object was asked for.
    pub objects: u64,
    /// Objects that S3 listed.
    pub listed_objects: u64,
    /// Objects that nothing names since they are on their way in or out.
    pub pending_objects: u64,
    /// Whether there may be objects and S3 was not asked (no `--objects`).
    pub objects_left_out: bool,
    /// Chunks with fewer members up than `copies`.
    pub degraded_chunks: u64,
    /// Replicas and objects that could not be looked at.
    pub unchecked: u64,
    /// The reasons why.
    pub unchecked_reasons: Vec<String>,
    /// Chunks that nothing names since they are on their way in or out.
    pub pending: u64,
    /// Named chunks on servers that are no members of their set.
    pub surplus: u64,
    /// Number of findings.
    pub finding_count: u64,
    /// The first thousand findings.
    pub findings: Vec<Finding>,
}

/// One defect.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// `lost`, `missing`, `damaged`, `stray`, `object`.
    pub kind: &'static str,
    /// The file.
    pub ino: Option<u64>,
    /// Offset in the file.
    pub offset: Option<u64>,
    /// The chunk.
    pub chunk: Option<String>,
    /// The server.
    pub server: Option<String>,
    /// The object's key.
    pub object: Option<String>,
    /// The defect in words.
    pub detail: String,
}

impl Finding {
    /// A finding that nothing else is known of.
    pub fn of(kind: &'static str, detail: String) -> Self {
        Finding {
            kind,
            ino: None,
            offset: None,
            chunk: None,
            server: None,
            object: None,
            detail,
        }
    }
}

impl Report {
    /// Adds a finding.
    pub fn find(&mut self, finding: Finding) {
        self.finding_count += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }

    /// Notes replicas or objects that nobody could look at.
    pub fn leave_unchecked(&mut self, server: &str, why: &str, count: u64) {
        self.unchecked += count;
        if self.unchecked_reasons.len() < REASONS_MAX {
            self.unchecked_reasons.push(format!("{server}: {why}"));
        }
    }

    /// Counts chunks in sets with too few live members; `per_set` says how many each
    /// set has.
    pub fn count_degraded(&mut self, per_set: &BTreeMap<SetId, u64>, map: &ClusterMap) {
        let up = |id| map.node(id).is_some_and(|n| n.state != NodeState::Down);
        self.degraded_chunks = per_set
            .iter()
            .filter(|(set, _)| {
                let members = map.set(**set).map_or(&[][..], |s| &s.nodes);
                members.iter().filter(|n| up(**n)).count() < usize::from(map.config.copies)
            })
            .map(|(_, chunks)| chunks)
            .sum();
    }

    /// Sets the fields that follow from the others.
    pub fn finish(&mut self) -> &Self {
        self.schema = 1;
        self.clean = self.finding_count == 0;
        self
    }

    /// Exit status of the command.
    pub fn exit_status(&self) -> u8 {
        if self.finding_count > 0 {
            ERROR
        } else if self.degraded_chunks + self.unchecked > 0 || !self.unchecked_reasons.is_empty() {
            DEGRADED
        } else {
            OK
        }
    }

    /// The text for people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for f in &self.findings {
            let _ = write!(out, "{}: {}", f.kind, f.detail);
            if let Some(chunk) = &f.chunk {
                let _ = write!(out, ", chunk {chunk}");
            }
            if let Some(server) = &f.server {
                let _ = write!(out, " on {server}");
            }
            if let Some(object) = &f.object {
                let _ = write!(out, ", object {object}");
            }
            if let Some(ino) = f.ino {
                let _ = write!(out, ", inode {ino}");
            }
            if let Some(offset) = f.offset {
                let _ = write!(out, " at {offset}");
            }
            out.push('\n');
        }
        let hidden = self.finding_count - self.findings.len() as u64;
        if hidden > 0 {
            let _ = writeln!(out, "... and {hidden} findings more");
        }
        for why in &self.unchecked_reasons {
            let _ = writeln!(out, "not checked: {why}");
        }
        let _ = writeln!(
            out,
            "{} files, {} chunks, {} replicas checked ({} read), {} extents in S3 only",
            self.files,
            self.chunks,
            self.replicas,
            units::bytes(self.bytes),
            self.object_extents
        );
        if self.objects + self.listed_objects > 0 {
            let _ = writeln!(
                out,
                "{} objects checked, {} listed",
                self.objects, self.listed_objects
            );
        }
        for (count, what) in [
            (
                self.degraded_chunks,
                "chunks have fewer live copies than wanted",
            ),
            (self.unchecked, "replicas or objects could not be looked at"),
            (self.pending, "unnamed chunks are on their way in or out"),
            (self.surplus, "chunks have a copy more than they need"),
            (
                self.pending_objects,
                "unnamed objects are on their way in or out",
            ),
        ] {
            if count > 0 {
                let _ = writeln!(out, "{count} {what}");
            }
        }
        match self.finding_count {
            0 => out.push_str("clean"),
            n => {
                let _ = write!(out, "{n} findings");
            }
        }
        if self.objects_left_out {
            out.push_str("; objects in S3 were not looked at (--objects does)");
        }
        out.push('\n');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_outrank_what_could_not_be_checked() {
        let mut report = Report::default();
        assert_eq!(report.exit_status(), OK);
        report.leave_unchecked("server-2", "is down", 0);
        assert_eq!(report.exit_status(), DEGRADED);
        report.find(Finding::of("lost", "bytes are gone".into()));
        assert_eq!(report.exit_status(), ERROR);
        assert!(!report.finish().clean);
        assert!(report.text().contains("lost: bytes are gone"));
    }

    #[test]
    fn last_line_says_when_objects_were_not_looked_at() {
        let mut report = Report::default();
        let last = |r: &Report| r.text().lines().last().map(str::to_owned);
        assert_eq!(last(&report).as_deref(), Some("clean"));
        report.objects_left_out = true;
        let said = last(&report).unwrap();
        assert!(said.starts_with("clean; objects in S3 were not"), "{said}");
        report.find(Finding {
            object: Some("p/k".into()),
            ino: Some(7),
            ..Finding::of("object", "S3 does not have it".into())
        });
        let text = report.text();
        assert!(text.starts_with("object: S3 does not have it, object p/k, inode 7\n"));
        assert!(text.ends_with("1 findings; objects in S3 were not looked at (--objects does)\n"));
    }

    #[test]
    fn findings_are_kept_up_to_a_limit_and_all_counted() {
        let mut report = Report::default();
        for _ in 0..FINDINGS_MAX + 5 {
            report.find(Finding::of("stray", "x".into()));
        }
        assert_eq!(report.findings.len(), FINDINGS_MAX);
        assert!(report.text().contains("... and 5 findings more"));
    }
}
