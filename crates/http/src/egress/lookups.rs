//! The system's resolver, kept in bounds.
//!
//! A look-up of the system blocks a thread and cannot be interrupted. Whoever names a host whose name server never
//! answers, and names others of the same domain after it, would collect threads until nobody else's names resolve
//! (assurance T08). So a name is looked up once for all who ask at the same time, the names of one domain share an
//! eighth of the threads, a look-up that found no thread in time is given up, and an answer is remembered for some
//! seconds. What is remembered is no permission: the guard judges the addresses of every connection, remembered or not.
//!
//! It stays the system's resolver, because what it knows (hosts files, search domains, name service switches) is what
//! operators set up.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use super::connect::Resolver;

/// Look-ups at a time.
const THREADS: usize = 64;
/// Look-ups at a time of names that end in the same two labels.
const THREADS_OF_A_DOMAIN: usize = 8;
/// Names that are remembered at most.
const NAMES: usize = 4_096;
/// How long a failure is remembered: long enough that callers who insist cost one thread and not one each.
const FAILURE: Duration = Duration::from_secs(1);
/// How long one look-up may take, its wait for a thread included.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the system says about a name. Its failures are texts, because several callers are told the same one.
type Answer = Result<Vec<IpAddr>, Arc<str>>;
/// Asks the system, blocking.
type Ask = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// The system's resolver.
pub struct SystemResolver(Arc<Lookups>);

struct Lookups {
    ask: Box<Ask>,
    remembered: Duration,
    patience: Duration,
    threads: Arc<Semaphore>,
    /// Threads of the domains that are being asked about.
    domains: Mutex<HashMap<String, Arc<Semaphore>>>,
    names: Mutex<Names>,
}

impl SystemResolver {
    /// Looks up anew whenever nobody else is being told.
    pub fn new() -> Self {
        Self::remembering(Duration::ZERO)
    }

    /// Gives the same answer for as long as `remembered`. The system does not say for how long an answer holds, so this
    /// bounds how late a change of it is noticed; a connection that fails looks again at once.
    pub fn remembering(remembered: Duration) -> Self {
        let ask = |host: &str| Ok((host, 0).to_socket_addrs()?.map(|found| found.ip()).collect());
        Self::asking(Box::new(ask), remembered, PATIENCE)
    }

    fn asking(ask: Box<Ask>, remembered: Duration, patience: Duration) -> Self {
        Self(Arc::new(Lookups {
            ask,
            remembered,
            patience,
            threads: Arc::new(Semaphore::new(THREADS)),
            domains: Mutex::default(),
            names: Mutex::default(),
        }))
    }
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self::new()
    }
}

impl Resolver for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>> {
        Box::pin(async move {
            let asked = lock(&self.0.names).ask(host, Instant::now());
            let mut told = match asked {
                Asked::Known(answer) => return answer.map_err(|error| io::Error::other(&*error)),
                Asked::Wait(told) => told,
                Asked::Find(tell, told) => {
                    // A task of its own: when this caller gives up, those who wait with it do not.
                    tokio::spawn(self.0.clone().find(host.to_owned(), tell));
                    told
                }
            };
            let answer = told.wait_for(Option::is_some).await.map_err(io::Error::other)?.clone();
            answer.unwrap_or_else(|| Err("no answer".into())).map_err(|error| io::Error::other(&*error))
        })
    }

    fn forget(&self, host: &str) {
        lock(&self.0.names).forget(host);
    }
}

impl Lookups {
    async fn find(self: Arc<Self>, host: String, tell: watch::Sender<Option<Answer>>) {
        let answer = self.look_up(&host).await.map_err(|error| Arc::from(error.to_string()));
        let remembered = if answer.is_ok() { self.remembered } else { self.remembered.min(FAILURE) };
        lock(&self.names).learned(&host, &answer, Instant::now(), remembered);
        let _ = tell.send(Some(answer));
    }

