//! The ladder and the oracle, asked the same questions.

use std::thread;

use caracal_oracle::{Oracle, Plan, run};

/// Questions of an ordinary run of the suite. `cargo run -p caracal-oracle --release -- --cases N` asks more.
const CASES: u64 = 130_000;
const SEED: u64 = 20_260_712;

mod t02_policy_oracle {
    use super::*;

    #[test]
    fn the_ladder_and_the_oracle_are_of_one_mind() {
        let oracle = Oracle::new().expect("the contract's own text");
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let report = match run(&oracle, Plan { cases: CASES, seed: SEED, threads }, |_| {}) {
            Ok(report) => report,
            Err(difference) => panic!("{difference}"),
        };
        println!("{report:#?}");
        // What never comes up proves nothing: every row many times, and whatever a row can say.
        assert!(report.cases >= 100_000, "{report:?}");
        for row in 1..=15 {
            assert!(report.row(row) >= 1_000, "row {row} came up {} times only: {report:?}", report.row(row));
        }
        for (what, count, least) in [
            ("zones", report.zones, 2_000),
            ("zones whose documents are refused", report.refused, 200),
            ("zones that an author could hand in", report.strict, 200),
            ("evaluations without an answer", report.failed, 150),
            ("mints held for a human", report.held, 500),
            ("mints of classified scopes", report.classified, 1_500),
            ("simulated inputs", report.simulated, 5_000),
            ("answers with documents as rules", report.live, 500),
        ] {
            assert!(count >= least, "{what} came up {count} times only: {report:?}");
        }
        let evaluated = &report.evaluated;
        for row in 1..=15 {
            let count = evaluated.rows.get(&row).copied().unwrap_or(0);
            assert!(count >= 20, "with programs, row {row} came up {count} times only: {report:?}");
        }
        for (what, count, least) in [
            ("questions to programs", evaluated.cases, 5_000),
            ("zones with programs", evaluated.zones, 500),
            ("zones whose documents look at the question", evaluated.open, 300),
            ("zones with programs that are refused", evaluated.refused, 20),
            ("zones with programs that an author could hand in", evaluated.strict, 50),
            ("evaluations of programs without an answer", evaluated.failed, 50),
        ] {
            assert!(count >= least, "{what} came up {count} times only: {report:?}");
        }
    }
}
