//! The suite that every engine behind the seam has to pass: what [`Store`](crate::Store) promises in words, as cases.
//!
//! An engine's tests name it and say how a fresh store is made; each case becomes a test of its own:
//!
//! ```text
//! mod sqlite {
//!     caracal_store::conformance_suite!(crate::fresh);
//! }
//! ```
//!
//! Cases speak to the store through the seam. What the seam cannot do, such as changing evidence, they try with
//! statements of their own in the store's own transactions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a case fails by panicking")]

use std::any::Any;
use std::path::Path;
use std::sync::Arc;

use caracal_authority::Timestamp;

use crate::clock::Clock;
use crate::postgres::PostgresOptions;
use crate::sqlite::SqliteOptions;
use crate::store::{BoxFuture, Store};

pub mod decisions;
pub mod evidence_upkeep;
mod fixtures;
pub mod isolation;
pub mod ledger;
pub mod pages;
pub mod repositories;
pub mod transactions;

/// A store that was empty when it was made.
pub struct Fresh {
    /// The store.
    pub store: Store,
    /// What holds its data, and goes away with it.
    pub kept: Box<dyn Any + Send + Sync>,
}

/// Opens the store of a test of another room: in `directory`, or in the database at `url` where there is one.
pub async fn open(directory: &Path, url: Option<&str>, clock: Arc<dyn Clock>) -> Store {
    let Some(url) = url else { return Store::open(&SqliteOptions::in_directory(directory), clock).unwrap() };
    let mut options = PostgresOptions::at(url).unwrap();
    options.clock = Some(clock);
    options.connections = 6;
    Box::pin(Store::open_postgres(options)).await.unwrap()
}

/// A clock that says each time that it is asked: at the beginning of every transaction and, on the embedded engine, of every
/// change and again before the commit. Whoever stops there stops between two durable writes, with all or nothing written of
/// the next.
pub struct WatchedClock {
    /// What it is made of.
    pub of: Arc<dyn Clock>,
    /// Who hears of it.
    pub asked: Box<dyn Fn() + Send + Sync>,
}

impl Clock for WatchedClock {
    fn now(&self) -> Timestamp {
        (self.asked)();
        self.of.now()
    }

    fn has_been(&self, time: Timestamp) {
        self.of.has_been(time);
    }
}

/// Makes a fresh store that takes its time from the given clock.
pub type Make = fn(Arc<dyn Clock>) -> BoxFuture<'static, Fresh>;

