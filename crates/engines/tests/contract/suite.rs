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
            exits {
                exit_codes_are_the_agents,
                a_signal_that_ended_the_agent_is_in_its_record,
                a_program_that_cannot_be_executed_is_in_the_record,
                the_end_is_told_as_often_as_it_is_asked_for,
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
