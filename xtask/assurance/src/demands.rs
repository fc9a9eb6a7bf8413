//! What the files of the threat model may not be relieved of. They say themselves which statements there are, which kinds of
//! proof a threat demands, on which engines a room's proofs hold, which faults a part is asked about, and what is still open; so each could be made whole by
//! asking less of it. What is asked stands here once more, and a change of it is a change of this program.

use std::collections::BTreeSet;

use crate::engines::Engine;
use crate::faults::Faults;
use crate::model::{Kind, Model};

/// Lines of `docs/threat-model/open.txt`. Whoever closes one lowers this; nothing raises it.
const MOST_OPEN: usize = 41;

/// Families of statements, and how many each has.
const FAMILIES: &[(&str, u32)] = &[
    ("STS-", 15),
    ("POLICY-", 15),
    ("GATEWAY-", 23),
    ("COORDINATOR-", 20),
    ("ADMIN-", 18),
    ("AUDIT-", 14),
    ("CONTROL-", 17),
    ("SDK-", 17),
    ("D", 36),
];

/// Kinds of proof that each threat wants.
const KINDS: &[(&str, &[Kind])] = &[
    ("T01", &[Kind::Unit, Kind::Property, Kind::Fuzz, Kind::BlackBox]),
    ("T02", &[Kind::Unit, Kind::Property, Kind::Differential, Kind::Fuzz, Kind::Fault, Kind::BlackBox]),
    ("T03", &[Kind::Unit, Kind::Property, Kind::Differential, Kind::Fuzz, Kind::Fault, Kind::BlackBox]),
    ("T04", &[Kind::Property, Kind::Fault, Kind::BlackBox]),
    ("T05", &[Kind::Unit, Kind::Check, Kind::BlackBox]),
    ("T06", &[Kind::Property, Kind::Differential, Kind::Fault, Kind::BlackBox]),
    ("T07", &[Kind::Unit, Kind::Property, Kind::Fault, Kind::BlackBox]),
    ("T08", &[Kind::Fault, Kind::BlackBox]),
    ("T09", &[Kind::Unit, Kind::Property, Kind::Fuzz, Kind::BlackBox]),
    ("T10", &[Kind::Check, Kind::BlackBox]),
    ("T11", &[Kind::Check]),
    ("T12", &[Kind::Property, Kind::Fault, Kind::BlackBox]),
    ("T13", &[Kind::Unit, Kind::Fuzz, Kind::BlackBox]),
    ("T14", &[Kind::Unit, Kind::Property, Kind::BlackBox]),
    ("T15", &[Kind::Unit, Kind::BlackBox]),
    ("T16", &[Kind::Unit, Kind::Property, Kind::Differential, Kind::Fuzz, Kind::BlackBox]),
    ("T17", &[Kind::Fault, Kind::BlackBox]),
];

/// Engines on which the proofs of a room hold, unless they name theirs.
const ENGINES: &[(&str, &[Engine])] = &[
    ("admin", &[Engine::Embedded, Engine::Postgresql]),
    ("audit", &[Engine::Embedded, Engine::Postgresql]),
    ("broker", &[Engine::Embedded, Engine::Postgresql]),
    ("coordinator", &[Engine::Embedded, Engine::Postgresql]),
    ("custody", &[Engine::Embedded, Engine::Postgresql]),
    ("gateway", &[Engine::Embedded, Engine::Postgresql]),
    ("ledger", &[Engine::Embedded, Engine::Postgresql]),
    ("store", &[Engine::Embedded, Engine::Postgresql]),
    ("stream", &[Engine::Embedded, Engine::Postgresql, Engine::Redis]),
    ("sts", &[Engine::Embedded, Engine::Postgresql]),
];

/// What each part is asked about.
const FAULTS: &[(&str, &[&str])] = &[
    ("Admin and Control", &["killed", "slow", "errors"]),
    ("Caller", &["killed", "slow", "less"]),
    ("Clock", &["slow", "errors"]),
    ("Coordinator", &["killed", "slow", "errors", "less"]),
    ("Embedded store", &["killed", "slow", "errors", "less"]),
    ("Gateway", &["killed", "slow", "errors", "less"]),
    ("Ledger sequencer", &["killed", "slow", "errors", "less"]),
    ("Network between", &["killed", "slow", "errors", "less"]),
    ("PostgreSQL", &["killed", "slow", "errors", "less"]),
    ("Redis", &["killed", "slow", "errors", "less"]),
    ("STS", &["killed", "slow", "errors", "less"]),
    ("Secret backend", &["killed", "slow", "errors", "less"]),
    ("Upstream, provider, IdP", &["killed", "slow", "errors", "less"]),
];

