//! Where the system can be touched, read off its sources: packages, routes, listeners, ways out, tables, topics, settings,
//! programs. Each line of it carries the threats it takes part in, in `docs/threat-model/inventory.toml`.
//!
//! It is read and not compiled, so that it costs a second. What a reader of text could get wrong is held to the real
//! tables by the tests of `xtask`, which are linked with the product. A route that is written so that this can't read
//! it is a finding, not a gap.

use std::collections::{BTreeMap, BTreeSet};

/// The file that says which threats a line takes part in.
pub(crate) const INVENTORY: &str = "docs/threat-model/inventory.toml";

/// A source file: its path from the root, and its text.
pub(crate) type Source = (String, String);

/// Lines by kind, and what could not be read.
#[derive(Debug, Default)]
pub(crate) struct Surface {
    pub(crate) lines: BTreeMap<&'static str, BTreeSet<String>>,
    pub(crate) unread: Vec<String>,
}

/// Ways out of a process, as they are spelled. `SimpleClient` and the like are made of a connector of `http`, which is
/// the one place that opens a socket; the two servers and child processes are the exceptions.
const WAYS_OUT: &[(&str, &str)] = &[
    ("TcpStream::connect(", "opens a TCP connection"),
    ("UnixStream::connect(", "opens a local connection"),
    ("UdpSocket::bind(", "opens a datagram socket"),
    ("TcpSocket::new", "opens a TCP socket"),
    ("Client::builder(", "makes a client without a guard of its own"),
    ("lookup_host(", "asks the resolver"),
    ("to_socket_addrs(", "asks the resolver"),
    ("GuardedConnector::new(", "makes a guarded connector"),
    ("PeerConnector::new(", "makes a connector to one peer"),
    ("OperatorClient::new(", "makes a client for the operator's addresses"),
    ("SimpleClient::new(", "makes a client"),
    ("HttpClient::new(", "makes a client"),
    ("config.connect(", "speaks to PostgreSQL"),
    ("connect_raw(", "speaks to PostgreSQL"),
    ("Client::open(", "speaks to Redis"),
    ("Command::new(", "starts a program"),
];

/// Calls that would put routes where this does not look.
const OTHER_ROUTES: &[&str] = &[".nest(", ".nest_service(", ".route_service(", ".merge(Router", "any_service("];

/// Folders whose code is not part of what ships.
const NOT_SHIPPED: &[&str] = &["crates/testkit/", "crates/oracle/"];

impl Surface {
    /// Reads it off the files of the tree.
    pub(crate) fn read(files: &[Source]) -> Self {
        let mut surface = Self::default();
        for (path, text) in files {
            match path.as_str() {
                _ if path.ends_with("/Cargo.toml") && !path.contains("/fuzz/") => surface.package(path, text),
                "docs/settings.md" => surface.settings(text),
                _ if path.ends_with(".sql") => surface.tables(text),
                _ if is_shipped(path) => surface.source(path, &without_tests(text)),
                _ => {}
            }
        }
        surface
    }

    fn add(&mut self, kind: &'static str, line: String) {
        self.lines.entry(kind).or_default().insert(line);
    }

    fn package(&mut self, path: &str, text: &str) {
        let name = text.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
        let folder = path.trim_end_matches("/Cargo.toml");
        if text.contains("[[bin]]") {
            self.unread.push(format!(
                "{path}: a program is named by `[[bin]]`; put it into src/bin, where the inventory sees it"
            ));
        }
        match name {
            Some(name) => self.add("package", format!("{name} in {folder}")),
            None => self.unread.push(format!("{path}: names no package")),
        }
    }

    /// The page is held to what the binary reads by a test of its own.
    fn settings(&mut self, page: &str) {
        let table = page.split("begin -->").nth(1).and_then(|rest| rest.split("<!-- generated").next());
        for row in table.unwrap_or_default().lines() {
            if let Some(name) = row.strip_prefix("| `").and_then(|rest| rest.split('`').next()) {
                self.add("setting", name.to_owned());
            }
        }
    }

    fn tables(&mut self, sql: &str) {
        for created in sql.split("CREATE TABLE ").skip(1) {
            let created = created.strip_prefix("IF NOT EXISTS ").unwrap_or(created);
            let name: String = created.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            self.add("table", name);
        }
    }

