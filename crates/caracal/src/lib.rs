//! The whole system as a library: settings, composition, commands. The binary's `main` only reads the command line;
//! tests start the same system on ports of their own.

pub mod commands;
pub mod demo;
pub mod settings;
pub mod system;
