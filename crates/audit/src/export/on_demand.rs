//! A range of one zone's events, written because somebody asks for it, in the archive's form.
//!
//! What is written has no holes: it begins behind the last event that was removed for its age, ends with the last one of the
//! chain as it is read, and every position between is in it. A position that is missing without an anchor's word for it is
//! an error, for whoever counts the rows of the file would not find it.
//!
//! The memory that is needed is that of one row group and one page, however long the chain.

use std::io::{self, Write};

use caracal_authority::ZoneId;
use caracal_store::{DeploymentRead, StoreError, evidence, retention, zones};

use super::PAGE;
use super::file::EventsFile;

/// Which positions of a chain are asked for, both inclusive; all there are where none is named.
#[derive(Debug, Clone, Copy, Default)]
pub struct Positions {
    /// The first.
    pub from: Option<i64>,
    /// The last.
    pub to: Option<i64>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Events.
    pub rows: u64,
    /// Position of the first.
    pub first: i64,
    /// Position of the last.
    pub last: i64,
    /// Position of the chain's last event when the export began.
    pub head: i64,
    /// The last position that was removed for its age; none where nothing was.
    pub removed_through: Option<i64>,
    /// How long the file is.
    pub bytes: u64,
}

/// Why nothing useful was written.
#[derive(Debug, thiserror::Error)]
pub enum OnDemandError {
    /// The zone has neither a row nor a chain.
    #[error("there is no zone `{0}`")]
    UnknownZone(ZoneId),
    /// Its chain has not begun.
    #[error("nothing has happened in zone `{0}` yet: its chain has no event")]
    NoEvent(ZoneId),
    /// The first position lies behind the last.
    #[error("the range ends at position {to}, before it begins at {from}")]
    Backwards {
        /// The first.
        from: i64,
        /// The last.
        to: i64,
    },
    /// The range begins behind the end of the chain.
    #[error("the range begins at position {from}, and the chain ends at {head}")]
    Ahead {
        /// The first.
        from: i64,
        /// The end of the chain.
        head: i64,
    },
    /// All of the range was removed for its age.
    #[error("the range ends at position {to}, and what lies up to {removed_through} was removed for its age")]
    Removed {
        /// The last.
        to: i64,
        /// How far.
        removed_through: i64,
    },
    /// A position is missing.
    #[error("the event at position {0} is missing, and no anchor says that it was removed for its age")]
    Missing(i64),
    /// Retention went on while the range was read.
    #[error("events were removed for their age while they were read, up to position {0}")]
    RemovedMeanwhile(i64),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was read could not be written.
    #[error(transparent)]
    Write(#[from] io::Error),
}

/// Writes the events of a range. `progress` hears after each page how many of how many are written.
pub async fn write_events(
    tx: &mut DeploymentRead<'_>,
    zone: &ZoneId,
    asked: Positions,
    to: &mut dyn Write,
    mut progress: impl FnMut(u64, u64),
) -> Result<Written, OnDemandError> {
    let (first, last, head, removed_through) = range(tx, zone, asked).await?;
    let of = (last - first + 1).unsigned_abs();
    let (mut file, mut bytes, mut after) = (EventsFile::new(), 0, first - 1);
    while after < last {
        let page = evidence::list_between(&mut tx.zone(zone), after, last, PAGE).await?;
        for row in &page {
            if row.chain_seq != after + 1 {
                return Err(gone(tx, zone, after + 1).await?);
            }
            file.add(row);
            after = row.chain_seq;
        }
        if page.is_empty() {
            return Err(gone(tx, zone, after + 1).await?);
        }
        bytes += put(to, &file.take())?;
        progress(file.events(), of);
    }
    let rows = file.events();
    bytes += put(to, &file.finish().0)?;
    Ok(Written { rows, first, last, head, removed_through, bytes })
}

/// The first position, the last, the end of the chain, and how far it was removed.
async fn range(
    tx: &mut DeploymentRead<'_>,
    zone: &ZoneId,
    Positions { from, to }: Positions,
) -> Result<(i64, i64, i64, Option<i64>), OnDemandError> {
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        return Err(OnDemandError::Backwards { from, to });
    }
    let Some(head) = evidence::head(&mut tx.zone(zone)).await? else {
        let known = zones::lookup(&mut tx.zone(zone)).await?.is_some();
        return Err(if known {
            OnDemandError::NoEvent(zone.clone())
        } else {
            OnDemandError::UnknownZone(zone.clone())
        });
    };
    let (head, from) = (head.chain_seq, from.unwrap_or(1).max(1));
    if from > head {
        return Err(OnDemandError::Ahead { from, head });
    }
    let last = to.unwrap_or(head).min(head);
    let removed_through = retention::find_anchor(&mut tx.zone(zone)).await?.map(|anchor| anchor.chain_seq);
    match removed_through {
        Some(removed_through) if last <= removed_through => Err(OnDemandError::Removed { to: last, removed_through }),
        _ => Ok((from.max(removed_through.unwrap_or(0) + 1), last, head, removed_through)),
    }
}

/// What it means that there is no event at `seq`.
async fn gone(tx: &mut DeploymentRead<'_>, zone: &ZoneId, seq: i64) -> Result<OnDemandError, StoreError> {
    let anchor = retention::find_anchor(&mut tx.zone(zone)).await?;
    Ok(match anchor {
        Some(anchor) if anchor.chain_seq >= seq => OnDemandError::RemovedMeanwhile(anchor.chain_seq),
        _ => OnDemandError::Missing(seq),
    })
}

fn put(to: &mut dyn Write, bytes: &[u8]) -> io::Result<u64> {
    to.write_all(bytes)?;
    Ok(bytes.len() as u64)
}
