//! Every point once, then random schedules until the time is up.
//!
//! Owns: what is played in which order, and the closing line.
//! Reads: the settings.
//! Never: judges a run; see `integration_tests::chaos`.

use std::cmp::Reverse;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use integration_tests::Engine;
use integration_tests::chaos::{Met, Scenario, Schedule, Tally, every_point, play, play_all};

use crate::settings::{asked_time, jobs, only, say, seed, time, turn};

/// So many schedules are the least that must have been played.
const LEAST: usize = 200;
/// The random ones get this much time at least; the points get twice the time of all at most.
const RANDOM: Duration = Duration::from_secs(40);

/// Plays schedules and says each minute how far it is.
fn play_and_say(schedules: impl Iterator<Item = Schedule> + Send, until: Option<Instant>) -> Tally {
    let said = Mutex::new(Instant::now());
    play_all(schedules, jobs(), until, &|tally| {
        let mut said = said.lock().expect("nobody panics here");
        if said.elapsed() >= Duration::from_secs(60) {
            *said = Instant::now();
            eprintln!("  {tally}");
        }
    })
}

fn assert_all_passed(tally: &Tally) {
    for failure in &tally.failures {
        eprintln!("== FAILED: {}\n", failure.description);
    }
    let names: Vec<&str> = tally.failures.iter().map(|one| one.name.as_str()).collect();
    assert!(names.is_empty(), "failed schedules: {names:#?}");
}

#[test]
fn a_run_survives_faults_at_every_step_and_at_any_time() {
    let _turn = turn();
    let began = Instant::now();
    let seed = seed();
    if let Some(index) = only() {
        if let Err(failure) = play(&Schedule::random(seed, index)) {
            panic!("{}", failure.description);
        }
        return;
    }

    let all = Engine::ALL.into_iter().flat_map(|engine| {
        let all = Scenario::all_on(engine).into_iter();
        all.map(move |scenario| Schedule::calm(engine, scenario))
    });
    let calm = play_and_say(all, None);
    assert_all_passed(&calm);
    let mut played = calm.played;
    // The sandbox's first: there are fewer, and they are soon over.
    played.sort_by_key(|played| {
        let schedule = &played.schedule;
        (Reverse(schedule.engine), schedule.scenario)
    });
    let met = match asked_time() {
        Some(_) => Met::InEveryScenario,
        None => Met::Once,
    };
    let points = every_point(&played, met).unwrap_or_else(|error| panic!("{error}"));
    assert!(
        !points.is_empty(),
        "the binary has no fail points: build it with --all-features"
    );
    let count = points.len();
    let mut tally = play_and_say(points.into_iter(), Some(began + 2 * time()));
    say(&format!(
        "points: {} of {count}: {tally}, after {} s",
        tally.schedules,
        began.elapsed().as_secs()
    ));
    let mut random = (0..).map(|index| Schedule::random(seed, index));
    let until = (began + time()).max(Instant::now() + RANDOM);
    tally.add(play_and_say(&mut random, Some(until)));
    // On a machine that is too slow for its time, the number counts.
    let missing = LEAST.saturating_sub(tally.schedules);
    tally.add(play_and_say(random.take(missing), None));

    for (fault, count) in &tally.faults {
        eprintln!("  {count:>5} {fault}");
    }
    say(&format!(
        "{tally}, seed {seed}, in {} s",
        began.elapsed().as_secs()
    ));
    assert_all_passed(&tally);
    assert!(tally.schedules >= LEAST, "too few schedules: {tally}");
}
