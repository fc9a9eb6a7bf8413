//! The threads on which documents are read and evaluated (contract: policy.md, security property 8).
//!
//! A tenant decides how long its documents take, up to their bounds. So they run on threads of their own, never on one
//! that serves requests; there are few of them, with deep stacks; a zone has at most its share of them, and zones whose
//! work waits take turns. What would wait behind too much other work is refused at once. A job that panics ends itself and
//! nothing else.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Deep enough for the deepest text and the longest body that are let through, several times over, also without
/// optimisation: see the test that runs them. Only what is used of it takes memory.
const STACK: usize = 64 << 20;

/// Most jobs that wait for one zone, and for all.
const WAITING_OF_ZONE: usize = 64;
const WAITING: usize = 1024;

type Job = Box<dyn FnOnce() + Send>;

/// Threads for documents. Cheap to clone; threads are started when there is work, and end with the last clone.
#[derive(Clone)]
pub struct Evaluators(Arc<Owner>);

/// Too much work waits, of this zone or of all; nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many evaluations are waiting")]
pub struct Overloaded;

/// The last of these to go ends the threads.
struct Owner(Arc<Shared>);

struct Shared {
    threads: usize,
    /// Threads one zone may have at once.
    share: usize,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    started: usize,
    idle: usize,
    ended: bool,
    waiting: usize,
    zones: HashMap<String, Zone>,
    /// Zones with waiting jobs, in the order of their turns.
    turns: VecDeque<String>,
}

#[derive(Default)]
struct Zone {
    running: usize,
    jobs: VecDeque<Job>,
}

impl Evaluators {
    /// So many threads, two at least: one zone has half of them at most, so another always finds one.
    pub fn new(threads: usize) -> Self {
        let threads = threads.max(2);
        let shared = Shared { threads, share: threads / 2, state: Mutex::default(), work: Condvar::new() };
        Self(Arc::new(Owner(Arc::new(shared))))
    }

    /// Those of this process: as many as it has processors.
    pub fn of_process() -> Self {
        static SHARED: LazyLock<Evaluators> =
            LazyLock::new(|| Evaluators::new(thread::available_parallelism().map_or(2, usize::from)));
        SHARED.clone()
    }

    /// Has `job` done for `zone`, as soon as it is the zone's turn. A job that panics is dropped, with what it holds: give
    /// it a channel to answer on.
    pub fn submit(&self, zone: &str, job: impl FnOnce() + Send + 'static) -> Result<(), Overloaded> {
        let shared = &self.0.0;
        let mut state = shared.lock();
        let State { waiting, zones, turns, .. } = &mut *state;
        let waits = zones.get(zone).map_or(0, |zone| zone.jobs.len());
        if *waiting >= WAITING || waits >= WAITING_OF_ZONE {
            return Err(Overloaded);
        }
        *waiting += 1;
        zones.entry(zone.to_owned()).or_default().jobs.push_back(Box::new(job));
        if waits == 0 {
            turns.push_back(zone.to_owned());
        }
        // Who is idle may be on the way to other work already.
        if state.waiting > state.idle && state.started < shared.threads {
            let worker = shared.clone();
            let builder = thread::Builder::new().name("policy-evaluator".to_owned()).stack_size(STACK);
            match builder.spawn(move || worker.work()) {
                Ok(_) => state.started += 1,
                // Whoever is there does it. With nobody there it would wait for ever.
                Err(_) if state.started > 0 => {}
                Err(_) => {
                    state.withdraw(zone);
                    return Err(Overloaded);
                }
            }
        }
        drop(state);
        shared.work.notify_one();
        Ok(())
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.work.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some((zone, job)) = state.take(self.share) {
                drop(state);
                // What a job leaves behind is its own: it holds nothing that others see.
                let _ = catch_unwind(AssertUnwindSafe(job));
                state = self.lock();
                state.finished(&zone);
                // Its zone may have more for a thread that found nothing before.
                self.work.notify_one();
            } else if state.ended {
                return;
            } else {
                state.idle += 1;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }
}

impl State {
    /// The next job of the first zone whose share is not used up; the zone goes to the end of the line.
    fn take(&mut self, share: usize) -> Option<(String, Job)> {
        let turn = self.turns.iter().position(|name| self.zones.get(name).is_some_and(|zone| zone.running < share))?;
        let name = self.turns.remove(turn)?;
        let zone = self.zones.get_mut(&name)?;
        let job = zone.jobs.pop_front()?;
        zone.running += 1;
        self.waiting -= 1;
        if !zone.jobs.is_empty() {
            self.turns.push_back(name.clone());
        }
        Some((name, job))
    }

