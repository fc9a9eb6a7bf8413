//! Clients written by others against the built binary: the published Python clients, a stock OAuth library, a verifier of
//! transparency logs, and a tester that knows of the Admin API only its description. The flows are in `sdks/compat/python`.

use std::path::{Path, PathBuf};

use crate::python::{self, Python};
use crate::services::Services;
use crate::step::{Chore, Failed};

/// A client, with an environment of its own, so that it gets what its users have and nothing else.
struct Client {
    what: &'static str,
    environment: &'static str,
    requirements: &'static str,
    flows: &'static str,
}

const CLIENTS: [Client; 6] = [
    Client {
        what: "the published Python client",
        environment: "client",
        requirements: "sdks/compat/python/requirements.txt",
        flows: "sdks/compat/python/flows.py",
    },
    Client {
        what: "the published Python admin client",
        environment: "client",
        requirements: "sdks/compat/python/requirements.txt",
        flows: "sdks/compat/python/administration.py",
    },
    Client {
        what: "the published Python client of resource servers",
        environment: "client",
        requirements: "sdks/compat/python/requirements.txt",
        flows: "sdks/compat/python/revocation.py",
    },
    Client {
        what: "a stock OAuth library",
        environment: "oauth",
        requirements: "sdks/compat/python/requirements-oauth.txt",
        flows: "sdks/compat/python/stock_oauth.py",
    },
    Client {
        what: "a verifier of transparency logs",
        environment: "transparency",
        requirements: "sdks/compat/python/requirements-transparency.txt",
        flows: "sdks/compat/python/transparency.py",
    },
    API,
];

const API: Client = Client {
    what: "a tester that generates requests from the description of the Admin API",
    environment: "api",
    requirements: "sdks/compat/python/requirements-api.txt",
    flows: "sdks/compat/python/api_properties.py",
};

/// Builds the binary and runs the flows.
pub(crate) fn build_and_run(chore: &Chore) -> Result<(), Failed> {
    let python = python::find(chore)?;
    let services = Services::start(chore)?;
    build(chore)?;
    let passed = run(chore, &python, &services)?;
    chore.say(&format!("{passed} checks of the clients held"));
    Ok(())
}

/// Builds the binary, and generates requests for it from the description of the Admin API.
pub(crate) fn build_and_generate(chore: &Chore) -> Result<(), Failed> {
    let python = python::find(chore)?;
    let arguments = ["build", "--locked", "--package", "caracal", "--bin", "caracal"];
    chore.run("building the binary", chore.cargo().args(arguments))?;
    let passed = API.run(chore, &python, None, &binary(chore))?;
    chore.say(&format!("{passed} checks held"));
    Ok(())
}

/// Builds the binary as the tests will find it: with everything else, so that nothing is built twice.
pub(crate) fn build(chore: &Chore) -> Result<(), Failed> {
    let arguments = ["build", "--locked", "--workspace", "--all-targets"];
    chore.run("building everything, tests included (a first build takes minutes)", chore.cargo().args(arguments))
}

/// Runs the flows of all clients against the binary that was built last. Returns how many checks held.
pub(crate) fn run(chore: &Chore, python: &Python, services: &Services) -> Result<u64, Failed> {
    let binary = binary(chore);
    if !binary.is_file() {
        return Err(Failed(format!("{} was not built", binary.display())));
    }
    CLIENTS.iter().map(|client| client.run(chore, python, Some(services), &binary)).sum()
}

impl Client {
    fn run(&self, chore: &Chore, python: &Python, services: Option<&Services>, binary: &Path) -> Result<u64, Failed> {
        let bin = python.environment(chore, self.environment, Path::new(self.requirements))?;
        let mut flows = chore.program(bin.join("python"));
        flows.args(["-B", self.flows, "--caracal"]).arg(binary);
        if let Some(services) = services {
            flows.args(["--postgres", &services.postgres_url(), "--redis", &services.redis_url()]);
        }
        let mut closing = None;
        let what = format!("{} against freshly started systems", self.what);
        let status = chore.watch(&what, &mut flows, |line| closing = counts(line).or(closing))?;
        match closing {
            Some((passed, 0)) if passed > 0 && status.success() => Ok(passed),
            Some((passed, failed)) => Err(Failed(format!("{}: {passed} held, {failed} did not", self.what))),
            None => Err(Failed(format!("the flows of {} did not come to an end ({status})", self.what))),
        }
    }
}

/// Where the built binary lies.
pub(crate) fn binary(chore: &Chore) -> PathBuf {
    chore.target().join("debug").join(format!("caracal{}", std::env::consts::EXE_SUFFIX))
}

/// Reads the line `N passed, N failed`.
fn counts(line: &str) -> Option<(u64, u64)> {
    let (passed, failed) = line.strip_suffix(" failed")?.split_once(" passed, ")?;
    Some((passed.parse().ok()?, failed.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_is_read_and_no_other() {
        assert_eq!(counts("41 passed, 0 failed"), Some((41, 0)));
        assert_eq!(counts("[ 1.0 s] 41 passed, 0 failed"), None);
        assert_eq!(counts("test result: ok. 3 passed; 0 failed"), None);
    }
}
