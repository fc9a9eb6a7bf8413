//! Sealing everything anew, when the key-encryption key is replaced (contract: audit-and-streams.md §9.2).
//!
//! The operator gives the new key and, as the previous one, the old: from then on what is written is sealed under the new
//! key, and what lies there opens with either. A [`Rewrap`] goes over all that lies there, in small batches, each one
//! commit. An envelope is replaced only where exactly the one that was read still lies, so nobody has to stop writing
//! meanwhile; and as every envelope opens before and after, it can be stopped or killed at any point and run again. Last of
//! all comes the deployment's own check of its key: until everything else is done, a start without the previous key is
//! refused.
//!
//! Envelopes that are bound to their column only, as they once were, are bound to their row by the same pass.

mod places;
mod report;

use std::sync::Arc;

use caracal_crypto::envelope::KekRing;
use caracal_store::envelopes::{self, After, Found, REFERENCED, Referenced, SEALED, Sealed};
use caracal_store::{Inspection, Store, StoreError, sealed_secrets};

pub use report::{Failed, Report, Tally};

use places::{kind, kind_of_reference, place_of, places};

use crate::sealed_secrets::{Opened, open_at};
use crate::versions::{Versions, versions_ref, zone_of};
use crate::{CustodyError, SecretBackend, kek};

/// Envelopes read, and replaced in one commit, at most.
const BATCH: i64 = 100;
/// How often a column is gone through: what others wrote meanwhile under the previous key is found by the next pass.
const PASSES: usize = 5;

/// What to do with what is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Count it.
    Check,
    /// Seal it anew.
    Rewrap,
}

/// How far it has come: told after every batch.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// What is gone through.
    pub kind: &'static str,
    /// How many of them so far, in this pass.
    pub done: u64,
}

/// Whoever is told of progress says whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Go on.
    GoOn,
    /// Stop here; what is done stays done.
    Stop,
}

