//! Who is turned away when more is asked of a process than it can do, before anything is spent on them (T08).
//!
//! A governed call is two requests: an agent has a mandate minted, then calls with it. Beyond what the machine can do,
//! working on all that come means that everything is late, mandates are minted for calls that nobody makes any more, and
//! what was signed, written and used up is lost. So each request is asked on its way in what it is ([`Class`]): whether it begins
//! something, completes what was begun, or must not be shed at all, because it takes authority away or says how the process
//! is. All listeners of a process share one [`Admission`], which counts what is worked on and adapts how much that may
//! be (`controller`). What is turned away was not authenticated, its body was not read, nothing is used up by it: 503, and
//! come again in a second.
//!
//! Only work of ours counts, or somebody could hold the places by being slow: not the time in which a caller sends
//! a body ([`Arriving`]), nor, at the Gateway, what comes once a call is permitted. An answer that goes on as a stream ends with its head here.

mod controller;
mod guard;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use self::guard::{Arriving, Guarded, Manners, Sorry};

use self::controller::Controller;

/// What a request is to the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It begins something: a mint, a session, a delegation. The first to be turned away.
    Begins,
    /// It completes what was begun: a call with a mandate, or what somebody has to know for one.
    Completes,
    /// Never turned away: what takes authority away, what operators do, and what asks how the process is.
    Spared,
}

/// What all listeners of a process share.
pub struct Admission {
    controller: Mutex<Controller>,
    clock: Box<dyn Fn() -> Duration + Send + Sync>,
}

impl Admission {
    /// For a machine of so many processors. `clock` never goes back.
    pub fn new(processors: usize, clock: impl Fn() -> Duration + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { controller: Mutex::new(Controller::new(processors)), clock: Box::new(clock) })
    }

    fn controller(&self) -> MutexGuard<'_, Controller> {
        self.controller.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Admission").field(&*self.controller()).finish()
    }
}

/// The request was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more is asked than can be done")]
pub struct Shed;

/// What a gate has to say about itself and the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that this gate turned away.
    pub shed: u64,
    /// Requests that the process works on.
    pub in_progress: u64,
    /// How many of them it may work on before nothing new is begun; 0 while there is no limit.
    pub limit: u64,
}

impl Counts {
    /// Name without prefix, type and help of each, with its value.
    pub fn series(self) -> [(&'static str, &'static str, u64, &'static str); 3] {
        [
            (
                "requests_shed_total",
                "counter",
                self.shed,
                "Requests turned away because more was asked than could be done.",
            ),
            (
                "work_in_progress",
                "gauge",
                self.in_progress,
                "Requests that this process works on, of all its services.",
            ),
            ("work_limit", "gauge", self.limit, "How many of them before nothing new is begun; 0 without a limit."),
        ]
    }
}

/// The way in of one listener.
pub struct Gate {
    admission: Arc<Admission>,
    shed: AtomicU64,
    tell: Box<dyn Fn() + Send + Sync>,
}

impl Gate {
    /// `tell` is told of each request that is turned away, and has no time to lose.
    pub fn new(admission: Arc<Admission>, tell: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { admission, shed: AtomicU64::new(0), tell: Box::new(tell) })
    }

    /// Whether a request is worked on; it is until the place is dropped.
    pub fn ask(&self, class: Class) -> Result<Place, Shed> {
        if class == Class::Spared {
            return Ok(Place(None));
        }
        let now = (self.admission.clock)();
        if !self.admission.controller().ask(now, class) {
            self.shed.fetch_add(1, Ordering::Relaxed);
            (self.tell)();
            return Err(Shed);
        }
        let work = Mutex::new(Some(Work { since: Some(now), before: Duration::ZERO }));
        Ok(Place(Some(Arc::new(Held { admission: self.admission.clone(), class, work }))))
    }

    /// For whoever looks on.
    pub fn counts(&self) -> Counts {
        let number = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let controller = self.admission.controller();
        Counts {
            shed: self.shed.load(Ordering::Relaxed),
            in_progress: number(controller.under_way()),
            limit: controller.limit().map_or(0, number),
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gate").field(&self.counts()).finish()
    }
}

/// A request is worked on, unless it waits for others. Clones are of the same request.
#[derive(Debug, Clone)]
pub struct Place(Option<Arc<Held>>);

impl Place {
    /// Until [`resume`](Self::resume) the request waits for somebody else.
    pub fn pause(&self) {
        self.at_work(|work, held, now| {
            if let Some(since) = work.since.take() {
                work.before += now.saturating_sub(since);
                held.admission.controller().leave(held.class);
            }
        });
    }

    /// It is worked on again; nobody is asked, or what was begun would not be completed.
    pub fn resume(&self) {
        self.at_work(|work, held, now| {
            if work.since.is_none() {
                work.since = Some(now);
                held.admission.controller().enter(held.class);
            }
        });
    }

    /// The work is done; `well` when it came to what was asked for. A refusal says nothing about how busy the machine is.
    pub fn leave(&self, well: bool) {
        let Some(held) = &self.0 else { return };
        held.end(well);
    }

    fn at_work(&self, change: impl FnOnce(&mut Work, &Held, Duration)) {
        let Some(held) = &self.0 else { return };
        let now = (held.admission.clock)();
        if let Some(work) = held.work().as_mut() {
            change(work, held, now);
        }
    }
}

#[derive(Debug)]
struct Held {
    admission: Arc<Admission>,
    class: Class,
    /// Nothing once it is done.
    work: Mutex<Option<Work>>,
}

#[derive(Debug)]
struct Work {
    /// When it was begun or resumed; nothing while it waits.
    since: Option<Duration>,
    /// Time spent before that.
    before: Duration,
}

impl Held {
    fn work(&self) -> MutexGuard<'_, Option<Work>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, well: bool) {
        let Some(Work { since, before }) = self.work().take() else { return };
        let now = (self.admission.clock)();
        let mut controller = self.admission.controller();
        if since.is_some() {
            controller.leave(self.class);
        }
        if well {
            controller.answered(now, before + since.map_or(Duration::ZERO, |since| now.saturating_sub(since)));
        }
    }
}

/// Who is gone before an answer gives the place back, too.
impl Drop for Held {
    fn drop(&mut self) {
        self.end(false);
    }
}

#[cfg(test)]
mod tests;
