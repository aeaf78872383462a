//! The REST API in front of a cluster: the suite that one process passes too, asked of two API servers in turn.

use millrace_tests::suites::rest::{accounts, calls, document, ide, refusals, resend, runs, tools};

use crate::release::place;

/// Runs functions of the suite.
macro_rules! suite {
    ($($group:ident::$name:ident,)+) => {
        $(#[tokio::test] async fn $name() {
            let (_turn, place) = place().await;
            $group::$name(&place).await;
        })+
    };
}

suite! {
    calls::the_four_calls_of_the_quick_start_work,
    calls::stream_operations_need_a_key_and_everything_else_does_not,
    calls::unknown_paths_methods_origins_and_hosts_get_typed_errors_too,
    calls::what_is_not_built_is_refused_at_start_by_its_field,
    calls::wrong_passwords_and_hosts_fail_tests_pings_and_starts_alike,
    calls::connections_are_kept_without_showing_their_secrets,
    calls::federated_statements_that_reach_outside_are_refused_and_errors_hold_no_secret,
    calls::the_openapi_document_is_valid_and_names_what_every_route_answers,
    document::every_example_works,
    resend::creations_and_starts_that_are_sent_again_happen_once,
    refusals::bad_requests,
    refusals::bad_configs_are_refused_by_plan_and_start_alike,
    runs::selections_choose_columns_and_rows_by_every_operator,
    runs::unwanted_structure_is_left_out_and_refuses_nothing,
    runs::a_target_connection_that_breaks_is_opened_again_and_no_row_is_lost_or_doubled,
    runs::a_source_connection_that_breaks_is_opened_again_at_a_new_moment,
    runs::a_paused_run_goes_on_where_it_was,
    accounts::under_key_everything_but_three_paths_asks_for_a_key_or_a_session,
    accounts::statements_are_logged_as_the_setting_says,
    accounts::foreign_keys_that_do_not_hold_are_named_counted_and_validated_later,
    ide::structure_is_walked_from_databases_to_columns,
    ide::pages_hold_every_row_once_in_the_order_asked_for,
    ide::edits_hit_the_named_row_or_nothing,
    ide::statements_answer_one_by_one_until_one_fails,
    ide::statements_leave_no_lock_behind,
    ide::definitions_are_seen_at_once,
    ide::objects_are_found_from_the_list_of_connections,
    ide::statistics_are_made_and_remembered,
    ide::federated_statements_are_validated_and_their_names_are_listed,
    tools::the_protocol_is_spoken_and_the_tools_are_those_of_the_contract,
    tools::connections_are_walked_and_rows_are_shown,
    tools::only_reading_statements_run,
    tools::federated_statements_run_and_are_explained,
    tools::no_answer_holds_a_secret,
}
