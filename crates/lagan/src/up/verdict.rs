//! The verdict over S3 that follows from the answers that all servers got.

use lagan_types::message::NodeStatus;

/// The verdict.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All servers may use S3.
    Ready,
    /// S3 refuses a server until a person acts; with the reason.
    Refused(String),
    /// Not all servers know yet; with what went wrong so far, as the end of a sentence.
    Open(String),
}

impl Verdict {
    /// The verdict that follows from the states of the servers.
    pub fn of(nodes: &[NodeStatus]) -> Self {
        if let Some(node) = nodes.iter().find(|n| n.s3_permanent) {
            return Verdict::Refused(node.s3_error.clone());
        }
        if !nodes.is_empty() && nodes.iter().all(|n| n.s3_ready) {
            return Verdict::Ready;
        }
        let error = nodes.iter().find(|n| !n.s3_error.is_empty());
        Verdict::Open(error.map_or_else(String::new, |n| format!(": {}", n.s3_error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lagan_types::NodeId;

    fn node(s3_ready: bool, s3_error: &str, s3_permanent: bool) -> NodeStatus {
        NodeStatus {
            node: NodeId(1),
            silent_ms: 0,
            used_bytes: 0,
            free_bytes: 0,
            chunks: 0,
            s3_error: s3_error.into(),
            s3_permanent,
            s3_ready,
            damaged_chunks: 0,
            clock_skew_ms: 0,
        }
    }

    #[test]
    fn silence_is_no_consent() {
        let (knows, not_yet) = (node(true, "", false), node(false, "", false));
        let open = Verdict::Open(String::new());
        assert_eq!(Verdict::of(&[]), open);
        assert_eq!(Verdict::of(&[knows.clone(), not_yet.clone()]), open);
        assert_eq!(Verdict::of(&[knows.clone(), knows.clone()]), Verdict::Ready);
        let failed = node(false, "timed out", false);
        let said = Verdict::Open(": timed out".into());
        assert_eq!(Verdict::of(&[knows.clone(), not_yet, failed]), said);
        let refused = node(false, "no such bucket", true);
        let said = Verdict::Refused("no such bucket".into());
        assert_eq!(Verdict::of(&[knows, refused]), said);
    }
}
