//! `caracal`: one binary, one process by default. This file is the command line; what each command does is in
//! [`caracal::commands`].

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use caracal::bench::{self, BenchFlags};
use caracal::commands::{
    self, BackupFlags, ExplainFlags, ExportFlags, Failure, ProveFlags, ReplayFlags, RestoreFlags, VerifyFileFlags,
};
use caracal::settings::UpFlags;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Decides what an AI agent may do before it does it, proves what it did, and takes authority back at once.
#[derive(Parser)]
#[command(name = "caracal", disable_version_flag = true, arg_required_else_help = true)]
struct CommandLine {
    /// Say which version this is.
    #[arg(short = 'v', long)]
    version: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run everything in this process until Ctrl-C or SIGTERM: on the embedded store, or on DATABASE_URL and REDIS_URL.
    Up(Up),
    /// Run some services in this process, beside others on the same PostgreSQL and Redis.
    Serve {
        /// Comma-separated: api, sts, gateway, audit, coordinator.
        #[arg(long, value_name = "ROLES")]
        roles: String,
        #[command(flatten)]
        up: Up,
    },
    /// The settings that a start would run on.
    #[command(subcommand)]
    Config(Config),
    /// Bring the schema of the database in DATABASE_URL up to date, or move a whole embedded store there. Needs a login
    /// that owns the database.
    Migrate {
        /// Only say what is missing: exit 0 when nothing is.
        #[arg(long, conflicts_with = "from")]
        check: bool,
        /// Move everything out of a data directory whose system is stopped. It is not changed, but for a mark that keeps
        /// it from being started again.
        #[arg(long, value_name = "ENGINE", requires = "to")]
        from: Option<MovesFrom>,
        /// Where to: the database in DATABASE_URL, which must be empty.
        #[arg(long, value_name = "ENGINE", requires = "from")]
        to: Option<MovesTo>,
        /// The data directory that moves.
        #[arg(long, value_name = "DIR", requires = "from")]
        data_dir: Option<PathBuf>,
        /// JSON instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Copy the embedded store into one archive, while it runs or not. A database on a server has its own tools.
    Backup {
        /// The data directory.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// The archive to make.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// Put the key files into it. Then the archive is as secret as all of them.
        #[arg(long)]
        with_secrets: bool,
        /// Replace an archive that is there already.
        #[arg(long)]
        force: bool,
        /// JSON instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Make a data directory out of an archive. Everything that was alive in it is ended: agents start anew.
    Restore {
        /// The archive.
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// The data directory to make; must not be there, or be empty.
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
        /// A directory of key files to put into it, for an archive that has none.
        #[arg(long, value_name = "DIR")]
        secrets: Option<PathBuf>,
        /// Accept an archive that no key from elsewhere vouches for.
        #[arg(long)]
        accept_unsealed: bool,
        /// JSON instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Show a governed call end to end, with a real agent, a real upstream and a real ledger, in a temporary place.
    Demo {
        /// One JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Measure what a governed call takes: a system of its own in a temporary place or one that runs, callers and an API.
    Bench(BenchFlags),
    /// Ask every service of a running system whether it is alive.
    Status {
        /// Ask for readiness instead of liveness.
        #[arg(long)]
        ready: bool,
        /// JSON instead of text.
        #[arg(long)]
        json: bool,
        /// The offset the system was started with.
        #[arg(long, value_name = "N", default_value_t = 0)]
        port_offset: u16,
        /// The address the system was started on.
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
        bind: IpAddr,
    },
    /// The evidence ledger.
    #[command(subcommand)]
    Audit(Audit),
    /// The topics: who reads them, and what nobody could act on.
    #[command(subcommand)]
    Streams(Streams),
    /// What is sealed in the store.
    #[command(subcommand)]
    Secrets(Secrets),
    /// Say which version this is.
    Version {
        /// One line of JSON.
        #[arg(long)]
        json: bool,
    },
}

/// The engine that a store can leave.
#[derive(Clone, Copy, ValueEnum)]
enum MovesFrom {
    Sqlite,
}

/// The engine that a store can move to.
#[derive(Clone, Copy, ValueEnum)]
enum MovesTo {
    Postgres,
}

#[derive(Args)]
struct Up {
    /// Where the store, the keys and the ledger's heads lie.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address to listen on. Anything but loopback is held to production rules (CARACAL_MODE=stable).
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    bind: IpAddr,
    /// Added to each of the ports 3000 (api), 8080 (sts), 8081 (gateway), 9090 (audit) and 4000 (coordinator).
    #[arg(long, value_name = "N", default_value_t = 0)]
    port_offset: u16,
    /// JSON instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Config {
    /// Say every mistake at once, and what every variable would be and why. Starts nothing, makes nothing: exit 0 when
    /// `caracal up`, or `caracal serve` with the same roles, would accept it.
    Check {
        /// The roles of `caracal serve`; without them what `caracal up` would read.
        #[arg(long, value_name = "ROLES")]
        roles: Option<String>,
        #[command(flatten)]
        up: Up,
    },
}

#[derive(Subcommand)]
enum Audit {
    /// Verify every chain of a store, and the tree beside it: exit 0 only if all of it holds. Works on a copy and beside a
    /// running system. With FILE: verify an evidence file, offline, with the log's public key alone.
    Verify {
        /// The evidence file that `caracal audit prove` wrote.
        #[arg(value_name = "FILE", requires = "log_key", conflicts_with = "data_dir")]
        file: Option<PathBuf>,
        /// The public key that `caracal audit log-key` printed, or a file with it. Not the one that the file names.
        #[arg(long, value_name = "KEY", requires = "file")]
        log_key: Option<String>,
        /// A file with an older checkpoint of that log: the file must show that the log continues it.
        #[arg(long, value_name = "CHECKPOINT", requires = "file")]
        since: Option<PathBuf>,
        /// The public key of a witness that must have seen the file's checkpoint, or a file with it. Can be repeated.
        #[arg(long, value_name = "KEY", requires = "file")]
        witness: Vec<String>,
        /// The data directory.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// JSON instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Decide recorded questions anew by another version of a policy set, and say what would have been decided otherwise.
    /// Changes nothing; works beside a running system.
    Replay {
        /// The version of a policy set to decide by, active or not, by its id.
        #[arg(long, value_name = "VERSION", alias = "policy-set-version")]
        policy_set: String,
        /// The zone, by its id; without it, the version's.
        #[arg(long, value_name = "ID")]
        zone: Option<String>,
        /// Only what happened since: an instant such as 2026-01-01T00:00:00Z, or so long ago, such as 7d.
        #[arg(long, value_name = "WHEN")]
        since: Option<String>,
        /// How many of the changes to show.
        #[arg(long, value_name = "N", default_value_t = 20)]
        examples: usize,
        /// The data directory of an embedded store; without it, and with DATABASE_URL, that database.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// JSON instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Tell what happened under one request, top to bottom: who asked for what, how it was decided, why, and how it ended.
    /// Works beside a running system.
    Explain {
        /// The request: the `requestId` of an answer, or its X-Request-Id.
        #[arg(value_name = "REQUEST_ID")]
        request_id: String,
        /// The zone; needed only where several have a request of that id.
        #[arg(long, value_name = "ID")]
        zone: Option<String>,
        /// The data directory of an embedded store; without it, and with DATABASE_URL, that database.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// JSON instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Write what happened under one request into a file that anybody can verify who has the log's public key. Works beside
    /// a running system.
    Prove {
        /// The request: the `requestId` of an answer, or its X-Request-Id.
        #[arg(value_name = "REQUEST_ID")]
        request_id: String,
        /// The zone; needed only where several have a request of that id.
        #[arg(long, value_name = "ID")]
        zone: Option<String>,
        /// Where to write it; `-` for standard output. [default: REQUEST_ID.evidence.json]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// A file with an older checkpoint: the file then shows that the log continues it.
        #[arg(long, value_name = "CHECKPOINT")]
        since: Option<PathBuf>,
        /// A file with the checkpoint to prove by, one that witnesses have signed, say, instead of the newest.
        #[arg(long, value_name = "CHECKPOINT")]
        checkpoint: Option<PathBuf>,
        /// The data directory.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// JSON instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Write a zone's events into one Parquet file of the archive's form, by their position in the chain. Never writes over
    /// a file; works beside a running system.
    Export {
        /// The zone, by its id.
        #[arg(long, value_name = "ID")]
        zone: String,
        /// The file to make.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// The first position. [default: the first there is]
        #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(i64).range(1..))]
        from: Option<i64>,
        /// The last position. [default: the last there is]
        #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(i64).range(1..))]
        to: Option<i64>,
        /// The data directory of an embedded store; without it, and with DATABASE_URL, that database.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// JSON instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Print the public keys that checkpoints and evidence files are verified with, one for each zone.
    LogKey {
        /// Only that of this zone.
        #[arg(long, value_name = "ID")]
        zone: Option<String>,
        /// The data directory.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// JSON instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Print the newest signed checkpoint of a zone's log, for an auditor or a witness to keep.
    Checkpoint {
        /// The zone.
        #[arg(long, value_name = "ID")]
        zone: String,
        /// The data directory.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
}

impl Audit {
    fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::Verify { file: Some(file), log_key: Some(log_key), since, witness: witnesses, json, .. } => {
                commands::verify_file(&VerifyFileFlags { file, log_key, since, witnesses, json })
            }
            Self::Verify { data_dir, json, .. } => commands::verify(data_dir, json),
            Self::Prove { request_id, zone, out, since, checkpoint, data_dir, json } => {
                commands::prove(&ProveFlags { request_id, zone, out, since, checkpoint, data_dir, json })
            }
            Self::Explain { request_id, zone, data_dir, json } => {
                commands::explain(&ExplainFlags { request_id, zone, data_dir, json })
            }
            Self::Replay { zone, policy_set: version, since, examples, data_dir, json } => {
                commands::replay(&ReplayFlags { zone, version, since, examples, data_dir, json })
            }
            Self::Export { zone, out, from, to, data_dir, json } => {
                commands::export(&ExportFlags { zone, out, from, to, data_dir, json })
            }
            Self::LogKey { zone, data_dir, json } => commands::log_key(zone.as_deref(), data_dir, json),
            Self::Checkpoint { zone, data_dir } => commands::checkpoint(&zone, data_dir),
        }
    }
}

#[derive(Subcommand)]
enum Secrets {
    /// Seal everything anew under SECRET_STORE_KEK, with the former key as SECRET_STORE_KEK_PREVIOUS. Can be interrupted
    /// and run again. On servers it works beside the processes; an embedded store must not be in use.
    Rewrap {
        /// Only count what still needs the previous key, beside a running system: exit 1 when anything does.
        #[arg(long)]
        check: bool,
        /// The data directory of an embedded store; without it, and with DATABASE_URL, that database.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// JSON instead of text.
        #[arg(long)]
        json: bool,
    },
}

/// Where the topics are: those of DATABASE_URL and REDIS_URL, unless a data directory is named or neither is set.
#[derive(Args)]
struct Topics {
    /// The data directory of an embedded store.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// JSON instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Streams {
    /// Show every topic: entries, dead letters, and how far each group is. Works beside a running system.
    Show {
        #[command(flatten)]
        topics: Topics,
    },
    /// List a topic's dead letters, oldest first. Works beside a running system.
    Dead {
        /// The topic, without `.dead`.
        topic: String,
        #[command(flatten)]
        topics: Topics,
    },
    /// Add the entry of a dead letter to its topic once more, as it was. An embedded store must not be in use.
    Retry {
        /// The topic, without `.dead`.
        topic: String,
        /// Ids of dead letters.
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        topics: Topics,
    },
}

fn main() -> ExitCode {
    let command = match CommandLine::try_parse() {
        Ok(CommandLine { version: true, .. }) => Command::Version { json: false },
        Ok(CommandLine { command: Some(command), .. }) => command,
        Ok(CommandLine { command: None, .. }) => return usage(&CommandLine::command().render_help().to_string()),
        Err(said) => return misunderstood(&said),
    };
    let done = match command {
        Command::Up(Up { data_dir, bind, port_offset, json }) => {
            commands::up(&UpFlags { data_dir, bind, port_offset, roles: None }, json)
        }
        Command::Serve { roles, up: Up { data_dir, bind, port_offset, json } } => {
            commands::up(&UpFlags { data_dir, bind, port_offset, roles: Some(roles) }, json)
        }
        Command::Config(Config::Check { roles, up: Up { data_dir, bind, port_offset, json } }) => {
            commands::check_config(&UpFlags { data_dir, bind, port_offset, roles }, json)
        }
        Command::Migrate { from: Some(MovesFrom::Sqlite), to: Some(MovesTo::Postgres), data_dir, json, .. } => {
            commands::move_to_postgres(data_dir, json)
        }
        Command::Migrate { check, json, .. } => commands::migrate(check, json),
        Command::Backup { data_dir, to, with_secrets, force, json } => {
            commands::backup(&BackupFlags { data_dir, to, with_secrets, force, json })
        }
        Command::Restore { from, data_dir, secrets, accept_unsealed, json } => {
            commands::restore(&RestoreFlags { from, data_dir, secrets, accept_unsealed, json })
        }
        Command::Demo { json } => commands::demo(json),
        Command::Bench(flags) => bench::run(&flags),
        Command::Status { ready, json, port_offset, bind } => commands::status(bind, port_offset, ready, json),
        Command::Audit(audit) => audit.run(),
        Command::Streams(Streams::Show { topics: Topics { data_dir, json } }) => commands::show_streams(data_dir, json),
        Command::Streams(Streams::Dead { topic, topics: Topics { data_dir, json } }) => {
            commands::list_dead_letters(data_dir, &topic, json)
        }
        Command::Streams(Streams::Retry { topic, ids, topics: Topics { data_dir, json } }) => {
            commands::retry_dead_letters(data_dir, &topic, &ids, json)
        }
        Command::Secrets(Secrets::Rewrap { check, data_dir, json }) => commands::rewrap(data_dir, check, json),
        Command::Version { json } => commands::version(json),
    };
    match done {
        Ok(code) => code,
        Err(Failure(message)) => {
            commands::say_failure(&message);
            ExitCode::FAILURE
        }
    }
}

/// Usage is what was asked for: standard output, exit 0 (contract: control-cli-deploy.md §4.1).
fn usage(text: &str) -> ExitCode {
    commands::say(text);
    ExitCode::SUCCESS
}

fn misunderstood(said: &clap::Error) -> ExitCode {
    match said.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            usage(&said.render().to_string())
        }
        _ => {
            commands::say_failure(&said.render().to_string());
            ExitCode::FAILURE
        }
    }
}
