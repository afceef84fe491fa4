//! The mover against a real state machine and an object store in memory.

mod archive;
mod faults;
mod inspect;
mod recall;
mod world;
