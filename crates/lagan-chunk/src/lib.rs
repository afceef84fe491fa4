//! One node's store of immutable chunks.
