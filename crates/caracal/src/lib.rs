//! The whole system as a library: settings, composition, commands. The binary's `main` only reads the command line;
//! tests start the same system on ports of their own.

mod actors;
mod adapters;
pub mod backup;
pub mod bench;
pub mod commands;
pub mod demo;
mod elected;
mod housekeeping;
mod kept_counters;
mod log_growth;
mod logging;
mod rewrapping;
pub mod settings;
mod shared_counters;
pub mod system;
mod witness;
