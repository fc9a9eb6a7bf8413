//! Our parser, validator, ladder and oracle against what stock Open Policy Agent said: see `vectors/README.md`.

use std::collections::BTreeMap;

use caracal_oracle::Oracle;
use caracal_oracle::opa::{self, DocumentVector, ZoneVector};

mod t02_policy_oracle {
    use super::*;

    #[test]
    fn what_we_take_opa_takes_and_reads_as_the_same_values() {
        let vectors: Vec<DocumentVector> = opa::read(opa::DOCUMENTS).expect("the vectors");
        let checked = opa::check_documents(&vectors).unwrap_or_else(|difference| panic!("{difference}"));
        println!("{checked:?} of {}", vectors.len());
        assert!(vectors.len() >= 600 && checked.parsed >= 200, "{checked:?}");
        assert!(checked.loaded >= 150 && checked.built >= 60 && checked.values >= 250, "{checked:?}");
        assert!(vectors.iter().filter(|vector| !vector.taken).count() >= 200, "OPA refuses some, too");
    }

    #[test]
    fn the_interpreter_and_the_ladder_answer_as_opa_does() {
        let zones: Vec<ZoneVector> = opa::read(opa::DECISIONS).expect("the vectors");
        let oracle = Oracle::new().expect("the contract's own text");
        opa::check_zones(&oracle, &zones).unwrap_or_else(|difference| panic!("{difference}"));
        let mut rows: BTreeMap<Option<u64>, u64> = BTreeMap::new();
        for question in zones.iter().flat_map(|zone| &zone.questions) {
            *rows.entry(question.row()).or_default() += 1;
        }
        for row in (1..=15).map(Some) {
            assert!(rows.get(&row).is_some_and(|count| *count >= 10), "row {row:?}: {rows:?}");
        }
        assert!(rows.get(&None).is_some_and(|count| *count >= 3), "evaluations without an answer: {rows:?}");
        assert!(zones.iter().filter(|zone| !zone.taken).count() >= 10);
    }

    #[test]
    fn a_changed_answer_is_noticed() {
        let oracle = Oracle::new().expect("the contract's own text");
        let mut zones: Vec<ZoneVector> = opa::read(opa::DECISIONS).expect("the vectors");
        let answer =
            zones.iter_mut().flat_map(|zone| &mut zone.questions).find_map(|question| question.answer.as_mut());
        answer.expect("an answer")["result"]["decision"] = "perhaps".into();
        assert!(opa::check_zones(&oracle, &zones).is_err());
        let mut documents: Vec<DocumentVector> = opa::read(opa::DOCUMENTS).expect("the vectors");
        let roots =
            documents.iter_mut().find(|vector| vector.name.starts_with("built")).and_then(|one| one.roots.as_mut());
        roots.expect("roots")["grants"] = "other".into();
        assert!(opa::check_documents(&documents).is_err());
    }
}
