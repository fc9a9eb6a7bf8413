//! Measures what docs/performance.md says, and writes it there.
//!
//! It runs `caracal bench` of a release build, one measurement after the other, keeps what each says in
//! `DIR/performance/measured.json` with a plot for each curve, and writes the tables of `DIR/performance.md` from that file.
//! Parts that are named are measured again, the others stay; `--page` only writes the tables. PostgreSQL and Redis are taken
//! from CARACAL_TEST_POSTGRES_URL and CARACAL_TEST_REDIS_URL; databases are made there, and removed.

mod page;

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use caracal_testkit::Database;
use serde_json::{Value, json};

type Done<T = ()> = Result<T, Box<dyn Error>>;

const USAGE: &str = "performance --docs DIR (--page | --binary PATH --ledger PATH [--seconds S] [--small] [PART…])";
/// What can be measured by itself.
const PARTS: [&str; 10] = [
    "closed",
    "parts",
    "overload",
    "units",
    "beside-sessions",
    "beside-zones",
    "beside-events",
    "beside-grants",
    "ledger",
    "postgresql",
];
/// Until the server's upkeep has looked at a new database, its planner takes every table for empty.
const POSTGRES_WARM_UP: f64 = 75.0;

struct Arguments {
    docs: PathBuf,
    binary: PathBuf,
    ledger: PathBuf,
    seconds: f64,
    small: bool,
    page: bool,
    parts: Vec<String>,
}

fn arguments() -> Done<Arguments> {
    let mut given = Arguments {
        docs: PathBuf::new(),
        binary: PathBuf::new(),
        ledger: PathBuf::new(),
        seconds: 8.0,
        small: false,
        page: false,
        parts: Vec::new(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(USAGE);
        match word.as_str() {
            "--docs" => given.docs = value()?.into(),
            "--binary" => given.binary = value()?.into(),
            "--ledger" => given.ledger = value()?.into(),
            "--seconds" => given.seconds = value()?.parse()?,
            "--small" => given.small = true,
            "--page" => given.page = true,
            part if PARTS.contains(&part) => given.parts.push(part.to_owned()),
            _ => return Err(format!("{USAGE}; the parts are {}", PARTS.join(", ")).into()),
        }
    }
    if given.parts.is_empty() {
        given.parts = PARTS.map(str::to_owned).into();
    }
    let is_told = given.page || !(given.binary.as_os_str().is_empty() || given.ledger.as_os_str().is_empty());
    if given.docs.as_os_str().is_empty() || !is_told { Err(USAGE.into()) } else { Ok(given) }
}

fn main() -> Done {
    let arguments = arguments()?;
    let measured = arguments.docs.join("performance/measured.json");
    if !arguments.page {
        let series = Series::new(&arguments)?;
        let mut found = read(&measured).unwrap_or_else(|_| json!({}));
        for part in &arguments.parts {
            found[part] = series.measure(part)?;
            let now = machine();
            // What stays was measured on an earlier build.
            found["again"][part] = json!({"date": now["date"], "commit": now["commit"]});
            if arguments.parts.len() == PARTS.len() {
                found["machine"] = now;
            }
            std::fs::write(&measured, lines(&found)?)?;
        }
    }
    let found = read(&measured)?;
    let path = arguments.docs.join("performance.md");
    let written = page::put(&std::fs::read_to_string(&path)?, &page::tables(&found)).ok_or(page::NO_PLACE)?;
    std::fs::write(path, written)?;
    Ok(())
}

/// A line for each part, so that a difference shows which was measured again.
fn lines(found: &Value) -> Done<String> {
    let parts = found.as_object().into_iter().flatten();
    let parts =
        parts.map(|(part, said)| Ok(format!("{}: {said}", serde_json::to_string(part)?))).collect::<Done<Vec<_>>>()?;
    Ok(format!("{{\n{}\n}}\n", parts.join(",\n")))
}

fn read(measured: &Path) -> Done<Value> {
    Ok(serde_json::from_str(&std::fs::read_to_string(measured)?)?)
}

/// The measurements, one after the other.
struct Series<'a> {
    arguments: &'a Arguments,
    plots: PathBuf,
}

impl<'a> Series<'a> {
    fn new(arguments: &'a Arguments) -> Done<Self> {
        let plots = arguments.docs.join("performance");
        std::fs::create_dir_all(&plots)?;
        Ok(Self { arguments, plots })
    }