    fn source(&mut self, path: &str, text: &str) {
        if path.ends_with("/main.rs") {
            self.add("artefact", format!("program of {}", path.trim_end_matches("/src/main.rs")));
        } else if path.contains("/src/bin/") {
            self.add("artefact", format!("program {path}"));
        }
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for (spelled, does) in WAYS_OUT.iter().filter(|(spelled, _)| line.contains(spelled)) {
                // A name that only ends like it is another: `PeerHttpClient::new(`.
                let at = line.find(spelled).unwrap_or_default();
                let before = line.get(..at).and_then(|text| text.chars().next_back());
                if spelled.starts_with('.') || !before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                    self.add("way out", format!("{path} {does}: {}", spelled.trim_matches(['.', '('])));
                }
            }
            if ["TcpListener::bind(", "UnixListener::bind("].iter().any(|spelled| line.contains(spelled)) {
                self.add("listener", path.to_owned());
            }
            for other in OTHER_ROUTES.iter().filter(|other| line.contains(*other)) {
                self.unread.push(format!("{path}:{}: routes by `{other}` are not in the inventory", number + 1));
            }
            if line.contains(".fallback(") {
                self.add("fallback", path.to_owned());
            }
            self.topics(line);
        }
        self.routes(path, text);
    }

    /// Literals with at least two dots: `caracal.sessions.revoke`.
    fn topics(&mut self, line: &str) {
        for literal in line.split('"').skip(1).step_by(2) {
            let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            let words: Vec<&str> = literal.split('.').collect();
            if words.len() >= 3 && words.first() == Some(&"caracal") && words.iter().all(|word| is_word(word)) {
                self.add("topic", literal.to_owned());
            }
        }
    }

    fn routes(&mut self, path: &str, text: &str) {
        let service = service(path);
        for given in text.split(".route(").skip(1) {
            self.axum_route(path, service, given);
        }
        // Admin's table: each operation's file says what it needs.
        for given in text.split("Route = Route {").skip(1) {
            let given = given.split("\n};").next().unwrap_or_default();
            let word = |before: &str| {
                let rest = given.split(before).nth(1)?;
                Some(rest.chars().take_while(|c| c.is_ascii_alphanumeric()).collect::<String>())
            };
            let place = given.split("path: \"").nth(1).and_then(|rest| rest.split('"').next());
            match (word("Method::"), place, word("Needs::"), word("Reach::")) {
                (Some(method), Some(place), Some(needs), Some(reach)) => {
                    let (needs, reach) = (needs.to_lowercase(), reach.to_lowercase());
                    self.add("route", format!("{service} {method} {place} needs {needs}, reaches {reach}"));
                }
                _ => self.unread.push(format!("{path}: an operation whose method, path, needs or reach can't be read")),
            }
        }
        // The Coordinator's table.
        if let Some(table) = text.split("ROUTES: &[(&str, &str)] = &[").nth(1) {
            for row in table.split("];").next().unwrap_or_default().lines() {
                if let [_, method, _, place, _] = row.split('"').collect::<Vec<_>>()[..] {
                    self.add("route", format!("{service} {method} {place}"));
                }
            }
        }
        // The Gateway's own: arms of one match on the path; everything else is forwarded.
        for matched in text.split("match request.uri.path() {\n").skip(1) {
            self.arms(path, service, matched);
        }
    }

    /// Arms of one match, up to the brace that closes it.
    fn arms(&mut self, path: &str, service: &str, matched: &str) {
        let indent = matched.len() - matched.trim_start().len();
        let at_indent = |line: &&str| line.len() - line.trim_start().len() <= indent && !line.trim().is_empty();
        for arm in matched.lines().filter(at_indent).map(str::trim) {
            if arm == "}" {
                self.add("route", format!("{service} * everything else is forwarded"));
                return;
            }
            if arm.starts_with("_ =>") || arm.starts_with("//") || ["})),", "},", ")),"].contains(&arm) {
                continue;
            }
            let given = arm.strip_prefix('"').and_then(|rest| rest.split_once('"'));
            let (condition, read) = match given.map(|(place, rest)| (place, rest.trim_start())) {
                Some((place, rest)) if rest.starts_with("=>") => (Some("*"), place),
                Some((place, rest)) => {
                    let method =
                        rest.strip_prefix("if request.method == Method::").and_then(|rest| rest.split_once(" =>"));
                    (method.map(|(method, _)| method), place)
                }
                None => (None, ""),
            };
            match condition {
                Some(method) if method.bytes().all(|b| b == b'*' || b.is_ascii_uppercase()) => {
                    self.add("route", format!("{service} {method} {read}"));
                }
                _ => {
                    self.unread.push(format!("{path}: the arm `{arm}` is not one path, of one method or of all"));
                    return;
                }
            }
        }
        self.unread.push(format!("{path}: the end of the match on the path can't be found"));
    }

    fn axum_route(&mut self, path: &str, service: &str, given: &str) {
        let given = given.trim_start();
        if given.starts_with("route.path,") {
            return; // Admin's table, read above.
        }
        let mut parts = given.strip_prefix('"').unwrap_or_default().splitn(2, '"');
        let (Some(place), Some(handler)) = (parts.next(), parts.next()) else {
            self.unread.push(format!("{path}: a route whose path is not a literal"));
            return;
        };
        let mut handler = handler.trim_start_matches([',', ' ', '\n']);
        // One method, or several that are chained: `get(a).delete(b)`.
        loop {
            let method: String = handler.chars().take_while(char::is_ascii_lowercase).collect();
            if !["get", "post", "put", "patch", "delete"].contains(&method.as_str()) {
                self.unread.push(format!("{path}: a method of the route `{place}` can't be read"));
                return;
            }
            self.add("route", format!("{service} {} {place}", method.to_uppercase()));
            let Some(rest) = handler.get(method.len()..).and_then(after_arguments) else {
                self.unread.push(format!("{path}: the handler of the route `{place}` can't be read"));
                return;
            };
            match rest.trim_start().strip_prefix('.') {
                Some(more) => handler = more,
                None => return,
            }
        }
    }

    /// What differs between the sources and what is claimed of them, in the words of whoever has to mend it.
    pub(crate) fn findings(&self, claimed: &str, threats: &BTreeSet<&str>) -> Vec<String> {
        let mut found: Vec<String> = self.unread.clone();
        let claimed: BTreeMap<String, BTreeMap<String, Vec<String>>> = match toml::from_str(claimed) {
            Ok(claimed) => claimed,
            Err(error) => return vec![format!("{INVENTORY}: {error}")],
        };
        let known = |kind: &str, line: &str| claimed.get(kind).is_some_and(|lines| lines.contains_key(line));
        for (kind, lines) in &self.lines {
            for line in lines.iter().filter(|line| !known(kind, line)) {
                found.push(format!(
                    "the {kind} `{line}` is new: say under [{kind:?}] of {INVENTORY} which threats it takes part in, for \
                     example {line:?} = [\"T01\"], and see that a mitigation of each covers it"
                ));
            }
        }
        for (kind, lines) in &claimed {
            let there = self.lines.get(kind.as_str());
            for (line, ids) in lines {
                if !there.is_some_and(|there| there.contains(line)) {
                    found.push(format!("the {kind} `{line}` is no longer there: take it out of {INVENTORY}"));
                }
                if ids.is_empty() {
                    found.push(format!("the {kind} `{line}` takes part in no threat: {INVENTORY} has to name one"));
                }
                for id in ids.iter().filter(|id| !threats.contains(id.as_str())) {
                    found.push(format!("the {kind} `{line}` takes part in `{id}`, which is no threat"));
                }
            }
        }
        found
    }

    /// How much of each kind there is, for the chapter.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, usize)> {
        self.lines.iter().map(|(kind, lines)| (*kind, lines.len()))
    }
}

