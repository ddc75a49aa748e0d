//! The conformance suite of `trait Store`: each test runs on SQLite and on MongoDB, those of functions and triggers also
//! on MongoDB as if it had no transactions. What only one of them can show is in `sqlite_only`, `mongo_only` and
//! `mongo_killed`.

mod documents;
mod executions;
mod fleet;
mod functions;
mod inbox;
mod logs;
mod mongo_killed;
mod mongo_only;
mod packages;
mod paging;
mod queues;
mod scope;
mod sqlite_only;

use crate::support::databases::{with_mongo, with_mongo_without_transactions, with_sqlite};

/// Makes of each test one per store. A test that is not listed is dead code, which the compiler reports.
macro_rules! conformance {
    (
        also_without_transactions { $( $both:ident: $( $each:ident ),+ $(,)? ; )+ }
        $( $area:ident: $( $test:ident ),+ $(,)? ; )+
    ) => {
        mod sqlite {
            $( conformance! { @with_sqlite $both: $( $each )+ } )+
            $( conformance! { @with_sqlite $area: $( $test )+ } )+
        }
        mod mongo {
            $( conformance! { @with_mongo $both: $( $each )+ } )+
            $( conformance! { @with_mongo $area: $( $test )+ } )+
        }
        mod mongo_without_transactions {
            $( conformance! { @with_mongo_without_transactions $both: $( $each )+ } )+
        }
    };
    (@$with:ident $area:ident: $( $test:ident )+) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            super::$with(super::$area::$test).await;
        }
    )+ };
}

conformance! {
    also_without_transactions {
        functions:
            a_function_reads_back_as_it_was_written,
            a_name_is_unique_in_its_project_and_free_in_others,
            a_creation_that_is_refused_leaves_no_trigger,
            a_creation_that_is_repeated_succeeds_and_makes_nothing_twice,
            of_many_creations_with_one_name_one_succeeds,
            a_stale_revision_is_refused,
            functions_with_provisioned_concurrency_are_found_over_all_projects,
            a_replacement_that_is_repeated_succeeds,
            of_many_replacements_of_one_revision_one_succeeds,
            a_rename_to_a_taken_name_is_refused,
            a_function_never_moves_to_another_project,
            deletion_takes_the_triggers_along_and_frees_the_name,
            a_trigger_needs_a_function_of_its_project,
            a_trigger_that_is_created_while_its_function_goes_is_not_left_behind,
            the_triggers_of_a_project_are_all_there;
        scope: another_projects_documents_are_not_found;
        queues:
            triggers_on_queues_are_found_over_all_projects,
            how_a_queue_goes_is_kept_with_its_trigger;
    }
    queues:
        of_many_who_take_a_queue_one_has_it,
        a_queue_is_released_by_its_owner_only,
        the_first_secret_stays;
    packages:
        a_large_package_reads_back_and_is_kept_once,
        a_package_goes_only_when_it_is_unused_and_old,
        an_empty_package_and_an_unknown_one_are_told_apart;
    executions:
        an_execution_reads_back_in_every_state,
        what_is_inserted_twice_is_known_and_unchanged,
        of_many_who_insert_the_same_each_execution_is_new_to_one,
        a_write_is_refused_unless_worker_attempt_and_state_are_as_expected,
        a_write_that_is_repeated_says_that_it_was_applied,
        a_write_that_was_followed_by_another_is_not_taken_for_applied,
        each_write_of_a_batch_has_its_own_answer,
        a_batch_may_be_larger_than_one_command,
        two_workers_who_race_for_executions_each_win_others;
    inbox:
        only_what_is_parked_and_due_is_found,
        the_longest_due_comes_first_and_projects_take_turns,
        the_next_call_goes_on_with_the_next_project,
        functions_that_cannot_run_do_not_hide_others,
        the_next_due_time_is_that_of_the_first_that_is_parked,
        what_a_worker_owns_is_found_until_it_is_finished,
        a_dead_letter_is_owed_until_it_is_posted,
        a_redriven_execution_is_in_the_inbox_again;
    paging:
        every_order_and_direction_gives_each_function_once,
        pages_of_executions_stay_stable_while_others_come_go_and_change,
        filters_of_executions_hold_together,
        filters_of_functions_and_triggers_hold,
        an_id_is_a_marker_and_a_wrong_marker_is_refused,
        a_page_ends_early_when_it_grows_large;
    logs:
        a_log_is_read_in_order_from_any_place,
        a_part_that_is_sent_again_replaces_the_first;
    fleet:
        a_heartbeat_is_dated_by_the_store,
        a_silent_worker_is_declared_dead_once_and_stays_dead,
        a_worker_that_beats_is_not_declared_dead,
        a_worker_that_is_not_known_can_be_declared_dead,
        a_forgotten_worker_is_refused,
        a_worker_that_owns_something_is_not_forgotten,
        what_a_dead_worker_owned_is_adopted_once,
        instances_are_kept_and_forgotten,
        a_deployment_has_one_name_for_all_who_ask;
    documents:
        migrating_twice_and_at_once_changes_nothing,
        a_document_of_an_earlier_release_reads,
        a_document_of_a_later_release_reads;
}