    async fn look_up(self: &Arc<Self>, host: &str) -> io::Result<Vec<IpAddr>> {
        let deadline = Instant::now() + self.patience;
        let busy = |_| io::Error::new(io::ErrorKind::TimedOut, "too many look-ups are under way");
        let of_domain = self.of_domain(host);
        // First the domain's: what waits for its own kind must not hold what others could use.
        let own = timeout_at(deadline, of_domain.acquire_owned()).await.map_err(busy)?.map_err(io::Error::other)?;
        let any = timeout_at(deadline, self.threads.clone().acquire_owned())
            .await
            .map_err(busy)?
            .map_err(io::Error::other)?;
        let (lookups, name) = (self.clone(), host.to_owned());
        let thread = tokio::task::spawn_blocking(move || {
            // Held by the thread and not by whoever waits for it, who may have given up.
            let _slots = (own, any);
            (lookups.ask)(&name)
        });
        match timeout_at(deadline, thread).await {
            Ok(answer) => answer.map_err(io::Error::other)?,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
        }
    }

    fn of_domain(&self, host: &str) -> Arc<Semaphore> {
        let mut domains = lock(&self.domains);
        if domains.len() >= THREADS {
            // Whose permits are all back, and that nobody waits for, is held by this map alone.
            domains.retain(|_, domain| Arc::strong_count(domain) > 1);
        }
        let domain = domain(host).to_owned();
        domains.entry(domain).or_insert_with(|| Arc::new(Semaphore::new(THREADS_OF_A_DOMAIN))).clone()
    }
}

/// The last two labels of a name.
fn domain(host: &str) -> &str {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.rmatch_indices('.').nth(1).map_or(host, |(at, _)| &host[at + 1..])
}

/// What is known of names, and which are being asked about.
#[derive(Default)]
struct Names(HashMap<String, Name>);

enum Name {
    /// Somebody asks; whoever else wants to know listens.
    Asking(watch::Receiver<Option<Answer>>),
    Known {
        answer: Answer,
        until: Instant,
    },
}

enum Asked {
    Known(Answer),
    Wait(watch::Receiver<Option<Answer>>),
    Find(watch::Sender<Option<Answer>>, watch::Receiver<Option<Answer>>),
}

impl Names {
    fn ask(&mut self, host: &str, now: Instant) -> Asked {
        match self.0.get(host) {
            Some(Name::Known { answer, until }) if now < *until => return Asked::Known(answer.clone()),
            // Its sender is gone without a word only when the runtime that asked is.
            Some(Name::Asking(told)) if told.has_changed().is_ok() => return Asked::Wait(told.clone()),
            _ => {}
        }
        let (tell, told) = watch::channel(None);
        self.0.insert(host.to_owned(), Name::Asking(told.clone()));
        Asked::Find(tell, told)
    }

    fn learned(&mut self, host: &str, answer: &Answer, now: Instant, remembered: Duration) {
        self.0.remove(host);
        if remembered.is_zero() {
            return;
        }
        if self.0.len() >= NAMES {
            self.0.retain(|_, name| match name {
                Name::Asking(_) => true,
                Name::Known { until, .. } => now < *until,
            });
        }
        // With that many names in use at once, one more is not remembered and only costs its look-ups.
        if self.0.len() < NAMES {
            self.0.insert(host.to_owned(), Name::Known { answer: answer.clone(), until: now + remembered });
        }
    }