/// The room that serves what a file has.
fn service(path: &str) -> &str {
    path.split('/').nth(1).unwrap_or_default()
}

/// What follows `(…)`, whatever is nested in it.
fn after_arguments(text: &str) -> Option<&str> {
    let mut open = 0_u32;
    for (at, c) in text.char_indices() {
        match c {
            '(' => open += 1,
            ')' if open == 1 => return text.get(at + 1..),
            ')' => open = open.checked_sub(1)?,
            _ if open == 0 => return None,
            _ => {}
        }
    }
    None
}

fn is_shipped(path: &str) -> bool {
    let is_test = path.contains("/tests/") || path.ends_with("tests.rs") || path.contains("/fuzz/");
    path.ends_with(".rs")
        && path.starts_with("crates/")
        && path.contains("/src/")
        && !is_test
        && !NOT_SHIPPED.iter().any(|folder| path.starts_with(folder))
}

/// The text without its modules of tests, which are at the outermost level and end with a brace at the line's beginning.
fn without_tests(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("#[cfg(test)]\n") {
        kept.push_str(before);
        let head = after.lines().find(|line| !line.starts_with("#[")).unwrap_or_default();
        rest = if head.contains("mod ") && head.ends_with('{') {
            after.split_once("\n}\n").map_or("", |(_, rest)| rest)
        } else {
            after
        };
    }
    kept.push_str(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surface(path: &str, text: &str) -> Surface {
        Surface::read(&[(path.to_owned(), text.to_owned())])
    }

    fn lines(path: &str, text: &str, kind: &str) -> Vec<String> {
        let surface = surface(path, text);
        assert_eq!(surface.unread, Vec::<String>::new());
        surface.lines.get(kind).into_iter().flatten().cloned().collect()
    }

    #[test]
    fn t11_drift_each_kind_of_thing_is_read_off_what_makes_it() {
        let admin = "pub(crate) const ROUTE: Route = Route {\n    method: Method::POST,\n    path: \"/v1/zones/{zone}/a\",\n    needs: Needs::Write,\n    reach: Reach::Zone(Run::Change(x)),\n};\n";
        let rows = "pub const ROUTES: &[(&str, &str)] = &[\n    (\"GET\", \"/stats\"),\n];\n";
        let arms = "match request.uri.path() {\n    \"/ready\" => a(),\n    \"/reload\" if request.method == Method::POST => b(),\n    _ => None,\n}\n";
        for (path, text, kind, expected) in [
            ("crates/admin/src/a.rs", admin, "route", &["admin POST /v1/zones/{zone}/a needs write, reaches zone"][..]),
            (
                "crates/sts/src/a.rs",
                "x.route(\"/a\", get(f))\n  .route(\n \"/b/{c}\",\n post(g))",
                "route",
                &["sts GET /a", "sts POST /b/{c}"],
            ),
            (
                "crates/sts/src/a.rs",
                "x.route(\"/a\", get(f).delete(move |r| g(r, (1, 2)))\n.put(h))",
                "route",
                &["sts DELETE /a", "sts GET /a", "sts PUT /a"],
            ),
            ("crates/coordinator/src/a.rs", rows, "route", &["coordinator GET /stats"]),
            (
                "crates/gateway/src/a.rs",
                arms,
                "route",
                &["gateway * /ready", "gateway * everything else is forwarded", "gateway POST /reload"],
            ),
            ("crates/store/src/a.sql", "CREATE TABLE a_b (\nCREATE TABLE IF NOT EXISTS c (", "table", &["a_b", "c"]),
            (
                "crates/stream/src/a.rs",
                "const A: &str = \"caracal.a.b\"; // \"caracal.one\", \"caracal.a/1.b\"",
                "topic",
                &["caracal.a.b"],
            ),
            ("crates/a/src/b.rs", "let c = TcpListener::bind(d);", "listener", &["crates/a/src/b.rs"]),
            (
                "crates/a/src/b.rs",
                "let c = SimpleClient::new(d);",
                "way out",
                &["crates/a/src/b.rs makes a client: SimpleClient::new"],
            ),
            ("crates/a/src/b.rs", "x.fallback(f)", "fallback", &["crates/a/src/b.rs"]),
            ("crates/a/src/main.rs", "fn main() {}", "artefact", &["program of crates/a"]),
            ("crates/a/src/bin/b.rs", "fn main() {}", "artefact", &["program crates/a/src/bin/b.rs"]),
            (
                "crates/a/src/b.rs",
                "let c = Client::builder(d).build_http();\nlet e = TcpSocket::new_v4();",
                "way out",
                &[
                    "crates/a/src/b.rs makes a client without a guard of its own: Client::builder",
                    "crates/a/src/b.rs opens a TCP socket: TcpSocket::new",
                ],
            ),
            ("crates/a/Cargo.toml", "[package]\nname = \"b\"\n", "package", &["b in crates/a"]),
            (
                "docs/settings.md",
                "<!-- begin -->\n| `A_B`, `A_B_FILE` | all |\n<!-- generated: end -->\n| `C` |",
                "setting",
                &["A_B"],
            ),
        ] {
            assert_eq!(lines(path, text, kind), expected, "{path}");
        }
    }

    #[test]
    fn t11_drift_what_only_tests_have_is_not_there() {
        let tests = "fn a() {}\n#[cfg(test)]\nmod tests {\n    let c = TcpListener::bind(d);\n}\nfn b() { TcpListener::bind(e) }\n";
        assert_eq!(lines("crates/a/src/b.rs", tests, "listener").len(), 1);
        let only = tests.replace("fn b() { TcpListener::bind(e) }\n", "");
        for (path, text) in [
            ("crates/a/src/b.rs", only.as_str()),
            ("crates/a/src/b.rs", "// TcpListener::bind(c)\n"),
            ("crates/a/tests/b.rs", tests),
            ("crates/testkit/src/b.rs", tests),
        ] {
            assert_eq!(lines(path, text, "listener"), Vec::<String>::new(), "{path}");
        }
    }

    #[test]
    fn t11_drift_a_route_that_can_t_be_read_is_a_finding_and_not_a_gap() {
        for text in [
            "x.route(PATH, get(f))",
            "x.route(\"/a\", on(filter, f))",
            "x.nest(\"/a\", other)",
            "x.route(\"/a\", get(f).on(filter, g))",
            "x.route(\"/a\", get(f",
            "match request.uri.path() {\n    \"/a\" | \"/b\" => f(),\n    _ => g(),\n}\n",
            "match request.uri.path() {\n    path if path.starts_with(\"/a/\") => f(),\n    _ => g(),\n}\n",
            "match request.uri.path() {\n    \"/a\" if is_asked(request) => f(),\n    _ => g(),\n}\n",
            "match request.uri.path() {\n    \"/a\"\n    | \"/b\" => f(),\n}\n",
            "const A: Route = Route {\n method: Method::GET,\n path: PATH,\n needs: Needs::Read,\n reach: Reach::Zone(x),\n};",
        ] {
            assert_eq!(surface("crates/admin/src/a.rs", text).unread.len(), 1, "{text}");
        }
        let manifest = "[package]\nname = \"b\"\n\n[[bin]]\nname = \"c\"\npath = \"elsewhere.rs\"\n";
        assert_eq!(surface("crates/a/Cargo.toml", manifest).unread.len(), 1);
    }

    #[test]
    fn t11_drift_what_is_new_or_gone_or_of_no_threat_is_reported_with_what_to_do() {
        let surface = surface("crates/sts/src/a.rs", "x.route(\"/a\", get(f))");
        let threats = BTreeSet::from(["T02"]);
        assert_eq!(surface.findings("[route]\n\"sts GET /a\" = [\"T02\"]\n", &threats), Vec::<String>::new());
        for (claimed, what) in [
            ("", "the route `sts GET /a` is new: say under [\"route\"] of docs/threat-model/inventory.toml"),
            (
                "[route]\n\"sts GET /a\" = [\"T02\"]\n\"sts GET /b\" = [\"T02\"]",
                "the route `sts GET /b` is no longer there",
            ),
            ("[route]\n\"sts GET /a\" = []", "takes part in no threat"),
            ("[route]\n\"sts GET /a\" = [\"T99\"]", "takes part in `T99`, which is no threat"),
            ("[route]\n\"sts GET /a\" = [\"T02\"]\n[table]\na = [\"T02\"]", "the table `a` is no longer there"),
            ("[route", "docs/threat-model/inventory.toml: "),
        ] {
            let found = surface.findings(claimed, &threats);
            assert!(found.len() == 1 && found.iter().any(|finding| finding.contains(what)), "{claimed}: {found:?}");
        }
    }

    /// For each line that there is: taken out of the list it is new again, and gone from the sources it is missed.
    #[test]
    fn t11_drift_no_line_of_this_tree_can_come_or_go_unseen() {
        let root = crate::root();
        let model = crate::model(root).unwrap();
        let threats = model.threat.iter().map(|threat| threat.id.as_str()).collect();
        let claimed = crate::read(root, INVENTORY).unwrap();
        let mut surface = Surface::read(&crate::sources(root).unwrap());
        let all: Vec<(&str, String)> =
            surface.lines.iter().flat_map(|(kind, lines)| lines.iter().map(|line| (*kind, line.clone()))).collect();
        assert!(all.iter().filter(|(kind, _)| *kind == "route").count() > 100, "{}", all.len());
        for (kind, line) in all {
            let written = format!("\n{line:?} = [");
            let start = claimed.find(&written).unwrap_or_else(|| panic!("{line} is not in the list"));
            let end = start + 1 + claimed[start + 1..].find('\n').unwrap();
            let less = format!("{}{}", &claimed[..start], &claimed[end..]);
            let found = surface.findings(&less, &threats);
            let [finding] = &found[..] else { panic!("{line}: {found:?}") };
            assert!(finding.contains(&format!("the {kind} `{line}` is new")), "{finding}");

            surface.lines.get_mut(kind).unwrap().remove(&line);
            let found = surface.findings(&claimed, &threats);
            let [finding] = &found[..] else { panic!("{line}: {found:?}") };
            assert!(finding.contains(&format!("the {kind} `{line}` is no longer there")), "{finding}");
            surface.lines.get_mut(kind).unwrap().insert(line);
        }
    }

    /// One more route in each file that has some, written like those beside it.
    #[test]
    fn t11_drift_no_route_can_be_added_to_this_tree_unseen() {
        let root = crate::root();
        let model = crate::model(root).unwrap();
        let threats = model.threat.iter().map(|threat| threat.id.as_str()).collect();
        let claimed = crate::read(root, INVENTORY).unwrap();
        let mut added = BTreeMap::<String, u32>::new();
        for (path, text) in crate::sources(root).unwrap() {
            let before = Surface::read(&[(path.clone(), text.clone())]);
            if !before.lines.contains_key("route") {
                continue;
            }
            let mut written = vec![
                text.replacen(".route(\"/", ".route(\"/added\", get(added)).route(\"/", 1),
                text.replacen("    path: \"/", "    path: \"/added/", 1),
                text.replacen(
                    "ROUTES: &[(&str, &str)] = &[\n",
                    "ROUTES: &[(&str, &str)] = &[\n    (\"GET\", \"/added\"),\n",
                    1,
                ),
            ];
            if let Some((before, after)) = text.split_once("match request.uri.path() {\n") {
                written.push(format!("{before}match request.uri.path() {{\n        \"/added\" => added(),\n{after}"));
            }
            // Another method of a path that there is.
            if let Some(at) = text.find("get(").filter(|_| text.contains(".route(\"/")) {
                let end = text.len() - after_arguments(&text[at + 3..]).unwrap().len();
                written.push(format!("{}.route(\"/added\", get(a).delete(b)){}", &text[..end], &text[end..]));
            }
            written.retain(|changed| *changed != text);
            assert!(!written.is_empty(), "{path} has routes and no way to add one");
            for changed in written {
                let expected = if changed.contains("get(a).delete(b)") { 2 } else { 1 };
                let found = Surface::read(&[(path.clone(), changed)]).findings(&claimed, &threats);
                let is_new = |finding: &&String| finding.contains("/added") && finding.contains("` is new: ");
                assert_eq!(found.iter().filter(is_new).count(), expected, "{path}");
                *added.entry(path.split('/').nth(1).unwrap_or_default().to_owned()).or_default() += 1;
            }
        }
        assert!(added.len() >= 5 && added.values().sum::<u32>() > 100, "{added:?}");
    }

    #[test]
    fn t11_drift_nothing_of_this_tree_is_without_its_threats() {
        let root = crate::root();
        let model = crate::model(root).unwrap();
        let threats = model.threat.iter().map(|threat| threat.id.as_str()).collect();
        let surface = Surface::read(&crate::sources(root).unwrap());
        let found = surface.findings(&crate::read(root, INVENTORY).unwrap(), &threats);
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}
