//! Where exported evidence goes, as the export sees it.

use bytes::Bytes;
use caracal_store::BoxFuture;

/// A file of the archive.
#[derive(Debug, Clone)]
pub struct Object {
    /// Its name: words with slashes between them.
    pub key: String,
    /// A hash of which events are in it. Two objects of one identity hold the same events.
    pub identity: String,
    /// Its content.
    pub bytes: Bytes,
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is there durably, now or since before.
    Done,
    /// Something else lies under its name, and was left alone.
    OtherIsThere,
}

/// The archive did not take an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the archive did not take an object: {0}")]
pub struct ArchiveError(pub String);

/// Keeps objects, and never puts one in another's place.
pub trait Archive: Send + Sync + 'static {
    /// Keeps an object. Once this says so, no crash and no loss of power takes it away again.
    fn put<'a>(&'a self, object: &'a Object) -> BoxFuture<'a, Result<Put, ArchiveError>>;
}