    fn forget(&mut self, host: &str) {
        if let Some(Name::Known { .. }) = self.0.get(host) {
            self.0.remove(host);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change leaves the maps whole; a panic elsewhere does not spoil them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod t08_availability {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    fn here() -> Vec<IpAddr> {
        vec![IpAddr::from([192, 0, 2, 1])]
    }

    /// A resolver whose answers all wait for a word, and how often it was asked.
    fn gated(remembered: Duration, patience: Duration) -> (SystemResolver, mpsc::Sender<()>, Arc<AtomicUsize>) {
        let (open, gate) = mpsc::channel::<()>();
        let (gate, asked) = (Mutex::new(gate), Arc::new(AtomicUsize::new(0)));
        let count = asked.clone();
        let ask = move |_: &str| {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = lock(&gate).recv();
            Ok(here())
        };
        (SystemResolver::asking(Box::new(ask), remembered, patience), open, asked)
    }

    fn instant(remembered: Duration) -> (SystemResolver, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let ask = move |host: &str| {
            count.fetch_add(1, Ordering::SeqCst);
            if host.starts_with("gone") { Err(io::Error::other("no such name")) } else { Ok(here()) }
        };
        (SystemResolver::asking(Box::new(ask), remembered, LONG), asked)
    }

    #[tokio::test]
    async fn one_look_up_answers_all_who_ask_at_the_same_time() {
        let (resolver, open, asked) = gated(Duration::ZERO, LONG);
        let resolver = Arc::new(resolver);
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let resolver = resolver.clone();
            waiting.spawn(async move { resolver.resolve("a.test").await.unwrap() });
        }
        // Everybody has asked before anybody is answered.
        tokio::task::yield_now().await;
        drop(open);
        while let Some(found) = waiting.join_next().await {
            assert_eq!(found.unwrap(), here());
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn an_answer_is_remembered_until_a_connection_fails() {
        let (resolver, asked) = instant(LONG);
        for _ in 0..3 {
            assert_eq!(resolver.resolve("a.test").await.unwrap(), here());
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        resolver.forget("a.test");
        resolver.resolve("a.test").await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        let (forgetful, asked) = instant(Duration::ZERO);
        for _ in 0..3 {
            forgetful.resolve("a.test").await.unwrap();
        }
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_not_asked_about_by_everybody_who_insists() {
        let (resolver, asked) = instant(LONG);
        for _ in 0..3 {
            let error = resolver.resolve("gone.test").await.unwrap_err();
            assert_eq!(error.to_string(), "no such name");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn what_is_remembered_ends_and_failures_sooner() {
        let mut names = Names::default();
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        names.learned("a", &Ok(here()), now, Duration::from_secs(10));
        assert!(matches!(names.ask("a", at(9)), Asked::Known(Ok(_))));
        assert!(matches!(names.ask("a", at(10)), Asked::Find(..)));
        for n in 0..NAMES + 10 {
            names.learned(&format!("n{n}"), &Ok(here()), now, Duration::from_secs(10));
        }
        assert!(names.0.len() <= NAMES);
        names.learned("later", &Ok(here()), at(11), Duration::from_secs(10));
        assert!(names.0.len() < 10, "what has ended makes room");
    }

    #[tokio::test]
    async fn a_name_server_that_never_answers_is_given_up_and_asked_no_more_by_who_comes_at_once() {
        let (resolver, open, asked) = gated(LONG, Duration::from_millis(50));
        for _ in 0..2 {
            let answer = tokio::time::timeout(Duration::from_secs(10), resolver.resolve("a.test")).await;
            assert_eq!(answer.expect("a deadline").unwrap_err().to_string(), "no answer in time");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert_eq!(PATIENCE, Duration::from_secs(5), "what docs/decisions/0038 says");
        drop(open);
    }

    #[tokio::test]
    async fn names_of_one_domain_that_never_answers_leave_threads_for_others() {
        let (stuck, asked) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (open, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let (held, all) = (stuck.clone(), asked.clone());
        let ask = move |host: &str| {
            all.fetch_add(1, Ordering::SeqCst);
            if host.ends_with("hostile.test") {
                held.fetch_add(1, Ordering::SeqCst);
                let _ = lock(&gate).recv();
            }
            Ok(here())
        };
        let resolver = Arc::new(SystemResolver::asking(Box::new(ask), Duration::ZERO, Duration::from_millis(100)));
        let mut waiting = tokio::task::JoinSet::new();
        for n in 0..200 {
            let resolver = resolver.clone();
            waiting.spawn(async move { resolver.resolve(&format!("n{n}.hostile.test")).await.is_err() });
        }
        while let Some(given_up) = waiting.join_next().await {
            assert!(given_up.unwrap());
        }
        assert_eq!(stuck.load(Ordering::SeqCst), THREADS_OF_A_DOMAIN);
        assert_eq!(resolver.resolve("honest.test").await.unwrap(), here());
        drop(open);
    }

    #[test]
    fn a_domain_is_the_last_two_labels() {
        for (host, expected) in [
            ("a.b.example.com", "example.com"),
            ("example.com.", "example.com"),
            ("example.com", "example.com"),
            ("localhost", "localhost"),
            ("", ""),
        ] {
            assert_eq!(domain(host), expected, "{host}");
        }
    }

    #[tokio::test]
    async fn the_systems_resolver_finds_this_host() {
        let found = SystemResolver::new().resolve("localhost").await.unwrap();
        assert!(!found.is_empty() && found.iter().all(IpAddr::is_loopback), "{found:?}");
    }
}
