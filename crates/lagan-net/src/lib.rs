//! Frames, handshake, connections and peer pools.
