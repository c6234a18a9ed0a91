//! The list of behaviours, and what makes a test of each for an engine.
//!
//! Owns: the list. A behaviour that is not in it does not compile: nobody would call it.
//! Reads: nothing.
//! Never: has a behaviour that only one engine is held to; those are tests of that engine.

/// Makes a test of each behaviour for the engine of a lab.
macro_rules! contract {
    ($lab:expr) => {
        behaviours! {
            $lab;
            declared {
                probing_and_describing_say_the_same_and_leave_nothing,
                an_engine_that_was_checked_is_recognized,
                what_the_engine_cannot_do_is_refused_before_anything_starts,
                what_the_engine_lacks_is_not_created_either,
                the_documentation_has_what_the_engine_declares,
            }
            exits {
                exit_codes_are_the_agents,
                a_signal_that_ended_the_agent_is_in_its_record,
                a_program_that_cannot_be_executed_is_in_the_record,
                the_end_is_told_as_often_as_it_is_asked_for,
            }
            images {
                an_image_that_is_there_is_told_by_what_it_is,
                a_missing_image_is_an_error,
                nothing_is_created_of_a_missing_image,
            }
            output {
                both_streams_are_byte_equal_for_20_mb,
                a_line_of_64_mib_is_byte_equal,
                the_first_and_the_last_byte_are_there,
                bytes_that_are_no_text_stay_as_they_are,
                two_followers_see_the_same_bytes,
                the_prompt_is_on_the_standard_input_and_in_its_file,
                what_outlives_the_agent_writes_nothing_more,
            }
            launch {
                environment_values_are_exact,
                arguments_are_exact,
                labels_are_ours_and_the_specs,
                the_clock_is_the_machines,
                the_time_zone_is_what_the_environment_says,
                what_is_written_belongs_to_the_agents_user,
                the_agent_writes_to_workspace_home_and_tmp_alone,
                home_and_tmp_hold_programs_but_no_devices_and_no_set_user_id,
                secrets_are_files_and_nowhere_else,
                a_hidden_git_is_empty_inside_and_untouched_outside,
                without_a_network_there_is_only_loopback,
            }
            mounts {
                a_folder_is_as_writable_as_its_mount_says,
                a_file_is_as_writable_as_its_mount_says,
                a_source_behind_a_symlink_is_what_it_leads_to,
                paths_are_taken_as_they_are,
                a_mount_may_lie_in_the_workspace,
            }
            stopping {
                stop_gives_the_agent_time_to_leave,
                stop_sends_the_policys_signal,
                stop_kills_an_agent_that_ignores_its_signal,
                stop_without_grace_kills_at_once,
                stop_before_start,
                stop_after_the_end,
                stop_twice,
                a_second_stop_may_have_less_patience,
                a_kill_from_outside_leaves_an_exact_beginning,
            }
            pausing {
                a_workload_is_frozen_and_goes_on_however_often_it_is_told,
                what_does_not_run_cannot_be_frozen,
                a_frozen_agent_gets_its_time_to_leave,
                a_frozen_agent_is_thawed_for_any_signal,
                a_frozen_stubborn_agent_is_killed_and_its_record_is_whole,
            }
            recovery {
                another_process_finds_each_state,
                creating_twice_is_one_workload,
                starting_twice_is_one_run,
                a_workload_goes_on_without_whoever_started_it,
                an_agent_that_ran_is_not_started_again,
                what_is_gone_cannot_be_started,
                a_name_that_somebody_else_has_is_refused,
            }
            owning {
                only_what_is_ours_is_listed,
                what_is_listed_says_when_it_was_created,
                what_is_listed_goes_whatever_it_does,
                what_is_just_ending_is_listed_and_found,
                what_is_another_owners_is_left_alone,
                what_has_no_label_of_ours_is_left_alone,
                what_has_ended_is_removed_and_then_gone,
                what_runs_is_not_removed,
                fifty_at_once,
            }
            limits {
                an_agent_without_enough_memory_is_killed_and_that_is_told,
                a_child_without_enough_memory_is_killed_and_that_is_told,
                processes_are_limited,
                cpu_time_is_limited,
                files_are_limited_in_size_and_in_number,
            }
            beside {
                a_program_is_executed_as_the_agent_is,
                a_program_that_cannot_be_executed_says_so,
                nothing_is_executed_or_measured_in_what_has_ended,
                what_a_workload_uses_is_measured,
                what_has_ended_is_opened_again_with_its_files,
            }
        }
    };
}

macro_rules! behaviours {
    ($lab:expr; $($topic:ident { $($behaviour:ident,)+ })+) => {
        $($(
            #[tokio::test(flavor = "multi_thread")]
            async fn $behaviour() {
                let site = crate::site::Site::open(Box::new($lab));
                crate::$topic::$behaviour(&site).await;
                site.close().await;
            }
        )+)+
    };
}
