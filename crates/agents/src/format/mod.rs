//! Shows what an agent does to people.
//!
//! Owns: the seed's lines, our own, and the neutralising of terminal escapes.
//! Reads: raw lines or events.
//! Never: looks at a terminal, a clock or an environment; what depends on them is passed in.

mod neutralise;
pub mod seed;
pub mod text;

pub use neutralise::neutralise;
