//! Real servers for tests: private PostgreSQL and Redis servers on free ports of the loopback address, and a proxy that
//! cuts the way to them. Each lives in a temporary directory and goes away with its value.
//!
//! Where a machine lacks a server, starting it fails and says what to install; nothing here skips a test.

mod directory;
mod place;
mod postgres;
mod proxy;
mod redis;
mod server;

pub use place::Place;
pub use postgres::{Database, Postgres};
pub use proxy::{Cut, CuttingProxy};
pub use redis::Redis;
pub use server::{Missing, NotStarted, free_port};
