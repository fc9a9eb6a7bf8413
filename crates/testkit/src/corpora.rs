//! Inputs that others got wrong, with what ours must say of each. They lie in `corpora/`, whose README tells where they
//! come from and how they are written.

/// One input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// What must be said of it, in a word of its corpus.
    pub verdict: &'static str,
    /// What is odd about it.
    pub name: String,
    /// The input.
    pub bytes: Vec<u8>,
}

impl Case {
    /// The input, where it is text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// Documents that parsers of JSON disagree about: `accept` or `refuse`.
pub fn json() -> Vec<Case> {
    cases(include_str!("../corpora/json.txt"))
}

/// Hosts of a URL by the class of the address they lead to; `none` is no host.
pub fn addresses() -> Vec<Case> {
    cases(include_str!("../corpora/addresses.txt"))
}

/// Paths: `refuse`, `pass`, or `move` and where to.
pub fn paths() -> Vec<Case> {
    cases(include_str!("../corpora/paths.txt"))
}

/// Bytes of a connection: `refuse` with the end of the connection, `never-two` answers, or `two` of them.
pub fn requests() -> Vec<Case> {
    cases(include_str!("../corpora/requests.txt"))
}

fn cases(text: &'static str) -> Vec<Case> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let case = |line: &'static str| {
        let (verdict, rest) = line.split_once('\t').unwrap_or((line, ""));
        let (name, input) = rest.split_once('\t').unwrap_or((rest, rest));
        Case { verdict, name: name.to_owned(), bytes: unescaped(input) }
    };
    lines.map(case).collect()
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        rest = after.get(1..).unwrap_or_default();
        match after.as_bytes().first() {
            Some(b'n') => bytes.push(b'\n'),
            Some(b'r') => bytes.push(b'\r'),
            Some(b't') => bytes.push(b'\t'),
            Some(b'x') => {
                bytes.extend(rest.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()));
                rest = rest.get(2..).unwrap_or_default();
            }
            Some(b'{') => {
                // The end of the repeated text is the last brace before a backslash or the end: the text may hold braces.
                let whole = rest.split('\\').next().unwrap_or_default();
                let end = whole.rfind('}').unwrap_or(whole.len());
                let (times, repeated) = whole.get(..end).and_then(|inner| inner.split_once(':')).unwrap_or(("0", ""));
                bytes.extend(repeated.as_bytes().repeat(times.parse().unwrap_or_default()));
                rest = rest.get(end + 1..).unwrap_or_default();
            }
            _ => bytes.push(b'\\'),
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// The inputs that are committed for a fuzz target: those of `fuzz/corpus/TARGET` in the room whose folder is given.
///
/// # Panics
/// If there are none, or one can't be read.
pub fn committed(room: &str, target: &str) -> Vec<Vec<u8>> {
    let folder = std::path::Path::new(room).join("fuzz/corpus").join(target);
    let read = || -> std::io::Result<Vec<Vec<u8>>> {
        std::fs::read_dir(&folder)?.map(|entry| std::fs::read(entry?.path())).collect()
    };
    let inputs = read();
    assert!(inputs.as_ref().is_ok_and(|inputs| !inputs.is_empty()), "{}: {inputs:?}", folder.display());
    inputs.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_read_byte_for_byte() {
        for (written, bytes) in [
            ("a b", &b"a b"[..]),
            (r"\\u0041\n\r\t\x00\xfF", b"\\u0041\n\r\t\x00\xff"),
            (r"[\{3:{}x}]", b"[{}x{}x{}x]"),
            (r"\{2:[}\{2:]}", b"[[]]"),
            ("ä\\\\", "ä\\".as_bytes()),
        ] {
            assert_eq!(unescaped(written), bytes, "{written}");
        }
    }

    #[test]
    fn every_corpus_has_each_of_its_verdicts_and_no_case_twice() {
        for (cases, verdicts, most) in [
            (json(), &["accept", "refuse"][..], 180),
            (addresses(), &["loopback", "private", "metadata", "none", "public", "reserved"], 140),
            (paths(), &["refuse", "pass", "move /a"], 50),
            (requests(), &["refuse", "never-two", "two"], 60),
        ] {
            assert!(cases.len() >= most, "{}", cases.len());
            for verdict in verdicts {
                assert!(cases.iter().any(|case| case.verdict == *verdict), "{verdict}");
            }
            let mut inputs: Vec<&[u8]> = cases.iter().map(|case| case.bytes.as_slice()).collect();
            inputs.sort_unstable();
            inputs.dedup();
            assert_eq!(inputs.len(), cases.len());
        }
    }
}
