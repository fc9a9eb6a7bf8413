//! The keys of identity providers, fetched and remembered (contract: sts.md §4).
//!
//! A set is used for ten minutes and never longer: a key that its owner withdrew is believed for no more than that. An
//! address that changed is another source, and asked at once. One question is under way for each source; whoever comes
//! meanwhile waits for its answer, also if whoever put it goes away. A `kid` that a set lacks has the source asked again,
//! because its owner may have changed keys, but not within [`ASKED_AGAIN`]: whoever makes up ids must not be able to use us
//! against somebody's identity provider, nor to keep anybody waiting.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use caracal_authority::federation::Registration;
use caracal_authority::{SubjectIssuerId, Timestamp, ZoneId};
use caracal_crypto::jws::ForeignKeySet;
use caracal_http::egress::{EgressError, GuardedConnector, SimpleClient, SimpleError, SimpleRequest, TargetUrl};
use http::header::{ACCEPT, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use tokio::sync::{Mutex as Turnstile, Semaphore};

/// For how long a set is used.
const USED_FOR: Duration = Duration::from_secs(600);
/// A set that lacks a key is not asked for again before it is this old; nor is one again that could not be had.
const ASKED_AGAIN: Duration = Duration::from_secs(10);
/// A source that gave nothing is left alone for so long.
const LEFT_ALONE: Duration = Duration::from_secs(1);
/// Largest document.
const LARGEST: usize = 256 * 1024;
/// Questions under way at a time, whoever they are put to.
const AT_ONCE: usize = 32;
/// Sources remembered.
const REMEMBERED: usize = 1_024;

/// Where keys come from: one registration with one address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct KeySource {
    zone: ZoneId,
    id: SubjectIssuerId,
    jwks_url: String,
}

impl KeySource {
    pub(crate) fn of(zone: &ZoneId, registration: &Registration) -> Self {
        Self { zone: zone.clone(), id: registration.id.clone(), jwks_url: registration.jwks_url.clone() }
    }
}

/// Why there are no keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoKeys {
    /// What is there is no usable key set, or the address must not be reached.
    Unusable,
    /// Nobody answers, or not now.
    Unreachable,
}

type Found = Result<Arc<ForeignKeySet>, NoKeys>;

/// Key sets by source.
pub(crate) struct IssuerKeys {
    client: SimpleClient,
    sources: Mutex<HashMap<KeySource, Arc<Slot>>>,
    at_once: Arc<Semaphore>,
    /// From the question to the last byte of the answer.
    deadline: Duration,
}

/// What is known of one source.
#[derive(Default)]
struct Slot {
    /// Whoever asks the source holds this.
    turnstile: Arc<Turnstile<()>>,
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    set: Option<(Arc<ForeignKeySet>, Timestamp)>,
    /// The last failure, unless something succeeded since.
    failure: Option<(NoKeys, Timestamp)>,
    /// How many answers there were, of whatever kind.
    answers: u64,
}

impl Known {
    /// What there is to say without asking; `None` when it is time to ask.
    fn at_hand(&self, kid: &str, now: Timestamp) -> Option<Found> {
        // A clock that was put back would else make a set last for longer.
        let within = |at: Timestamp, age: Duration| at <= now && now < at.plus(age);
        let failed_within = |age| self.failure.filter(|(_, at)| within(*at, age)).map(|(why, _)| Err(why));
        match self.set.as_ref().filter(|(_, at)| within(*at, USED_FOR)) {
            Some((set, _)) if set.contains(kid) => Some(Ok(set.clone())),
            Some((set, at)) if within(*at, ASKED_AGAIN) => Some(Ok(set.clone())),
            Some(_) => failed_within(ASKED_AGAIN),
            None => failed_within(LEFT_ALONE),
        }
    }

    /// What the last answer was.
    fn latest(&self) -> Found {
        match (self.failure, &self.set) {
            (None, Some((set, _))) => Ok(set.clone()),
            (Some((why, _)), _) => Err(why),
            (None, None) => Err(NoKeys::Unreachable),
        }
    }

    fn keep(&mut self, answer: Result<ForeignKeySet, NoKeys>, asked_at: Timestamp) {
        self.answers += 1;
        match answer {
            Ok(set) => {
                self.set = Some((Arc::new(set), asked_at));
                self.failure = None;
            }
            Err(why) => {
                self.failure = Some((why, asked_at));
                // Its owner has put something else in its place. One who does not answer has not.
                if why == NoKeys::Unusable {
                    self.set = None;
                }
            }
        }
    }
}

