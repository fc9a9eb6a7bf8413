//! The suite: what [`Streams`] and [`Consumer`] promise, as cases that know nothing of engines.

pub(crate) mod consumers;
pub(crate) mod topics;

use std::any::Any;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caracal_crypto::hmac::HmacKey;
use caracal_store::{BoxFuture, Message, Store, StoreError, streams};
use caracal_stream::{Consumer, ConsumerOptions, ConsumerState, Delivery, Failed, Patience, Streams};
use redis::aio::MultiplexedConnection;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Topics that were empty when they were made.
pub(crate) struct Fresh {
    pub(crate) streams: Streams,
    pub(crate) raw: Raw,
    /// What holds their data, and goes away with them.
    #[allow(dead_code, reason = "held, not read")]
    pub(crate) kept: Box<dyn Any + Send + Sync>,
}

/// The way behind our back: entries that none of us made.
pub(crate) enum Raw {
    Redis(MultiplexedConnection),
    Store(Store),
}

impl Raw {
    pub(crate) async fn add(&self, topic: &str, fields: &[(String, String)]) {
        match self {
            Self::Redis(connection) => {
                let mut command = redis::cmd("XADD");
                command.arg(topic).arg("*");
                for (name, value) in fields {
                    command.arg(name).arg(value);
                }
                let _: String = command.query_async(&mut connection.clone()).await.unwrap();
            }
            Self::Store(store) => {
                let added: Result<i64, StoreError> = store
                    .commit_upkeep((topic.to_owned(), fields.to_vec()), |tx, (topic, fields)| {
                        Box::pin(streams::add(tx, topic, fields))
                    })
                    .await;
                added.unwrap();
            }
        }
    }

    /// Every entry of a topic, as it is stored.
    pub(crate) async fn entries(&self, topic: &str) -> Vec<Vec<(String, String)>> {
        match self {
            Self::Redis(connection) => {
                let entries: Vec<(String, Vec<(String, String)>)> = redis::cmd("XRANGE")
                    .arg(topic)
                    .arg("-")
                    .arg("+")
                    .query_async(&mut connection.clone())
                    .await
                    .unwrap();
                entries.into_iter().map(|(_, fields)| fields).collect()
            }
            Self::Store(store) => {
                let mut snapshot = store.snapshot().await.unwrap();
                let entries = streams::list(&mut snapshot.deployment(), topic, 0, 10_000).await.unwrap();
                entries.into_iter().map(|entry| entry.fields.unwrap()).collect()
            }
        }
    }
}

pub(crate) fn key() -> Arc<HmacKey> {
    Arc::new(HmacKey::from_bytes(&[7; 32]).unwrap())
}

/// Held for the blink of an eye.
pub(crate) const PATIENT: Patience = Patience { first: Duration::from_millis(60), longest: Duration::from_millis(240) };
/// Held for longer than any test runs.
pub(crate) const VERY_PATIENT: Patience =
    Patience { first: Duration::from_secs(600), longest: Duration::from_secs(600) };

pub(crate) fn fields(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The fields of a message that a consumer acts on.
pub(crate) fn message(id: &str) -> Vec<(String, String)> {
    let key = format!("key of {id}");
    fields(&[("outbox_id", id), ("dedupe_key", &key), ("zone_id", "z-1"), ("reason", "requested")])
}

pub(crate) fn ids(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|delivery| delivery.id().to_owned()).collect()
}

pub(crate) async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let waited = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waited).await.unwrap_or_else(|_| panic!("{what}: not within 20 s"));
}

pub(crate) fn options(topic: &str, group: &str, name: &str) -> ConsumerOptions {
    ConsumerOptions { patience: PATIENT, batch: 8, ..ConsumerOptions::new(topic, group, name) }
}

/// A consumer at work, and what its handler saw.
pub(crate) struct Consuming {
    pub(crate) heard: Arc<Mutex<Vec<String>>>,
    pub(crate) state: Arc<ConsumerState>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) task: JoinHandle<()>,
}

impl Consuming {
    /// Handles everything.
    pub(crate) fn start(streams: &Streams, options: ConsumerOptions) -> Self {
        Self::of(Consumer::new(streams.clone(), options))
    }

    pub(crate) fn of(consumer: Consumer) -> Self {
        Self::with(consumer, |_| Box::pin(async { Ok(()) }))
    }

    /// Handles as `handle` does, and notes every try.
    pub(crate) fn with(
        consumer: Consumer,
        handle: impl Fn(Message) -> BoxFuture<'static, Result<(), Failed>> + Send + Sync + 'static,
    ) -> Self {
        let (stop, stopping) = watch::channel(false);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (state, told) = (consumer.state(), heard.clone());
        let task = tokio::spawn(consumer.run(stopping, move |message: Message| {
            told.lock().unwrap().push(message.id.to_string());
            handle(message)
        }));
        Self { heard, state, stop, task }
    }

    pub(crate) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    pub(crate) fn sorted(&self) -> Vec<String> {
        let mut heard = self.heard();
        heard.sort();
        heard
    }

    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
    }
}

/// One test per case over the topics that `$make` makes.
#[macro_export]
macro_rules! conformance_suite {
    ($make:path) => {
        $crate::conformance_suite! { @cases $make;
            topics = topics {
                what_is_published_is_signed_and_read_in_order
                a_message_that_no_consumer_would_act_on_is_not_published
                a_group_begins_where_it_was_told_and_is_made_once
                two_members_of_a_group_share_its_entries
                two_groups_are_each_handed_everything
                who_waits_is_woken_by_what_is_added
                a_group_that_is_not_there_is_said_to_be_absent
                what_is_acknowledged_does_not_come_again
                many_are_acknowledged_at_once_and_no_other
                groups_say_what_they_hold_and_what_they_lack
                trimming_removes_only_what_every_group_has_acknowledged
            }
            t07_streams_pending = topics {
                what_a_dead_member_held_is_taken_over_and_counted
                an_entry_that_keeps_coming_back_waits_longer_each_time
                who_is_still_at_work_is_not_robbed
            }
            t07_streams_dead_letters = topics {
                an_entry_is_put_aside_once_per_group_and_held_no_longer
                a_dead_letter_that_is_tried_again_is_as_it_was
                an_entry_is_put_aside_where_its_reader_says_and_is_as_it_was
            }
            t07_streams = consumers {
                hostile_entries_are_put_aside_once_and_never_acted_on
                a_message_that_comes_again_is_handled_once
                order_means_nothing
                a_group_of_consumers_handles_each_message_once
                a_message_that_keeps_failing_becomes_a_dead_letter
                a_message_that_is_refused_becomes_a_dead_letter_at_once
                an_outage_of_what_a_handler_needs_uses_up_no_tries
                a_handler_that_panics_or_hangs_stops_nobody
                what_a_killed_consumer_held_is_handled_by_another
                a_message_that_kills_its_consumers_is_put_aside_unseen
                stopping_finishes_what_is_in_hand_and_loses_nothing
            }
        }
    };
    (@cases $make:path; $($module:ident = $source:ident { $($case:ident)+ })+) => {
        $(mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $crate::suite::$source::$case($make().await).await;
            })+
        })+
    };
}
