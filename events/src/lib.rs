//! What happened: the events of Acta, their envelope, and the bytes they are stored as.
//!
//! This crate is pure. It knows nothing of clocks, disks, networks or randomness; time and
//! random bytes are arguments. Everything that is ever written to the log passes through
//! [`record::Record`] and [`block::Block`], and everything that is read comes back through
//! them, verified.

pub mod block;
pub mod cursor;
mod digest;
mod event;
mod generated_id;
mod header;
mod ids;
pub mod record;
mod time;

pub use digest::{Digest, DigestParseError, sha256};
pub use event::*;
pub use generated_id::{HINT_CHARS_MAX, display_hint, generated_id};
pub use ids::*;
pub use record::{Content, ContentBody, Header, MediaType, Record, StoredContent};
pub use time::{Timestamp, TimestampParseError};
