//! An STS by script. It records what it is asked, uses mandates up in the store as the real one does, and then answers
//! what the test says.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use caracal_crypto::Secret;
use caracal_gateway::{Directive, Exchange, ExchangeRefusal, ExchangeRequest, Permitted, StsUnreachable};
use caracal_store::{BoxFuture, Store, StoreError, used_mandates};
use tokio::sync::Notify;

/// The mandate that the script mints for the resource.
pub(crate) const RESOURCE_MANDATE: &str = "minted.for.resource";

type Script = Box<dyn Fn(&ExchangeRequest) -> Said + Send + Sync>;

/// What the script says to one question.
pub(crate) enum Said {
    /// Decided, after using the mandate up.
    Go(Directive),
    /// Decided, but no upstream is known.
    Nowhere,
    /// Decided against, after using the mandate up.
    No(ExchangeRefusal),
    /// Not decided; the mandate is as good as before.
    Unable(ExchangeRefusal),
    /// Decided when the test says so.
    Wait(Directive),
    /// Never answers.
    Hang,
    /// A decision without a token.
    Empty,
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) zone: String,
    pub(crate) client: String,
    pub(crate) bearer: String,
    pub(crate) jti: String,
    pub(crate) resource: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) request_id: String,
}

pub(crate) struct ScriptedSts {
    store: Store,
    script: Mutex<Script>,
    asked: Mutex<Vec<Asked>>,
    pub(crate) reachable: AtomicBool,
    /// Notified for each question, and to let waiting ones go on.
    pub(crate) arrived: Notify,
    pub(crate) go_on: Notify,
    pub(crate) under_way: AtomicUsize,
}

impl ScriptedSts {
    pub(crate) fn new(store: Store, script: impl Fn(&ExchangeRequest) -> Said + Send + Sync + 'static) -> Self {
        Self {
            store,
            script: Mutex::new(Box::new(script)),
            asked: Mutex::default(),
            reachable: AtomicBool::new(true),
            arrived: Notify::new(),
            go_on: Notify::new(),
            under_way: AtomicUsize::new(0),
        }
    }

    pub(crate) fn says(&self, script: impl Fn(&ExchangeRequest) -> Said + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn times_asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// Uses the mandate up in one commit, like the exchange whose place this takes.
    async fn consume(&self, request: &ExchangeRequest) -> Result<(), ExchangeRefusal> {
        let use_ = (request.jti.clone(), request.request_id.to_string(), request.expires_at);
        let fresh: Result<bool, StoreError> = self
            .store
            .commit(&request.zone, use_, |tx, (jti, request_id, expires_at)| {
                Box::pin(async move { used_mandates::consume(tx, jti.as_str(), request_id, *expires_at).await })
            })
            .await;
        match fresh {
            Ok(true) => Ok(()),
            Ok(false) => Err(ExchangeRefusal::replayed()),
            Err(_) => Err(ExchangeRefusal::unavailable()),
        }
    }

    async fn decide(&self, request: ExchangeRequest) -> Result<Permitted, ExchangeRefusal> {
        let said = (self.script.lock().unwrap())(&request);
        let permitted = |token: &str, upstream| Permitted { access_token: Secret::new(token.to_owned()), upstream };
        match said {
            Said::Unable(refusal) => Err(refusal),
            Said::Hang => std::future::pending().await,
            Said::No(refusal) => {
                self.consume(&request).await?;
                Err(refusal)
            }
            Said::Nowhere => {
                self.consume(&request).await?;
                Ok(permitted(RESOURCE_MANDATE, None))
            }
            Said::Empty => {
                self.consume(&request).await?;
                Ok(permitted("", None))
            }
            Said::Wait(directive) => {
                self.consume(&request).await?;
                self.go_on.notified().await;
                Ok(permitted(RESOURCE_MANDATE, Some(directive)))
            }
            Said::Go(directive) => {
                self.consume(&request).await?;
                Ok(permitted(RESOURCE_MANDATE, Some(directive)))
            }
        }
    }
}

struct UnderWay<'a>(&'a AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Exchange for ScriptedSts {
    fn exchange(&self, request: ExchangeRequest) -> BoxFuture<'_, Result<Permitted, ExchangeRefusal>> {
        self.asked.lock().unwrap().push(Asked {
            zone: request.zone.to_string(),
            client: request.client.to_string(),
            bearer: request.bearer.expose().clone(),
            jti: request.jti.to_string(),
            resource: request.resource.clone(),
            method: request.method.clone(),
            path: request.path.clone(),
            request_id: request.request_id.to_string(),
        });
        self.under_way.fetch_add(1, Ordering::SeqCst);
        self.arrived.notify_one();
        Box::pin(async move {
            let _under_way = UnderWay(&self.under_way);
            self.decide(request).await
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<(), StsUnreachable>> {
        let reachable = self.reachable.load(Ordering::SeqCst);
        Box::pin(async move { if reachable { Ok(()) } else { Err(StsUnreachable) } })
    }
}
