//! The examples of the book, run as they stand: the shell blocks of these pages, in this order, in one shell, beside a
//! freshly started system.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use crate::client;
use crate::services::Services;
use crate::step::{Chore, Failed, succeeded};

const PAGES: &[&str] = &[
    "settings",
    "admin",
    "policy",
    "coordinator",
    "sts",
    "oauth",
    "federation",
    "gateway",
    "approvals",
    "notifications",
    "workloads",
    "ledger",
    "audit",
    "transparency",
    "streams",
    "backup",
    "keys",
];
/// What the examples are written with.
const TOOLS: &[&str] = &["bash", "curl", "jq", "python3"];
const PORTS: [u16; 5] = [3000, 4000, 8080, 8081, 9090];

/// Starts the system, hands its addresses to the examples, and ends it whatever becomes of them.
const PREAMBLE: &str = r#"set -euo pipefail
place=$(mktemp -d)
export DATA=$place/data
export STS_ADMIN_TOKEN=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
"$CARACAL" up --data-dir "$DATA" --port-offset "$OFFSET" --json >"$place/ready" 2>"$place/log" &
system=$!
finish() {
  code=$?
  if [ "$code" -ne 0 ]; then tail -n 40 "$place/log"; fi
  kill "$system" 2>/dev/null || true
  wait "$system" || code=$?
  rm -rf "$place"
  exit "$code"
}
trap finish EXIT
for _ in $(seq 600); do
  if [ -s "$place/ready" ] || ! kill -0 "$system" 2>/dev/null; then break; fi
  sleep 0.1
done
url() { jq -er ".urls.$1" "$place/ready"; }
API=$(url api) STS=$(url sts) GATEWAY=$(url gateway) COORDINATOR=$(url coordinator) AUDIT=$(url audit) UPSTREAM=$STS
"#;

/// The page that has servers and processes of its own.
const ON_SERVERS: &str = "replicas";
const SERVER_PREAMBLE: &str = r#"set -euo pipefail
export PLACE=$(mktemp -d) REDIS_URL
ln -s "$CARACAL" "$PLACE/caracal"
export PATH=$PLACE:$PATH HOME=$PLACE
finish() {
  code=$?
  if [ "$code" -ne 0 ]; then tail -n 40 "$PLACE/log"; fi
  jobs -p | xargs -r kill 2>/dev/null || true
  wait || true
  rm -rf "$PLACE"
  exit "$code"
}
trap finish EXIT
"#;

/// Builds the binary and runs the examples.
pub(crate) fn build_and_run(chore: &Chore) -> Result<(), Failed> {
    client::build(chore)?;
    run(chore)
}

/// Runs the examples against the binary that was built last.
pub(crate) fn run(chore: &Chore) -> Result<(), Failed> {
    for tool in TOOLS {
        if chore.ask(chore.program(tool).arg("--version"), Duration::from_secs(20)).is_none() {
            return Err(Failed(format!("the examples are written with `{tool}`, which is not installed")));
        }
    }
    let mut script = PREAMBLE.to_owned();
    for page in PAGES {
        let path = format!("docs/{page}.md");
        let blocks = blocks(&fs::read_to_string(chore.root().join(&path))?);
        if blocks.is_empty() {
            return Err(Failed(format!("{path} has no example that runs")));
        }
        script.push_str(&format!("echo '--- {path}'\n{blocks}"));
    }
    let file: PathBuf = chore.target().join("examples.sh");
    fs::write(&file, script)?;
    let mut bash = chore.program("bash");
    bash.arg(&file).env("CARACAL", client::binary(chore)).env("OFFSET", free_offset()?.to_string());
    let what = "the examples of the book against a freshly started system";
    let status = chore.watch(what, &mut bash, |_| ())?;
    succeeded(what, status)?;
    run_on_servers(chore)
}

/// The page about several processes, followed literally, on servers of its own.
fn run_on_servers(chore: &Chore) -> Result<(), Failed> {
    let services = Services::start(chore)?;
    let page = fs::read_to_string(chore.root().join(format!("docs/{ON_SERVERS}.md")))?;
    let file: PathBuf = chore.target().join("examples-on-servers.sh");
    fs::write(&file, format!("{SERVER_PREAMBLE}{}", blocks(&page)))?;
    let mut bash = chore.program("bash");
    bash.arg(&file).env("CARACAL", client::binary(chore)).env("OFFSET", free_offset()?.to_string());
    bash.env("POSTGRES", services.postgres_url()).env("REDIS_URL", services.redis_url());
    let what = "the page about several processes, on PostgreSQL and Redis";
    let status = chore.watch(what, &mut bash, |_| ())?;
    succeeded(what, status)
}

/// The content of every block that is marked as shell.
fn blocks(page: &str) -> String {
    let mut inside = false;
    let mut found = String::new();
    for line in page.lines() {
        match (inside, line) {
            (false, "```sh") => inside = true,
            (true, "```") => inside = false,
            (true, line) => {
                found.push_str(line);
                found.push('\n');
            }
            _ => {}
        }
    }
    found
}

/// An offset at which all five ports are free now.
fn free_offset() -> Result<u16, Failed> {
    let start = 10_000 + u16::try_from(std::process::id() % 20_000).unwrap_or(0);
    (start..start + 2_000)
        .step_by(7)
        .find(|offset| PORTS.iter().all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port + offset)).is_ok()))
        .ok_or_else(|| Failed("no free ports".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_blocks_of_shell_are_run() {
        let page = "text\n```sh\necho one\n```\n```json\n{}\n```\n```sh\necho two\n```\n";
        assert_eq!(blocks(page), "echo one\necho two\n");
    }
}
