//! `caracal migrate --from sqlite --to postgres`: a whole system moves from a data directory to the database in
//! `DATABASE_URL`. What a move is, and what it can leave behind when it fails, is told in [`caracal_store::moving`]; here
//! are the ledger's part and what the operator is told.
//!
//! The chains are verified at the source against its recorded heads, and in the target's transaction before it is
//! committed: so a ledger that does not verify neither moves nor arrives. The heads go over as well, into the directory
//! where a process on that database looks for them, if it is started with the same `--data-dir`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use caracal_ledger::{Chain, ChainKey, Head, HeadsFile, LedgerReport, read_heads, verify_store};
use caracal_store::PostgresOptions;
use caracal_store::moving::{self, Contents, Progress, Source, Stage, Target};

use super::progress::Line;
use super::{Failure, environment, runtime};
use crate::settings::{SecretFiles, database, default_data_dir};
use crate::system::heads_dir;

/// Moves the store of a data directory. Exit 0 once it stands on the server, also when it did before.
pub fn move_to_postgres(data_dir: Option<PathBuf>, json: bool) -> Result<ExitCode, Failure> {
    let environment = environment();
    let target = database(&environment)?.ok_or_else(|| {
        Failure("DATABASE_URL is not set: it names the empty database to move to, with a login that owns it".to_owned())
    })?;
    let data_dir = data_dir.map_or_else(|| default_data_dir(&environment), Ok)?;
    let secrets = SecretFiles::in_data_dir(&data_dir);
    // Before the key: what is no data directory of ours has none, and that is not what is wrong with it.
    let source = Source::open(&data_dir)?;
    let Some(key) = secrets.load_audit_key(&environment)? else {
        return Err(Failure(format!(
            "`{}` has no audit key (secrets/auditHmacKey), and AUDIT_HMAC_KEY is not set: without it nobody could tell \
             whether the ledger arrived as it was",
            data_dir.display()
        )));
    };
    let shown = Shown(Line::new(json));
    let key: Arc<dyn ChainKey> = key;
    let house = House { data_dir, target, key, shown };
    let moved = runtime()?.block_on(house.go(source));
    house.shown.0.clear();
    let moved = moved?;
    let keys = secrets.present();
    if json {
        println!("{}", moved.as_json(&house, &keys));
    } else {
        moved.tell(&house, &keys);
    }
    Ok(ExitCode::SUCCESS)
}

/// Where from and where to.
struct House {
    data_dir: PathBuf,
    target: PostgresOptions,
    key: Arc<dyn ChainKey>,
    shown: Shown,
}

/// What stands on the server.
struct Moved {
    /// Whether an earlier run brought it there.
    already: bool,
    contents: Contents,
    ledger: LedgerReport,
    /// The file that keeps the source from being started.
    mark: PathBuf,
}

impl House {
    async fn go(&self, mut source: Source) -> Result<Moved, Failure> {
        let (place, heads) = (self.target.place(), heads_dir(&self.data_dir, &self.target.place()));
        let marked = source.moved_to()?;
        // What can be known without reading a row comes first.
        let arrived = moving::arrived_at(&self.target).await?;
        if marked.is_some() && arrived.is_none() {
            // Another server, or one that was emptied: two systems must not live on from one state.
            source.refuse_moved()?;
        }
        let contents = source.contents(|progress| self.shown.rows(progress))?;
        let already = match arrived {
            Some(digest) if digest == contents.sha256() => true,
            Some(_) => {
                return Err(Failure(format!(
                    "the database `{place}` holds what another store, or this one in an earlier state, moved to it; name \
                     an empty database in DATABASE_URL"
                )));
            }
            None => false,
        };
        let ledger = self.verify_source(&mut source)?;
        if !already {
            self.check_heads(&heads, &ledger)?;
            let mut target = Target::begin(self.target.clone(), &source).await?;
            target.take(&mut source, &contents, |progress| self.shown.rows(progress)).await?;
            let arrived = self.verify_target(&mut target, &ledger).await?;
            if chains(&arrived) != chains(&ledger) || !arrived.is_intact() {
                return Err(Failure(format!(
                    "the ledger arrived otherwise than it left, so nothing was kept:\n{arrived}"
                )));
            }
            target.commit(&contents).await?;
        }
        // From here on it stands; a run that ends here is finished by the next one.
        let finished = self.record_heads(&heads, &ledger).and_then(|()| match marked {
            Some(_) => Ok(source.mark()),
            None => Ok(source.mark_moved_to(&place)?),
        });
        let mark = finished.map_err(|Failure(why)| {
            Failure(format!(
                "everything stands in `{place}`, but the source could not be marked as moved ({why}): do not start it; run \
                 the command again once that is mended"
            ))
        })?;
        Ok(Moved { already, contents, ledger, mark })
    }

    fn verify_source(&self, source: &mut Source) -> Result<LedgerReport, Failure> {
        let recorded = read_heads(&self.data_dir, self.key.as_ref())?;
        let report = source.run(async |tx| {
            let recorded = recorded.clone().unwrap_or_default();
            verify_store(tx, Some(self.key.as_ref()), &recorded, |chain, seq| self.shown.chain(chain, seq)).await
        })?;
        let dir = self.data_dir.display();
        if recorded.is_none() && !report.chains.is_empty() {
            return Err(Failure(format!(
                "`{dir}` has no heads.log: whether the end of the ledger was cut off can't be told. Restore the file, then \
                 move"
            )));
        }
        if !report.is_intact() {
            return Err(Failure(format!("the ledger in `{dir}` does not verify, so it does not move:\n{report}")));
        }
        Ok(report)
    }

