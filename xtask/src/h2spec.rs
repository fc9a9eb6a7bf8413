//! HTTP/2 as a suite of others sees it: h2spec (RFC 9113 and 7541) against the Gateway of the built binary, in the clear and over
//! TLS.
//!
//! A refusal may be answered before the rest of a request has come, and a fault in that rest is then one of a stream that has
//! ended: which of the two h2spec sees is a race. So every case has to hold over each transport, in one of a few runs; what is
//! broken holds in none. What can't hold is named.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::client;
use crate::step::{Chore, Failed};

/// Runs over each transport.
const RUNS: usize = 3;
/// In the clear a preface of nobody's protocol is an HTTP/1 request, and answered as one.
const NOT_IN_THE_CLEAR: [&str; 1] = ["http2/3.5: Sends invalid connection preface"];
/// Fewer cases than this are not the suite.
const LEAST_CASES: usize = 100;
/// Between the ports of tests and those that systems hand out.
const PORT_OFFSET: u16 = 23_400;

const NO_H2SPEC: &str = "\
h2spec does not answer. Install it (go install github.com/summerwind/h2spec/cmd/h2spec@latest)
           and name it with --h2spec PATH where it is not in PATH";

/// A case by section and title, and whether it held.
type Cases = BTreeMap<String, bool>;

/// A system that is killed with its value, and its directory with it.
struct System {
    child: Child,
    place: PathBuf,
    port: String,
}

impl Drop for System {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.place);
    }
}

/// Builds the binary and asks h2spec.
pub(crate) fn run(chore: &Chore, arguments: &[&str]) -> Result<(), Failed> {
    let h2spec = match arguments {
        [] => "h2spec",
        ["--h2spec", path] => path,
        _ => return Err(Failed("the chore is `cargo xtask h2spec [--h2spec PATH]`".to_owned())),
    };
    if Command::new(h2spec).arg("--version").stdout(Stdio::null()).status().is_err() {
        return Err(Failed(NO_H2SPEC.to_owned()));
    }
    let build = ["build", "--locked", "--package", "caracal"];
    chore.run("building the binary (a first build takes minutes)", chore.cargo().args(build))?;
    let mut faults = 0;
    for tls in [false, true] {
        let (mut held, mut known) = (BTreeSet::new(), BTreeSet::new());
        let way = if tls { "over TLS" } else { "in the clear" };
        let system = start(chore, tls)?;
        for number in 1..=RUNS {
            let cases = ask(chore, h2spec, &system, tls)?;
            let failed = cases.values().filter(|held| !**held).count();
            chore.say(&format!("run {number} {way}: {} cases, {failed} did not hold", cases.len()));
            for (case, did_hold) in cases {
                if did_hold {
                    held.insert(case.clone());
                }
                known.insert(case);
            }
        }
        if known.len() < LEAST_CASES {
            return Err(Failed(format!("h2spec reported {} cases {way}, which is not all of it", known.len())));
        }
        let found = judge(&known, &held, if tls { &[] } else { &NOT_IN_THE_CLEAR });
        found.iter().for_each(|fault| println!("           {way}: {fault}"));
        faults += found.len();
        chore.say(&format!("{} of {} cases hold {way}", held.len(), known.len()));
    }
    if faults == 0 { Ok(()) } else { Err(Failed(format!("{faults} cases are not as they should be"))) }
}

/// What holds in no run and is not excepted, and what is excepted without need.
fn judge(known: &BTreeSet<String>, held: &BTreeSet<String>, excepted: &[&str]) -> Vec<String> {
    let is_excepted = |case: &String| excepted.contains(&case.as_str());
    let broken = known.difference(held).filter(|case| !is_excepted(case));
    let broken = broken.map(|case| format!("held in no run: {case}"));
    let idle = excepted.iter().filter(|case| !known.contains(**case) || held.contains(**case));
    broken.chain(idle.map(|case| format!("is excepted, and holds or is no case: {case}"))).collect()
}

