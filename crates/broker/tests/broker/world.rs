//! A broker whose names all lead to one server on loopback.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use caracal_authority::{ProviderId, Timestamp, ZoneId};
use caracal_broker::{Broker, BrokerError, Capabilities, SecretDocument, ServiceToken};
use caracal_crypto::Secret;
use caracal_crypto::envelope::{Kek, KekRing};
use caracal_custody::SealedSecrets;
use caracal_http::egress::{AddressPolicy, GuardedConnector, PrivateHosts, Resolver, TlsTrust};
use caracal_store::providers::Provider;
use caracal_store::{Attribution, ManualClock, conformance};
use caracal_testkit::{FakeServer, Place, Received, Reply};
use serde_json::{Value, json};

pub(crate) const NAMES: &[&str] = &["idp.example", "metadata.example", "nat64.example", "private.example"];
const START: i64 = 1_767_225_600;

/// Answers for the names of these tests.
struct Names;

impl Resolver for Names {
    fn resolve<'a>(&'a self, host: &'a str) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>> {
        let address = match host {
            "metadata.example" => "169.254.169.254",
            "nat64.example" => "64:ff9b::a9fe:a9fe",
            "private.example" => "10.1.2.3",
            _ => "127.0.0.1",
        };
        Box::pin(async move { Ok(vec![address.parse().unwrap()]) })
    }
}

pub(crate) struct World {
    pub(crate) server: FakeServer,
    pub(crate) broker: Arc<Broker>,
    pub(crate) clock: Arc<ManualClock>,
    _place: Place,
}

impl World {
    pub(crate) async fn new(answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::patient(Duration::from_secs(30), answer).await
    }

    pub(crate) async fn patient(
        patience: Duration,
        answer: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let server = FakeServer::https(NAMES, answer);
        let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(START)));
        let connector = GuardedConnector::new(
            AddressPolicy::new(true, PrivateHosts::default()),
            Arc::new(Names),
            TlsTrust::from_pem(false, Some(server.authority().as_bytes())),
        );
        let place = Place::new();
        let store = conformance::open(place.path(), place.database_url().as_deref(), clock.clone()).await;
        let (kek, _) = Kek::generate().unwrap();
        let broker = Broker::new(Capabilities {
            connector,
            store,
            sealed: SealedSecrets::new(Arc::new(KekRing::new(kek, None))),
            longest_life: Duration::from_secs(3_600),
        });
        Self { server, broker: Arc::new(broker.with_patience(patience)), clock, _place: place }
    }

    /// A provider whose token endpoint is the server, with these fields beside the usual ones.
    pub(crate) fn provider(&self, more: Value) -> Provider {
        let mut config = json!({
            "token_endpoint": self.endpoint("idp.example"),
            "client_id": "client-1",
            "allowed_token_hosts": NAMES,
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Provider {
            zone_id: ZoneId::parse("z-1").unwrap(),
            id: ProviderId::parse("p-1").unwrap(),
            name: "Provider".to_owned(),
            identifier: "provider://p-1".to_owned(),
            kind: "oauth2_client_credentials".to_owned(),
            config: config.as_object().unwrap().clone(),
            secret_config_keys: Vec::new(),
            connectivity_failed_at: None,
            archived_at: None,
            attribution: Attribution::created("admin", Timestamp::from_seconds(START)),
        }
    }

    pub(crate) fn endpoint(&self, name: &str) -> String {
        format!("https://{name}:{}/token", self.server.port())
    }

    pub(crate) async fn token(&self, provider: &Provider, secrets: Value) -> Result<Arc<ServiceToken>, BrokerError> {
        self.broker.service_token(provider, document(secrets)).await
    }

    /// The reason why there is none.
    pub(crate) async fn no_token(&self, more: Value) -> BrokerError {
        self.token(&self.provider(more), json!({"client_secret": "s-1"})).await.err().unwrap()
    }
}

pub(crate) fn document(secrets: Value) -> SecretDocument {
    SecretDocument::read(Some(&Secret::new(secrets.to_string().into_bytes()))).unwrap()
}

/// A token that says its number.
pub(crate) fn token(number: usize, seconds: u64) -> Reply {
    Reply::json(200, json!({"access_token": format!("t-{number}"), "expires_in": seconds}).to_string())
}