    async fn verify_target(&self, target: &mut Target, left: &LedgerReport) -> Result<LedgerReport, Failure> {
        let recorded: BTreeMap<Chain, Head> = heads_of(left).into_iter().collect();
        let progress = |chain: &Chain, seq: i64| self.shown.chain(chain, seq);
        Ok(verify_store(&mut target.deployment(), Some(self.key.as_ref()), &recorded, progress).await?)
    }

    /// Refuses to move beside the memory of another ledger at the same place: whoever is started with this directory would
    /// take the one that arrives for rolled back.
    fn check_heads(&self, dir: &Path, ledger: &LedgerReport) -> Result<(), Failure> {
        let remembered = read_heads(dir, self.key.as_ref())?.unwrap_or_default();
        for (chain, remembered) in remembered {
            let moving =
                ledger.chains.iter().find(|report| report.chain == chain).and_then(|report| report.head.as_ref());
            let ahead = moving.is_none_or(|head| {
                head.chain_seq < remembered.chain_seq || (head.chain_seq == remembered.chain_seq && *head != remembered)
            });
            if ahead {
                return Err(Failure(format!(
                    "`{}` remembers a ledger of that database in which the {chain} had {} events, and here it has not. If \
                     that database is gone for good, move the directory away",
                    dir.display(),
                    remembered.chain_seq
                )));
            }
        }
        Ok(())
    }

    /// Hands on how far the chains had come. A process that has been at work there since may know of more.
    fn record_heads(&self, dir: &Path, ledger: &LedgerReport) -> Result<(), Failure> {
        std::fs::create_dir_all(dir)?;
        let mut file = HeadsFile::open(dir, self.key.clone())?;
        let known = file.heads().clone();
        let newer = |chain: &Chain, head: &Head| known.get(chain).is_none_or(|known| known.chain_seq < head.chain_seq);
        let mut heads = heads_of(ledger);
        heads.retain(|(chain, head)| newer(chain, head));
        file.record(&heads)?;
        Ok(file.close()?)
    }
}

/// What two verifications have to agree on.
fn chains(report: &LedgerReport) -> Vec<(u64, Chain, Option<Head>)> {
    report.chains.iter().map(|chain| (chain.rows, chain.chain.clone(), chain.head.clone())).collect()
}

fn heads_of(report: &LedgerReport) -> Vec<(Chain, Head)> {
    report.chains.iter().filter_map(|chain| Some((chain.chain.clone(), chain.head.clone()?))).collect()
}

impl Moved {
    fn tell(&self, house: &House, keys: &[(&'static str, PathBuf)]) {
        let (place, rows, tables) = (house.target.place(), self.contents.rows(), self.contents.tables.len());
        match self.already {
            true => println!("Already there: `{place}` holds the {rows} rows of `{}`", house.data_dir.display()),
            false => println!("Moved {rows} rows of {tables} tables to `{place}`, each read back and compared"),
        }
        println!("{}", self.ledger.to_string().lines().last().unwrap_or_default());
        println!("`{}` keeps this directory from being started again", self.mark.display());
        println!("\nEvery process on that database needs the same keys. These lie in files here, for NAME_FILE:");
        for (variable, file) in keys {
            println!("  {variable}_FILE={}", file.display());
        }
        println!(
            "Those that the environment gave stay as they were, and so does ISSUER_URL, or what was minted is void."
        );
        println!("Next: the login that runs, Redis, and `caracal serve`, as docs/replicas.md says");
    }

    fn as_json(&self, house: &House, keys: &[(&'static str, PathBuf)]) -> serde_json::Value {
        let tables = self
            .contents
            .tables
            .iter()
            .map(|table| serde_json::json!({ "name": table.name, "rows": table.rows, "sha256": table.sha256 }));
        let keys = keys.iter().map(|(variable, file)| serde_json::json!({ "variable": variable, "file": file }));
        serde_json::json!({
            "moved": !self.already, "already_there": self.already, "data_dir": house.data_dir,
            "database": house.target.place(), "rows": self.contents.rows(), "sha256": self.contents.sha256(),
            "tables": tables.collect::<Vec<_>>(), "ledger": self.ledger, "mark": self.mark,
            "keys": keys.collect::<Vec<_>>(),
        })
    }
}

/// Progress.
struct Shown(Line);

impl Shown {
    fn rows(&self, Progress { stage, table, rows, of }: Progress<'_>) {
        let doing = match stage {
            Stage::Reading => "reading",
            Stage::Copying => "copying",
            Stage::Comparing => "comparing",
        };
        let of = of.map_or_else(String::new, |all| format!(" of {all}"));
        self.0.show(&format!("{doing} {table}: {rows}{of} rows"));
    }

    fn chain(&self, chain: &Chain, rows: i64) {
        self.0.show(&format!("verifying the {chain}: {rows} rows"));
    }
}