/// Where envelopes are read.
enum Source<'s> {
    Store(&'s Store),
    /// From outside, beside the process that has the store in use.
    File(&'s mut Inspection),
}

/// Everything sealed in one deployment.
pub struct Rewrap {
    ring: Arc<KekRing>,
    backend: Option<Arc<dyn SecretBackend>>,
    batch: i64,
}

/// What is to be done with an envelope.
enum Verdict {
    Current,
    Behind(Vec<u8>),
    Failed(String),
}

impl Rewrap {
    /// Under the keys of `ring`; secrets under references lie in `backend`, if there is one, as well.
    pub fn new(ring: Arc<KekRing>, backend: Option<Arc<dyn SecretBackend>>) -> Self {
        Self { ring, backend, batch: BATCH }
    }

    /// The same with another size of batches.
    #[must_use]
    pub fn in_batches_of(self, batch: i64) -> Self {
        Self { batch, ..self }
    }

    /// Goes over everything in `store`.
    pub async fn run(
        &self,
        store: &Store,
        mode: Mode,
        progress: impl FnMut(Progress) -> Next + Send,
    ) -> Result<Report, CustodyError> {
        self.go(Source::Store(store), mode, progress).await
    }

    /// Counts what there is in a store's file, beside the process that has it in use.
    pub async fn check_file(
        &self,
        file: &mut Inspection,
        progress: impl FnMut(Progress) -> Next + Send,
    ) -> Result<Report, CustodyError> {
        self.go(Source::File(file), Mode::Check, progress).await
    }

    async fn go(
        &self,
        mut source: Source<'_>,
        mode: Mode,
        mut progress: impl FnMut(Progress) -> Next + Send,
    ) -> Result<Report, CustodyError> {
        let mut report = Report { kinds: Vec::new(), failures: Vec::new() };
        let mut stopped = false;
        for sealed in SEALED {
            let (mut tally, told_before) = (Tally::of(kind(sealed)), report.failures.len());
            for _ in 0..PASSES {
                // The pass before told of the same failures.
                report.failures.truncate(told_before);
                tally = self
                    .column(&mut source, sealed, mode, tally, &mut report, &mut |done| {
                        let next = progress(Progress { kind: kind(sealed), done });
                        stopped |= next == Next::Stop;
                        next
                    })
                    .await?;
                if stopped || tally.left == 0 || mode == Mode::Check {
                    break;
                }
            }
            report.kinds.push(tally);
            if stopped {
                return Ok(report);
            }
        }
        if let Some(backend) = &self.backend {
            for referenced in REFERENCED {
                let mut told = |done| {
                    let next = progress(Progress { kind: kind_of_reference(referenced), done });
                    stopped |= next == Next::Stop;
                    next
                };
                let tally = self.references(&mut source, backend, referenced, mode, &mut report, &mut told).await?;
                report.kinds.push(tally);
                if stopped {
                    return Ok(report);
                }
            }
        }
        let checked = self.check_of_the_key(&mut source, mode, &mut report).await?;
        report.kinds.push(checked);
        Ok(report)
    }

    /// One pass over one column.
    async fn column(
        &self,
        source: &mut Source<'_>,
        sealed: &'static Sealed,
        mode: Mode,
        before: Tally,
        report: &mut Report,
        told: &mut (dyn FnMut(u64) -> Next + Send),
    ) -> Result<Tally, CustodyError> {
        let mut tally = Tally { rewrapped: before.rewrapped, ..Tally::of(before.kind) };
        // What was sealed anew by an earlier pass is current now, and was not before.
        let already = before.rewrapped;
        let (mut after, mut done, mut current) = (None, 0, 0);
        loop {
            let page = source.page(sealed, after.as_ref(), self.batch).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.place());
            done += page.len() as u64;
            let mut behind = Vec::new();
            for found in page {
                match self.judge(sealed, &found)? {
                    Verdict::Current => current += 1,
                    Verdict::Behind(new) => behind.push((found, new)),
                    Verdict::Failed(reason) => {
                        tally.failed += 1;
                        report.fail(&place_of(sealed, &found), &reason);
                    }
                }
            }
            let all = behind.len() as u64;
            let replaced = match (mode, &source) {
                (Mode::Rewrap, Source::Store(store)) if all > 0 => replace(store, sealed, behind).await?,
                _ => 0,
            };
            tally.rewrapped += replaced;
            tally.left += all - replaced;
            if told(done) == Next::Stop {
                break;
            }
        }
        tally.current = u64::saturating_sub(current, already);
        Ok(tally)
    }

    fn judge(&self, sealed: &Sealed, found: &Found) -> Result<Verdict, CustodyError> {
        let Some((place, former)) = places(sealed, found) else {
            return Ok(Verdict::Failed("the row can't be read".to_owned()));
        };
        let opened = match former {
            Some(former) => open_at(&self.ring, &place, former, &found.envelope),
            None => self.ring.open(&place, &found.envelope).map(Opened::in_place),
        };
        match opened {
            Ok(opened) if !opened.was_elsewhere && self.ring.is_current(&found.envelope) => Ok(Verdict::Current),
            Ok(opened) => Ok(Verdict::Behind(self.ring.seal(&place, opened.plaintext.expose())?)),
            Err(reason) => Ok(Verdict::Failed(reason.to_string())),
        }
    }

    /// One pass over what lies under references in the backend. A failure there is told and does not end the pass.
    async fn references(
        &self,
        source: &mut Source<'_>,
        backend: &Arc<dyn SecretBackend>,
        referenced: &Referenced,
        mode: Mode,
        report: &mut Report,
        told: &mut (dyn FnMut(u64) -> Next + Send),
    ) -> Result<Tally, CustodyError> {
        let mut tally = Tally::of(kind_of_reference(referenced));
        let (mut after, mut done) = (None, 0);
        loop {
            let page = source.references(referenced, after.as_ref(), self.batch).await?;
            let Some(last) = page.last() else { return Ok(tally) };
            after = Some(last.clone());
            for (zone, id) in &page {
                let reference = format!("zones/{zone}/{}/{id}/{}", referenced.table, referenced.suffix);
                match self.reference(source, backend, &reference, mode).await {
                    Ok(Outcome::Absent) => {}
                    Ok(Outcome::Current) => tally.current += 1,
                    Ok(Outcome::Left) => tally.left += 1,
                    Ok(Outcome::Rewrapped) => tally.rewrapped += 1,
                    Err(reason) => {
                        tally.failed += 1;
                        report.fail(&reference, &reason);
                    }
                }
            }
            done += page.len() as u64;
            if told(done) == Next::Stop {
                return Ok(tally);
            }
        }
    }

    async fn reference(
        &self,
        source: &mut Source<'_>,
        backend: &Arc<dyn SecretBackend>,
        reference: &str,
        mode: Mode,
    ) -> Result<Outcome, CustodyError> {
        // Somebody may give the secret anew in this moment. Then theirs is looked at: it can be sealed under either key.
        for _ in 0..PASSES {
            let Some(envelope) = backend.read(reference).await? else { return Ok(Outcome::Absent) };
            let versions = Versions::opened(&self.ring, reference, source.versions(reference).await?.as_deref())?;
            let (plaintext, place) = versions.open(&self.ring, reference, &envelope)?;
            if self.ring.is_current(&envelope) {
                return Ok(Outcome::Current);
            }
            if mode == Mode::Check {
                break;
            }
            let new = self.ring.seal(&place, plaintext.expose())?;
            if backend.replace(reference, &envelope, &new).await? {
                return Ok(Outcome::Rewrapped);
            }
        }
        Ok(Outcome::Left)
    }

    /// The last step: only when nothing else needs the previous key may a start without it be let pass.
    async fn check_of_the_key(
        &self,
        source: &mut Source<'_>,
        mode: Mode,
        report: &mut Report,
    ) -> Result<Tally, CustodyError> {
        let mut tally = Tally::of("check of the key");
        let may_replace = mode == Mode::Rewrap && report.is_done();
        let state = match source {
            Source::Store(store) if may_replace => kek::rewrap(store, &self.ring).await,
            Source::Store(store) => {
                let mut snapshot = store.snapshot().await?;
                kek::state(&mut snapshot.deployment(), &self.ring).await
            }
            Source::File(file) => {
                let stored = file.run(async |tx| kek::read(tx).await)?;
                stored.map_or(Ok(kek::State::None), |stored| kek::judge(&stored, &self.ring))
            }
        };
        match state {
            Ok(kek::State::None) => {}
            Ok(kek::State::Current) => tally.current = 1,
            Ok(kek::State::Rewrapped) => tally.rewrapped = 1,
            Ok(kek::State::Behind) => tally.left = 1,
            Err(CustodyError::Store(error)) => return Err(error.into()),
            Err(error) => {
                tally.failed = 1;
                report.fail(kek::PLACE, &error);
            }
        }
        Ok(tally)
    }
}