/// What the files ask less of, in the words of whoever has to mend it.
pub(crate) fn findings(model: &Model, faults: &Faults, open: &str) -> Vec<String> {
    let mut found = Vec::new();
    let lines = open.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
    if lines != MOST_OPEN {
        let what = if lines > MOST_OPEN { "the list only shrinks: answer what is new" } else { "lower it" };
        found.push(format!("docs/threat-model/open.txt has {lines} lines, and `MOST_OPEN` is {MOST_OPEN}: {what}"));
    }
    for (prefix, last) in FAMILIES {
        if !model.family.iter().any(|family| family.prefix == *prefix && family.last >= *last) {
            found.push(format!("the statements `{prefix}1` to `{prefix}{last}` are not all asked for any more"));
        }
    }
    for (id, kinds) in KINDS {
        match model.threat.iter().find(|threat| threat.id == *id) {
            Some(threat) => {
                for kind in kinds.iter().filter(|kind| !threat.kinds.contains(kind)) {
                    found.push(format!("{id} does not want a {} proof any more", kind.name()));
                }
            }
            None => found.push(format!("the threat {id} is gone")),
        }
    }
    for (room, engines) in ENGINES {
        let asked = model.engines.get(*room);
        for engine in engines.iter().filter(|engine| !asked.is_some_and(|asked| asked.contains(engine))) {
            found.push(format!("what `{room}` proves is not asked for on {} any more", engine.said()));
        }
    }
    let asked: BTreeSet<(&str, &str)> = faults.asked().collect();
    for (part, kinds) in FAULTS {
        for kind in kinds.iter().filter(|kind| !asked.contains(&(part, kind))) {
            found.push(format!("`{part}` is not asked about `{kind}` any more"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever is taken out of the files of this tree is missed.
    #[test]
    fn t11_drift_nothing_of_this_tree_can_be_asked_less() {
        let root = crate::root();
        let whole = || crate::model(root).unwrap();
        let cells = crate::read(root, crate::FAULTS).unwrap();
        let faults = Faults::parse(&cells).unwrap();
        let open = crate::read(root, crate::OPEN).unwrap();
        let said = |model: &Model, faults: &Faults, open: &str| findings(model, faults, open).len();
        assert_eq!(findings(&whole(), &faults, &open), Vec::<String>::new());

        assert_eq!(said(&whole(), &faults, &format!("{open}STS-7\n")), 1);
        assert_eq!(said(&whole(), &faults, open.rsplit_once("\nfault ").unwrap().0), 1);
        for family in 0..FAMILIES.len() {
            let mut less = whole();
            less.family[family].last -= 1;
            assert_eq!(said(&less, &faults, &open), 1, "{}", less.family[family].prefix);
        }
        for (threat, (id, kinds)) in KINDS.iter().enumerate() {
            let mut less = whole();
            assert_eq!(less.threat.remove(threat).id, *id);
            assert_eq!(said(&less, &faults, &open), 1);
            for kind in *kinds {
                let mut less = whole();
                assert!(less.threat[threat].kinds.remove(kind));
                assert_eq!(said(&less, &faults, &open), 1);
            }
        }
        for (room, engines) in ENGINES {
            for engine in *engines {
                let mut less = whole();
                assert!(less.engines.get_mut(*room).unwrap().remove(engine));
                assert_eq!(said(&less, &faults, &open), 1, "{room}");
            }
        }
        for (part, kinds) in FAULTS {
            for kind in *kinds {
                let other = cells.replace(&format!("[{part}.{kind}]"), "[Other.killed]");
                let other = other.replace(&format!("[\"{part}\".{kind}]"), "[Other.killed]");
                assert_eq!(said(&whole(), &Faults::parse(&other).unwrap(), &open), 1, "{part} {kind}");
            }
        }
    }
}
