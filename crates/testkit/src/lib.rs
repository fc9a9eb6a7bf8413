//! Real servers for tests: private PostgreSQL and Redis servers on free ports of the loopback address, a proxy that cuts
//! the way to them, and servers that say over real TLS what a test wants. Each goes away with its value. And [`corpora`] of
//! inputs that others got wrong, and what holds a table of edge cases to its tests.
//!
//! Where a machine lacks a server, starting it fails and says what to install; nothing here skips a test.

pub mod corpora;
mod directory;
mod edge_cases;
#[cfg(feature = "fake")]
mod fake;
#[cfg(feature = "logs")]
pub mod logs;
mod place;
mod postgres;
mod proxy;
mod redis;
mod server;
mod steps;

pub use edge_cases::{Row, unproved};
#[cfg(feature = "fake")]
pub use fake::{FakeServer, Received, Reply, client_pair, pair_for};
pub use place::Place;
pub use postgres::{Database, Postgres};
pub use proxy::{Cut, CuttingProxy};
pub use redis::Redis;
pub use server::{Missing, NotStarted, free_port, strace};
pub use steps::{Steps, kill_at};
