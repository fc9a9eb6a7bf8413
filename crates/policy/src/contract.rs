//! Which decision contract this build answers by (contract: policy.md §1, §13.1).
//!
//! Both values are part of what an approval is bound to: change one and every outstanding approval is void. So the
//! hash is that of a statement of the ladder kept beside the code, which changes when decisions change, and not
//! that of the source, which changes with every comment.

use std::fmt::Write;
use std::sync::LazyLock;

use crate::hashes::sha256;

/// Version of the decision contract.
pub const DECISION_CONTRACT_VERSION: &str = "2026-07-12";

/// The ladder in words: what [`decision_contract_sha256`] is taken of.
pub const DECISION_CONTRACT_STATEMENT: &str = include_str!("decision-contract.txt");

/// Lower-case hexadecimal SHA-256 of [`DECISION_CONTRACT_STATEMENT`].
pub fn decision_contract_sha256() -> &'static str {
    static HASH: LazyLock<String> = LazyLock::new(|| {
        sha256(DECISION_CONTRACT_STATEMENT.as_bytes()).iter().fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a `String` cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    });
    &HASH
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::DenyReason;

    #[test]
    fn the_statement_names_every_outcome_of_the_ladder() {
        let names = ["caracal-bootstrap", "caracal-workload-mint", "caracal-<K>-mint", "caracal-<K>-use"];
        for outcome in DenyReason::ALL.iter().map(|reason| reason.as_str()).chain(names) {
            assert!(DECISION_CONTRACT_STATEMENT.contains(outcome), "{outcome}");
        }
        assert!(DECISION_CONTRACT_STATEMENT.starts_with(&format!("decision contract {DECISION_CONTRACT_VERSION}\n")));
    }

    /// Changing the statement voids every outstanding approval, so it must not happen by accident.
    #[test]
    fn the_hash_is_pinned() {
        assert_eq!(decision_contract_sha256(), "efbf31f47608eff645e1371a010fdaa10b5d47865ccd5ca4dc216d179e202c8e");
    }
}
