//! Replica sets: placement, replicated writes, healing.