/// One test per case over the stores that `$make`, an absolute path to a [`Make`], makes.
#[macro_export]
macro_rules! conformance_suite {
    ($make:path) => {
        $crate::conformance_suite! { @cases $make;
            t04_state = transactions {
                a_mandate_is_consumed_once_whoever_races
                a_nonce_is_consumed_once_whoever_races
                a_change_sees_what_was_committed_before_it
                a_failed_change_leaves_nothing_and_its_neighbours_stand
                a_panicking_change_is_rolled_back_and_the_store_goes_on
                observers_hear_in_commit_order_and_before_the_caller
                a_snapshot_is_one_instant
                a_snapshot_has_one_time
                a_caller_that_goes_away_leaves_its_change_done_or_not
                closing_finishes_what_was_submitted_and_then_refuses
                a_message_is_added_once_per_topic_and_key
            }
            t04_state_decisions = decisions {
                what_takes_authority_away_voids_decisions_of_its_zone
                what_only_adds_voids_no_decision
                a_decision_looks_at_what_it_names_however_much_else_there_is
                taking_back_looks_at_what_falls_however_much_else_there_is
                a_change_that_ran_counts_before_it_is_committed
                no_decision_outlives_a_change_of_its_facts
                upkeep_takes_no_authority_away
            }
            t06_evidence = ledger {
                evidence_can_be_neither_changed_nor_removed
                published_versions_can_be_neither_changed_nor_removed
                a_position_in_a_chain_is_taken_once
                the_tree_of_a_ledger_comes_back_as_stored_and_only_grows
            }
            t06_evidence_upkeep = evidence_upkeep {
                evidence_leaves_at_its_old_end_and_behind_an_anchor_only
                how_long_evidence_is_kept_comes_back_as_set
                what_stands_against_the_ledger_comes_back_as_noted
                an_event_is_found_by_its_identity_and_its_place
                how_far_evidence_was_exported_replaces_what_it_was_made_of_only
                what_is_exported_next_is_found_by_its_place
            }
            t01_control_plane = isolation {
                another_zones_ids_are_absent
                another_zones_rows_cannot_be_changed
            }
            connections = transactions {
                a_connection_is_in_use_as_long_as_its_transaction
            }
            pages = pages {
                rows_of_one_instant_are_each_on_one_page
                a_page_costs_the_same_wherever_it_lies
                a_filtered_list_costs_what_it_finds
            }
            repositories = repositories {
                zones_come_back_as_stored
                applications_come_back_as_stored
                workloads_come_back_as_stored
                providers_come_back_as_stored
                subject_issuers_come_back_as_stored
                connections_come_back_as_stored
                a_connection_is_renewed_by_one_at_a_time
                ending_a_connection_voids_decisions_and_renewing_does_not
                sinks_come_back_as_stored
                a_sink_takes_each_event_once_and_in_order
                a_sink_is_served_by_one_at_a_time
                a_consent_is_finished_once
                resources_come_back_as_stored
                policies_come_back_as_stored
                policy_sets_come_back_as_stored
                counts_come_back_as_last_kept_and_the_newest_first_choice
                grants_come_back_as_stored
                what_a_user_holds_is_listed_oldest_first
                what_processes_have_loaded_is_told_while_they_are_there
                sessions_come_back_as_stored
                edges_come_back_as_stored
                sessions_are_listed_newest_first_by_every_filter
                a_lease_moves_only_under_its_own_conditions
                a_renewal_waits_for_no_other_change_and_takes_nothing_away
                what_is_over_is_forgotten_from_the_leaves_on
                records_of_changes_wait_in_the_order_of_their_ids
                what_hangs_on_an_edge_is_each_edge_once
                services_come_back_as_stored
                invocations_come_back_as_stored
                records_come_back_as_stored
                all_that_descends_from_a_record_falls_however_deep
                receipts_come_back_as_stored
                a_key_is_remembered_with_its_request_in_its_scope
                holds_come_back_as_stored
                a_request_has_one_hold_while_one_answers_for_it
                a_hold_is_decided_and_spent_under_its_conditions_only
                of_those_who_race_for_a_hold_one_wins
                a_change_that_fails_leaves_a_hold_unspent_and_undecided
                holds_are_listed_and_counted_by_the_state_they_are_in_now
                holds_are_forgotten_a_while_after_everything_is_over
                marks_that_cannot_be_are_corruption
                the_line_of_a_record_is_itself_and_its_ancestors
                admin_tokens_come_back_as_stored
                keys_and_secrets_come_back_as_stored
                the_latest_key_whose_time_has_come_signs
                no_sealed_column_is_forgotten
                every_envelope_is_found_once_and_replaced_only_where_it_still_lies
                rows_with_a_secret_elsewhere_are_named
                the_limit_of_mints_comes_back_as_set
                withdrawn_keys_are_gone_and_remembered_and_the_zone_has_moved
                zones_are_changed_and_archived_once
                what_is_archived_is_archived_once
                applications_that_ended_by_themselves_are_archived_in_small_numbers
                admin_tokens_are_listed_used_and_revoked_once
                records_are_listed_by_what_they_are_now
                sessions_are_listed_with_whose_authority_they_ride
                subjects_are_what_their_records_tell
                what_hangs_on_a_holder_is_found_however_deep
                what_hangs_on_a_resource_is_found
                management_records_are_listed_by_chain
                a_zone_in_numbers_leaves_out_what_is_archived
                evidence_comes_back_as_stored
                a_crowd_under_one_request_id_is_cut_and_hides_no_denial
                used_mandates_are_forgotten_once_expired
                what_is_named_is_what_would_be_read
                what_is_remembered_is_what_would_be_read
                that_a_record_was_missing_is_not_remembered
                a_record_is_known_as_soon_as_it_is_added
                what_is_not_remembered_is_asked
                all_that_a_decision_names_is_read_in_one_round_trip
                all_that_a_launch_names_is_read_in_one_round_trip
            }
        }
    };
    (@cases $make:path; $($module:ident = $source:ident { $($case:ident)+ })+) => {
        $(mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $crate::conformance::$source::$case($make).await;
            })+
        })+
    };
}
