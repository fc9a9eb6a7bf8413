//! One identity provider for all tests: its server is trusted by every broker, and what it says depends on the path that
//! is asked, so that each test has an endpoint of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use caracal_broker::{Broker, Capabilities};
use caracal_crypto::chance;
use caracal_custody::SealedSecrets;
use caracal_http::egress::{AddressPolicy, GuardedConnector, PrivateHosts, SystemResolver, TlsTrust};
use caracal_store::Store;
use caracal_testkit::{FakeServer, Received, Reply};

type Answer = Arc<dyn Fn(&Received) -> Reply + Send + Sync>;

static ANSWERS: OnceLock<Mutex<HashMap<String, Answer>>> = OnceLock::new();

fn answers() -> std::sync::MutexGuard<'static, HashMap<String, Answer>> {
    ANSWERS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

fn server() -> &'static FakeServer {
    static SERVER: OnceLock<FakeServer> = OnceLock::new();
    SERVER.get_or_init(|| {
        FakeServer::https(&[], |request| {
            let answer = answers().get(request.path()).cloned();
            answer.map_or_else(|| Reply::json(404, "{}"), |answer| answer(request))
        })
    })
}

/// A broker that trusts the provider, and reaches loopback.
pub(crate) fn broker(store: &Store, sealed: &SealedSecrets) -> Arc<Broker> {
    tuned_broker(store, sealed, |broker| broker)
}

/// The same with other times.
pub(crate) fn tuned_broker(store: &Store, sealed: &SealedSecrets, tune: impl FnOnce(Broker) -> Broker) -> Arc<Broker> {
    let connector = GuardedConnector::new(
        AddressPolicy::new(true, PrivateHosts::default()),
        Arc::new(SystemResolver::new()),
        TlsTrust::from_pem(false, Some(server().authority().as_bytes())),
    );
    let (store, sealed, longest_life) = (store.clone(), sealed.clone(), Duration::from_secs(3_600));
    let broker = Broker::new(Capabilities { connector, store, sealed, longest_life });
    Arc::new(tune(broker.with_patience(Duration::from_secs(60))))
}

/// A token endpoint of its own.
pub(crate) struct TokenEndpoint {
    path: String,
}

impl TokenEndpoint {
    pub(crate) fn new(answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let path = format!("/{}", chance::uuid_v4().unwrap());
        answers().insert(path.clone(), Arc::new(answer));
        Self { path }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}{}", server().url(), self.path)
    }

    /// What it was asked.
    pub(crate) fn seen(&self) -> Vec<Received> {
        let mut seen = server().seen();
        seen.retain(|request| request.path() == self.path);
        seen
    }
}
