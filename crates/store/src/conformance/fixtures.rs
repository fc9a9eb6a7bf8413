//! What cases are made of.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use caracal_authority::{Timestamp, ZoneId};

use super::{Fresh, Make};
use crate::attribution::Attribution;
use crate::clock::ManualClock;
use crate::error::StoreError;
use crate::store::Store;

/// When the clock of every case stands at first.
pub(super) fn start() -> Timestamp {
    Timestamp::from_seconds(1_800_000_000)
}

/// `seconds` after [`start`], with some microseconds so that precision that is lost shows.
pub(super) fn at(seconds: u64) -> Timestamp {
    start().plus(Duration::from_secs(seconds)).plus(Duration::from_micros(123_456))
}

/// A fresh store whose clock stands at [`start`].
pub(super) async fn fresh(make: Make) -> Fresh {
    make(Arc::new(ManualClock::at(start()))).await
}

pub(super) fn zone(name: &str) -> ZoneId {
    ZoneId::parse(name).unwrap()
}

/// An id of whatever kind is wanted.
macro_rules! id {
    ($text:expr) => {
        $text.parse().unwrap()
    };
}
pub(super) use id;

/// Every column of the two forms an attribution takes when a row is added.
pub(super) fn attribution(full: bool, updated: bool) -> Attribution {
    Attribution {
        created_by: full.then(|| "token:1".to_owned()),
        created_via_operator: full,
        updated_by: None,
        updated_via_operator: None,
        created_at: at(1),
        updated_at: updated.then(|| at(1)),
    }
}

/// What a later change leaves in an attribution.
pub(super) fn touched(attribution: &Attribution) -> Attribution {
    Attribution {
        updated_by: Some("token:2".to_owned()),
        updated_via_operator: Some(true),
        updated_at: Some(at(9)),
        ..attribution.clone()
    }
}

/// Rows are compared by all they hold; they have no equality of their own.
#[track_caller]
pub(super) fn same<T: Debug>(found: &T, expected: &T) {
    assert_eq!(format!("{found:#?}"), format!("{expected:#?}"));
}

/// Holds the store inside a change until it is dropped, so that what is submitted meanwhile has to wait.
pub(super) struct Held {
    release: Option<mpsc::Sender<()>>,
    done: Option<tokio::task::JoinHandle<Result<(), StoreError>>>,
}

impl Held {
    /// Returns once the change runs.
    pub(super) async fn hold(store: &Store) -> Self {
        let (release, released) = mpsc::channel();
        let (running, runs) = tokio::sync::oneshot::channel();
        let input = (std::sync::Mutex::new(Some(running)), std::sync::Mutex::new(released));
        let store = store.clone();
        let done = tokio::spawn(async move {
            store
                .commit_deployment(input, |_, (running, released)| {
                    Box::pin(async move {
                        if let Some(running) = running.lock().unwrap().take() {
                            running.send(()).unwrap();
                        }
                        // An error means that the sender is gone, which is the sign. Engines that run changes on the
                        // runtime are told that this thread is busy.
                        let _ = tokio::task::block_in_place(|| released.lock().unwrap().recv());
                        Ok(())
                    })
                })
                .await
        });
        runs.await.unwrap();
        Self { release: Some(release), done: Some(done) }
    }

    /// Lets the change end, and waits for its answer.
    pub(super) async fn release(mut self) {
        self.release = None;
        if let Some(done) = self.done.take() {
            done.await.unwrap().unwrap();
        }
    }
}