fn start(chore: &Chore, tls: bool) -> Result<System, Failed> {
    let place = chore.target().join("h2spec").join(format!("{}-{tls}", std::process::id()));
    fs::create_dir_all(&place)?;
    let mut up = chore.program(client::binary(chore));
    up.args(["up", "--json", "--port-offset", &PORT_OFFSET.to_string(), "--data-dir"]).arg(place.join("data"));
    if tls {
        let (certificate, key) = (place.join("chain.pem"), place.join("key.pem"));
        make_certificate(chore, &certificate, &key)?;
        up.env("TLS_CERT_FILE", certificate).env("TLS_KEY_FILE", key);
    } else {
        up.env("GATEWAY_CLEARTEXT_HTTP2", "true");
    }
    let log = fs::File::create(place.join("log"))?;
    let mut child = up.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn()?;
    let stdout = child.stdout.take();
    let mut system = System { child, place, port: String::new() };
    let mut line = String::new();
    if let Some(stdout) = stdout {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    let said = || fs::read_to_string(system.place.join("log")).unwrap_or_default();
    let port = port_of(&line).ok_or_else(|| Failed(format!("the system did not start: {}", said())))?;
    system.port = port.to_owned();
    Ok(system)
}

fn make_certificate(chore: &Chore, certificate: &Path, key: &Path) -> Result<(), Failed> {
    let mut openssl = chore.program("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]);
    openssl.args(["-subj", "/CN=localhost", "-keyout"]).arg(key).arg("-out").arg(certificate).stderr(Stdio::null());
    chore.run("a certificate for an hour", &mut openssl)
}

/// The Gateway's port, from the line by which a system says that it is ready.
fn port_of(ready: &str) -> Option<&str> {
    let (_, rest) = ready.split_once("\"gateway\":\"")?;
    rest.split('"').next()?.rsplit(':').next().filter(|port| port.parse::<u16>().is_ok())
}

fn ask(chore: &Chore, h2spec: &str, system: &System, tls: bool) -> Result<Cases, Failed> {
    let report = system.place.join("report.xml");
    let mut suite = chore.program(h2spec);
    suite.args(["-h", "127.0.0.1", "-p", &system.port, "-P", "/x", "-o", "3", "-j"]).arg(&report);
    if tls {
        suite.args(["-t", "-k"]);
    }
    // It fails where a case does; the report says which.
    suite.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    Ok(cases(&fs::read_to_string(&report)?))
}

/// The cases of a JUnit report.
fn cases(report: &str) -> Cases {
    let attribute = |text: &str, name: &str| {
        let (_, rest) = text.split_once(&format!("{name}=\""))?;
        rest.split('"').next().map(str::to_owned)
    };
    let tests = report.split("<testcase").skip(1);
    let named = tests.filter_map(|test| {
        let (section, title) = (attribute(test, "package")?, attribute(test, "classname")?);
        Some((format!("{section}: {title}"), !test.contains("<failure") && !test.contains("<error")))
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_which_cases_held() {
        let report = r#"<testsuites><testsuite><testcase package="http2/3.5" classname="Sends a preface" time="0.1"></testcase>
            <testcase package="http2/4.2" classname="Sends a large frame" time="0.1"><failure>x</failure></testcase>"#;
        let found: Vec<(String, bool)> = cases(report).into_iter().collect();
        let expected = [("http2/3.5: Sends a preface", true), ("http2/4.2: Sends a large frame", false)];
        assert_eq!(found, expected.map(|(case, held)| (case.to_owned(), held)));
    }

    #[test]
    fn a_case_has_to_hold_unless_it_is_excepted_and_an_exception_has_to_be_one() {
        let set = |cases: &[&str]| cases.iter().map(|case| (*case).to_owned()).collect::<BTreeSet<_>>();
        let known = set(&["a", "b", "c"]);
        assert!(judge(&known, &known, &[]).is_empty());
        assert!(judge(&known, &set(&["a", "c"]), &["b"]).is_empty());
        assert_eq!(judge(&known, &set(&["a"]), &["b"]), ["held in no run: c"]);
        assert_eq!(judge(&known, &known, &["b"]).len(), 1);
        assert_eq!(judge(&known, &known, &["d"]).len(), 1);
    }

    #[test]
    fn the_port_is_in_the_line_that_says_ready() {
        assert_eq!(port_of(r#"{"urls":{"gateway":"https://127.0.0.1:31481","sts":"x"}}"#), Some("31481"));
        assert_eq!(port_of("the port is in use"), None);
    }
}