    fn finished(&mut self, name: &str) {
        if let Some(zone) = self.zones.get_mut(name) {
            zone.running -= 1;
            if zone.running == 0 && zone.jobs.is_empty() {
                self.zones.remove(name);
            }
        }
    }

    /// Takes back the job that was put last.
    fn withdraw(&mut self, name: &str) {
        if let Some(zone) = self.zones.get_mut(name) {
            zone.jobs.pop_back();
            self.waiting -= 1;
            if zone.jobs.is_empty() {
                self.turns.retain(|other| other != name);
                if zone.running == 0 {
                    self.zones.remove(name);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn a_zone_that_occupies_its_share_keeps_no_other_from_being_served() {
        let evaluators = Evaluators::new(4);
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let (started, starts) = mpsc::channel();
        for _ in 0..20 {
            let (held, started) = (held.clone(), started.clone());
            let wait = move || {
                started.send(()).unwrap();
                let _ = held.lock().unwrap().recv();
            };
            evaluators.submit("hostile", wait).unwrap();
        }
        // Its share, two of four.
        for _ in 0..2 {
            starts.recv_timeout(SOON).unwrap();
        }
        let (done, answers) = mpsc::channel();
        for zone in ["a", "b", "c"] {
            let done = done.clone();
            evaluators.submit(zone, move || done.send(zone).unwrap()).unwrap();
        }
        let mut served: Vec<_> = (0..3).map(|_| answers.recv_timeout(SOON).unwrap()).collect();
        served.sort_unstable();
        assert_eq!(served, ["a", "b", "c"]);
        assert!(starts.try_recv().is_err(), "the hostile zone had more than its share");
        drop(release);
        for _ in 0..18 {
            starts.recv_timeout(SOON).unwrap();
        }
    }

    #[test]
    fn a_job_that_panics_ends_itself_and_nothing_else() {
        let evaluators = Evaluators::new(2);
        let (sender, answers) = mpsc::channel::<u32>();
        for n in 0..8 {
            let sender = sender.clone();
            let job = move || {
                assert!(n % 2 == 0, "on purpose");
                sender.send(n).unwrap();
            };
            evaluators.submit("z", job).unwrap();
        }
        drop(sender);
        let mut answered: Vec<u32> = answers.iter().collect();
        answered.sort_unstable();
        assert_eq!(answered, [0, 2, 4, 6]);
    }

    #[test]
    fn more_waiting_work_than_a_zone_may_have_is_refused_at_once() {
        let evaluators = Evaluators::new(2);
        let (release, held) = mpsc::channel::<()>();
        let (started, starts) = mpsc::channel();
        let wait = move || {
            started.send(()).unwrap();
            let _ = held.recv();
        };
        evaluators.submit("z", wait).unwrap();
        starts.recv_timeout(SOON).unwrap();
        let accepted = (0..WAITING_OF_ZONE * 2).filter(|_| evaluators.submit("z", || {}).is_ok()).count();
        assert_eq!(accepted, WAITING_OF_ZONE);
        let (done, answer) = mpsc::channel();
        evaluators.submit("other", move || done.send(()).unwrap()).unwrap();
        answer.recv_timeout(SOON).unwrap();
        drop(release);
    }
}