impl Slot {
    fn read<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        look(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl IssuerKeys {
    /// Fetches through `connector`, within `deadline` each time.
    pub(crate) fn new(connector: GuardedConnector, deadline: Duration) -> Self {
        let at_once = Arc::new(Semaphore::new(AT_ONCE));
        Self { client: SimpleClient::new(connector), sources: Mutex::default(), at_once, deadline }
    }

    /// The keys of `source`, asked for if that may bring one of the id `kid`.
    pub(crate) async fn find(&self, source: &KeySource, kid: &str, now: impl Fn() -> Timestamp) -> Found {
        let slot = self.slot(source, now());
        let before = match slot.read(|known| known.at_hand(kid, now()).ok_or(known.answers)) {
            Ok(found) => return found,
            Err(answers) => answers,
        };
        let turn = slot.turnstile.clone().lock_owned().await;
        // What others were told meanwhile is our answer, too, whatever it was.
        if let Some(found) = slot.read(|known| (known.answers != before).then(|| known.latest())) {
            return found;
        }
        let asked_at = now();
        let (client, at_once, url) = (self.client.clone(), self.at_once.clone(), source.jwks_url.clone());
        let (zone, issuer, deadline) = (source.zone.clone(), source.id.clone(), self.deadline);
        let asking = tokio::spawn(async move {
            let answer = fetch(&client, &at_once, &url, deadline).await.map_err(|(why, reason)| {
                tracing::warn!(%zone, subject_issuer = %issuer, url, reason, "an identity provider's keys can't be had");
                why
            });
            slot.known.write().unwrap_or_else(PoisonError::into_inner).keep(answer, asked_at);
            drop(turn);
            slot.read(Known::latest)
        });
        asking.await.unwrap_or(Err(NoKeys::Unreachable))
    }

    fn slot(&self, source: &KeySource, now: Timestamp) -> Arc<Slot> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = sources.get(source) {
            return slot.clone();
        }
        if sources.len() >= REMEMBERED {
            let in_use = |slot: &Arc<Slot>| {
                Arc::strong_count(slot) > 1
                    || slot.read(|known| known.set.as_ref().is_some_and(|(_, at)| now < at.plus(USED_FOR)))
            };
            sources.retain(|_, slot| in_use(slot));
            if sources.len() >= REMEMBERED {
                sources.clear();
            }
        }
        sources.entry(source.clone()).or_default().clone()
    }
}

/// Asks once. The text is for the operator.
async fn fetch(
    client: &SimpleClient,
    at_once: &Semaphore,
    url: &str,
    deadline: Duration,
) -> Result<ForeignKeySet, (NoKeys, String)> {
    let unusable = |reason: &str| (NoKeys::Unusable, reason.to_owned());
    let url = TargetUrl::parse(url).map_err(|error| unusable(&error.to_string()))?;
    if !url.is_https() {
        return Err(unusable("keys are fetched over https only"));
    }
    let Ok(Ok(_permit)) = tokio::time::timeout(deadline, at_once.acquire()).await else {
        return Err((NoKeys::Unreachable, "too many key sets are being fetched".to_owned()));
    };
    let request = SimpleRequest {
        method: Method::GET,
        url,
        headers: HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]),
        body: Bytes::new(),
        deadline,
        max_response_bytes: LARGEST,
    };
    let response = client.send(request).await.map_err(|error| (unavailable(&error), error.to_string()))?;
    match response.status {
        StatusCode::OK => ForeignKeySet::from_jwks(&response.body).map_err(|error| unusable(&error.to_string())),
        busy if busy.is_server_error() || busy == StatusCode::TOO_MANY_REQUESTS => {
            Err((NoKeys::Unreachable, format!("answered {busy}")))
        }
        other => Err(unusable(&format!("answered {other}; only 200 is a key set, and redirects are not followed"))),
    }
}

/// Whether trying again later can help.
fn unavailable(error: &SimpleError) -> NoKeys {
    match error {
        SimpleError::Deadline | SimpleError::Transport(_) => NoKeys::Unreachable,
        SimpleError::TooLarge => NoKeys::Unusable,
        SimpleError::Egress(egress) => match egress {
            EgressError::ResolveFailed { .. }
            | EgressError::ConnectTimeout { .. }
            | EgressError::ConnectFailed { .. } => NoKeys::Unreachable,
            EgressError::Target(_) | EgressError::Refused { .. } | EgressError::TlsFailed { .. } => NoKeys::Unusable,
        },
    }
}
