//! Where the store of one test lies: in a directory, or in a database of its own, as the whole run is told.

use std::path::Path;
use std::{fs, io};

use crate::directory::Directory;
use crate::postgres::Database;

/// Names the engine of a run: `postgresql`, or else the embedded one.
const ENGINE: &str = "CARACAL_TEST_ENGINE";

/// A private directory, and the database if the run is on PostgreSQL. Both go away with the value.
pub struct Place {
    directory: Directory,
    database: Option<Database>,
}

impl Place {
    /// Makes one. Panics, saying what is missing, where it can't: a test without its store has failed.
    #[allow(clippy::panic, reason = "a test fails by panicking")]
    pub fn new() -> Self {
        let directory = Directory::create("test").unwrap_or_else(|error| panic!("no directory for a test: {error}"));
        let database = match std::env::var(ENGINE).as_deref() {
            Ok("postgresql") => Some(Database::create_for_store().unwrap_or_else(|error| panic!("{error}"))),
            Ok(other) => panic!("{ENGINE} is `{other}`; it may be `postgresql` or unset"),
            Err(_) => None,
        };
        Self { directory, database }
    }

    /// Another with the same in it. Nobody may have the store open.
    #[must_use]
    #[allow(clippy::panic, reason = "a test fails by panicking")]
    pub fn copy(&self) -> Self {
        let directory = Directory::create("test").unwrap_or_else(|error| panic!("no directory for a test: {error}"));
        copy_files(self.path(), directory.path()).unwrap_or_else(|error| panic!("{error}"));
        let copy = |database: &Database| database.copy().unwrap_or_else(|error| panic!("{error}"));
        Self { directory, database: self.database.as_ref().map(copy) }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The database; none on the embedded engine.
    pub fn database(&self) -> Option<&Database> {
        self.database.as_ref()
    }

    /// Everything that the store has written: its files, or what is in its database.
    #[allow(clippy::panic, reason = "a test fails by panicking")]
    pub fn everything_stored(&self) -> Vec<u8> {
        if let Some(database) = &self.database {
            return database.dump().unwrap_or_else(|error| panic!("{error}")).into_bytes();
        }
        let files = std::fs::read_dir(self.path()).unwrap_or_else(|error| panic!("{error}"));
        files.flatten().flat_map(|file| std::fs::read(file.path()).unwrap_or_default()).collect()
    }

    /// The database's address; none on the embedded engine.
    pub fn database_url(&self) -> Option<String> {
        self.database.as_ref().map(Database::url)
    }
}

fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            fs::create_dir(&to)?;
            copy_files(&from, &to)?;
        } else {
            fs::copy(from, to)?;
        }
    }
    Ok(())
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}
