//! A WebSocket between caller and upstream (contract: gateway.md "Weaknesses": not supported there).
//!
//! The upgrade was governed like any call; what follows are bytes that are passed as they come and looked at by nobody.
//! So authority is watched from outside: an anchor that is revoked ends the socket at once, also when nobody is saying
//! anything, and so does the end of the mandate that opened it, for behind an open socket a caller could go on asking for
//! ever. Both ends are cut, not closed: neither side may take it for a goodbye of the other. Silence in both directions
//! ends it, too; peers that mean to be silent ping each other.
//!
//! A side that is slow slows the other down: no more than one buffer is ever held in each direction.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use caracal_http::server::TakenOver;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::evidence::{Attempt, EndedBy, Outcome};
use crate::metrics::Metrics;
use crate::revocation::Watch;
use crate::upload::Pulse;

/// Bytes held in each direction.
const BUFFER_BYTES: usize = 16 * 1024;
/// How long the upstream's side of the upgrade, and what one side has to say when the other has closed, may take.
const LINGER: Duration = Duration::from_secs(5);

/// An upgraded call.
pub(crate) struct Tunnel {
    pub(crate) attempt: Attempt,
    pub(crate) watch: Watch,
    /// Silence in both directions.
    pub(crate) idle: Duration,
    /// When the mandate that opened it ends.
    pub(crate) until: Instant,
    pub(crate) metrics: Arc<Metrics>,
}

/// One more WebSocket, for as long as it is there.
struct Open(Arc<Metrics>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.websockets.down();
    }
}

/// Why nothing more is passed.
enum End {
    Cut(EndedBy),
    /// One side closed, and the other heard of it.
    Closed(EndedBy),
    /// One side broke off.
    Broken(EndedBy),
}

impl Tunnel {
    /// Passes bytes between an upstream that has agreed and a caller who has been told so, until something ends it.
    pub(crate) async fn run(mut self, upgrade: OnUpgrade, taken: TakenOver) {
        self.metrics.websockets.up();
        let _open = Open(self.metrics.clone());
        let TakenOver { mut socket, mut stop } = taken;
        let upstream = match timeout(LINGER, upgrade).await {
            Ok(Ok(upstream)) => TokioIo::new(upstream),
            _ => {
                socket.break_off();
                self.attempt.ended_by(EndedBy::Upstream);
                return self.attempt.end(Outcome::CopyFailed);
            }
        };
        let (sent, taken) = (AtomicU64::new(0), AtomicU64::new(0));
        let pulse = Pulse::new();
        let end = {
            let (mut from_caller, mut to_caller) = split(&mut socket);
            let (mut from_upstream, mut to_upstream): (ReadHalf<TokioIo<Upgraded>>, WriteHalf<_>) = split(upstream);
            let mut up = pin!(pass(&mut from_caller, &mut to_upstream, &sent, &pulse));
            let mut down = pin!(pass(&mut from_upstream, &mut to_caller, &taken, &pulse));
            let mut silence = pin!(sleep(self.idle));
            let mut linger = pin!(sleep(LINGER));
            let (watch, idle) = (&self.watch, self.idle);
            let (mut up_open, mut down_open, mut closed_by) = (true, true, None);
            loop {
                // In this order: what ends the authority is looked at before every single read.
                let (from, to, passed) = tokio::select! {
                    biased;
                    () = poll_fn(|cx| poll_true(watch.poll_revoked(cx))) => break End::Cut(EndedBy::Revocation),
                    () = sleep_until(self.until) => break End::Cut(EndedBy::Expiry),
                    _ = stop.wait_for(|stop| *stop) => break End::Cut(EndedBy::Stop),
                    passed = &mut up, if up_open => {
                        up_open = false;
                        (EndedBy::Caller, EndedBy::Upstream, passed)
                    }
                    passed = &mut down, if down_open => {
                        down_open = false;
                        (EndedBy::Upstream, EndedBy::Caller, passed)
                    }
                    // The other side has had a moment to say what it still had to.
                    () = &mut linger, if closed_by.is_some() => (EndedBy::Caller, EndedBy::Caller, Err(Side::To)),
                    () = poll_fn(|cx| pulse.poll_silence(idle, silence.as_mut(), cx)) => break End::Cut(EndedBy::Silence),
                };
                match (passed, closed_by) {
                    (Ok(()), None) => {
                        closed_by = Some(from);
                        linger.as_mut().reset(Instant::now() + LINGER);
                    }
                    (_, Some(closed_by)) => break End::Closed(closed_by),
                    (Err(Side::From), None) => break End::Broken(from),
                    (Err(Side::To), None) => break End::Broken(to),
                }
            }
        };
        self.attempt.received(sent.load(Ordering::Relaxed));
        self.attempt.relayed(usize::try_from(taken.load(Ordering::Relaxed)).unwrap_or(usize::MAX));
        match end {
            End::Closed(_) => {}
            End::Cut(_) | End::Broken(_) => socket.break_off(),
        }
        match end {
            End::Cut(EndedBy::Revocation) => self.attempt.interrupted(),
            End::Cut(EndedBy::Silence) => self.ended(EndedBy::Silence, Outcome::CopyFailed),
            End::Cut(what) | End::Closed(what) => self.ended(what, Outcome::Executed),
            End::Broken(what) => self.ended(what, Outcome::CopyFailed),
        }
    }

    fn ended(&mut self, what: EndedBy, outcome: Outcome) {
        self.attempt.ended_by(what);
        self.attempt.end(outcome);
    }
}

/// The side at which passing failed.
#[derive(Debug, Clone, Copy)]
enum Side {
    From,
    To,
}

fn poll_true(is: bool) -> Poll<()> {
    if is { Poll::Ready(()) } else { Poll::Pending }
}

/// Passes bytes from one side to the other until the first closes, and then says so to the second.
async fn pass(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    count: &AtomicU64,
    pulse: &Arc<Pulse>,
) -> Result<(), Side> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(read) => read,
            // An end of TLS without its last word: a WebSocket says by its frames whether it was over.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            Err(_) => return Err(Side::From),
        };
        let bytes = buffer.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            to.shutdown().await.map_err(|_| Side::To)?;
            return Ok(());
        }
        pulse.beat();
        to.write_all(bytes).await.map_err(|_| Side::To)?;
        to.flush().await.map_err(|_| Side::To)?;
        pulse.beat();
        count.fetch_add(u64::try_from(read).unwrap_or(0), Ordering::Relaxed);
    }
}