    fn measure(&self, part: &str) -> Done<Value> {
        match part {
            "closed" => self.closed(),
            "parts" => self.parts(),
            "overload" => self.bench(&["--overload", "--in-flight", "4000", "--plot", &self.plot("overload.svg")], "2"),
            "units" => {
                let units = ["mint", "verify", "cycle", "delegate", "append", "list", "search", "manage"];
                units.iter().map(|unit| self.bench(&["--what", unit], "1")).collect()
            }
            "ledger" => self.ledger(),
            "postgresql" => self.postgresql(),
            what => self.beside(what.trim_start_matches("beside-")),
        }
    }

    /// More and more callers, and half of what eight of them get done as an open loop.
    fn closed(&self) -> Done<Value> {
        let callers = ["1", "2", "4", "8", "16", "32"];
        let runs: Vec<Value> =
            callers.iter().map(|callers| self.bench(&["--workers", callers], "2")).collect::<Done<_>>()?;
        let half = runs[3]["governed"]["per_second"].as_f64().ok_or("no throughput")? / 2.0;
        let half = self.bench(&["--rate", &format!("{half:.0}"), "--plot", &self.plot("half-load.svg")], "2")?;
        Ok(json!({"runs": runs, "half": half}))
    }

    /// A governed call taken apart, with few callers and with many.
    fn parts(&self) -> Done<Value> {
        ["1", "8", "32"].iter().map(|callers| self.bench(&["--parts", "--workers", callers], "2")).collect()
    }

    /// More and more of what stands there, with two callers: what is compared is how long each call takes.
    fn beside(&self, what: &str) -> Done<Value> {
        let numbers = match (what, self.arguments.small) {
            (_, true) => "10,300",
            ("sessions", _) => "1000,30000,1000000",
            ("zones", _) => "10,300,10000",
            ("events", _) => "1000,100000,10000000",
            _ => "10,200,5000",
        };
        let plot = self.plot(&format!("beside-{what}.svg"));
        self.bench(&["--workers", "2", "--beside", what, "--numbers", numbers, "--plot", &plot], "2")
    }

    fn ledger(&self) -> Done<Value> {
        let sizes = if self.arguments.small { "10000,20000" } else { "10000,100000,1000000,10000000" };
        let said = self.said(Command::new(&self.arguments.ledger).args(["--json", "--sizes", sizes]))?;
        let sizes: Vec<Value> = said.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        Ok(sizes.into())
    }

    fn postgresql(&self) -> Done<Value> {
        let redis = std::env::var("CARACAL_TEST_REDIS_URL").map_err(|_| "CARACAL_TEST_REDIS_URL is not set")?;
        let warm_up = if self.arguments.small { 1.0 } else { POSTGRES_WARM_UP };
        let mut found = Vec::new();
        for workers in ["8", "32"] {
            let database = Database::create().map_err(|error| error.to_string())?;
            let flags = ["--workers", workers, "--postgres", &database.url(), "--redis", &redis];
            found.push(self.bench(&flags, &warm_up.to_string())?);
        }
        Ok(found.into())
    }

    fn plot(&self, name: &str) -> String {
        self.plots.join(name).to_string_lossy().into_owned()
    }

    /// What `caracal bench` says. A call that goes wrong is in there, and shows in the tables.
    fn bench(&self, flags: &[&str], warm_up: &str) -> Done<Value> {
        let seconds = self.arguments.seconds.to_string();
        let mut command = Command::new(&self.arguments.binary);
        command.args(["bench", "--json", "--seconds", &seconds, "--warm-up", warm_up]).args(flags);
        Ok(serde_json::from_str(&self.said(&mut command)?)?)
    }

    fn said(&self, command: &mut Command) -> Done<String> {
        let shown: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        // A URL has a password.
        let shown = shown.into_iter().filter(|word| !word.contains("://")).collect::<Vec<_>>().join(" ");
        writeln!(std::io::stderr(), "{shown}")?;
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
        let said = String::from_utf8(output.stdout)?;
        if said.trim().is_empty() { Err(format!("{shown} said nothing ({})", output.status).into()) } else { Ok(said) }
    }
}

/// What it was measured on, and when.
fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let of = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let memory = of(&read("/proc/meminfo"), "MemTotal");
    let memory_kib: u64 = memory.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or_default();
    let asked = |program: &str, words: &[&str]| {
        let output = Command::new(program).args(words).output().ok();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    json!({
        "processor": of(&read("/proc/cpuinfo"), "model name"),
        "processors": std::thread::available_parallelism().map_or(0, usize::from),
        "memory_gib": memory_kib.div_ceil(1 << 20),
        "kernel": asked("uname", &["-sr"]),
        "date": asked("date", &["-u", "+%Y-%m-%d"]),
        "commit": asked("git", &["rev-parse", "--short", "HEAD"]),
    })
}