/// What became of what lies under a reference.
enum Outcome {
    Absent,
    Current,
    Left,
    Rewrapped,
}

impl Source<'_> {
    async fn page(
        &mut self,
        sealed: &'static Sealed,
        after: Option<&After>,
        limit: i64,
    ) -> Result<Vec<Found>, StoreError> {
        match self {
            Self::Store(store) => {
                let mut snapshot = store.snapshot().await?;
                envelopes::list(&mut snapshot.deployment(), sealed, after, limit).await
            }
            Self::File(file) => file.run(async |tx| envelopes::list(tx, sealed, after, limit).await),
        }
    }

    /// What is known of the versions of a secret in the backend, sealed.
    async fn versions(&mut self, reference: &str) -> Result<Option<Vec<u8>>, CustodyError> {
        let (zone, place) = (zone_of(reference)?, versions_ref(reference));
        Ok(match self {
            Self::Store(store) => {
                let mut snapshot = store.snapshot().await?;
                sealed_secrets::lookup(&mut snapshot.zone(&zone), &place).await?
            }
            Self::File(file) => file.run(async |tx| sealed_secrets::lookup(&mut tx.zone(&zone), &place).await)?,
        })
    }

    async fn references(
        &mut self,
        referenced: &Referenced,
        after: Option<&After>,
        limit: i64,
    ) -> Result<Vec<After>, StoreError> {
        match self {
            Self::Store(store) => {
                let mut snapshot = store.snapshot().await?;
                envelopes::list_referenced(&mut snapshot.deployment(), referenced, after, limit).await
            }
            Self::File(file) => file.run(async |tx| envelopes::list_referenced(tx, referenced, after, limit).await),
        }
    }
}

/// One batch, one commit. Says how many still lay where they were found.
async fn replace(store: &Store, sealed: &'static Sealed, behind: Vec<(Found, Vec<u8>)>) -> Result<u64, StoreError> {
    store
        .commit_upkeep((sealed, behind), |tx, (sealed, behind)| {
            Box::pin(async move {
                let mut replaced = 0;
                for (found, new) in behind {
                    replaced += u64::from(envelopes::replace(tx, sealed, found, new).await?);
                }
                Ok::<_, StoreError>(replaced)
            })
        })
        .await
}
