//! The start of each node's store that is connected: two starts under one id at the same
//! time are two copies of one store (INV-5). The newer start stays; an older one, or
//! another that is as old, is refused, and its connections end.

use lagan_types::NodeId;
use lagan_types::cluster::boot_follows;
use std::collections::BTreeMap;

/// The open connections, `C`, of each node, with the number of its start.
#[derive(Debug)]
pub(crate) struct Live<C> {
    nodes: BTreeMap<NodeId, Vec<(u64, C)>>,
}

impl<C> Default for Live<C> {
    fn default() -> Self {
        Live {
            nodes: BTreeMap::new(),
        }
    }
}

impl<C: PartialEq> Live<C> {
    /// Checks whether that start of the node may connect.
    ///
    /// # Errors
    /// The reason why not, in words.
    pub(crate) fn check(&self, node: NodeId, boot: u64) -> Result<(), String> {
        let here = self.nodes.get(&node).into_iter().flatten();
        match here.map(|(b, _)| *b).find(|b| !boot_follows(boot, *b)) {
            Some(other) => Err(format!(
                "node {} is connected at boot {other}: boot {boot} is an older start, or one of \
                 a copy of its store",
                node.0
            )),
            None => Ok(()),
        }
    }

    /// Adds a connection; returns those that must end: those of older starts, or this
    /// one, if a newer start came meanwhile.
    pub(crate) fn enter(&mut self, node: NodeId, boot: u64, connection: C) -> Vec<C> {
        if self.check(node, boot).is_err() {
            return vec![connection];
        }
        let here = self.nodes.entry(node).or_default();
        let (old, mut stay): (Vec<_>, Vec<_>) = here.drain(..).partition(|(b, _)| *b != boot);
        stay.push((boot, connection));
        *here = stay;
        old.into_iter().map(|(_, connection)| connection).collect()
    }

    /// Removes a connection that is over.
    pub(crate) fn leave(&mut self, node: NodeId, connection: &C) {
        if let Some(here) = self.nodes.get_mut(&node) {
            here.retain(|(_, c)| c != connection);
            if here.is_empty() {
                self.nodes.remove(&node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lagan_types::cluster::next_boot;

    const NODE: NodeId = NodeId(3);

    #[test]
    fn one_start_may_connect_as_often_as_it_likes() {
        let mut live = Live::default();
        let boot = next_boot(0, 1);
        assert!(live.enter(NODE, boot, 'a').is_empty());
        assert_eq!(live.check(NODE, boot), Ok(()));
        assert!(live.enter(NODE, boot, 'b').is_empty());
    }

    #[test]
    fn newer_start_ends_the_connections_of_the_older() {
        let mut live = Live::default();
        let old = next_boot(0, 1);
        live.enter(NODE, old, 'a');
        live.enter(NODE, old, 'b');
        live.enter(NodeId(4), old, 'x');
        let new = next_boot(old, 9);
        assert_eq!(live.check(NODE, new), Ok(()));
        assert_eq!(live.enter(NODE, new, 'c'), ['a', 'b']);
        assert!(live.check(NODE, old).is_err());
        assert_eq!(live.enter(NODE, old, 'd'), ['d']);
    }

    #[test]
    fn copy_that_was_started_as_often_is_refused_while_the_other_is_there() {
        let mut live = Live::default();
        let (one, two) = (next_boot(0, 1), next_boot(0, 2));
        live.enter(NODE, one, 'a');
        assert!(live.check(NODE, two).is_err());
        live.leave(NODE, &'a');
        assert_eq!(live.check(NODE, two), Ok(()));
    }
}
