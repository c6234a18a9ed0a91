//! The store against its rules: whatever is done in whatever order, both say the same.

use proptest::prelude::*;
use proptest::sample::select;

use super::super::reference::{Change, Denied, Row};
use super::*;

/// What somebody does to the row; tenures are counted from the first one.
#[derive(Debug, Clone)]
enum Deed {
    TakeOver,
    Advance(Whose, Change<()>),
    RequestStop(u8, Option<u8>),
    RequestPause(Motion),
    BeginStop,
    NoteSilence(Whose),
    NotePause(Whose),
    MarkRemoved(Whose),
}

/// Who writes.
#[derive(Debug, Clone, Copy)]
enum Whose {
    /// The supervisor that has the lease.
    Current,
    /// The one before it.
    Replaced,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let whose = || prop_oneof![4 => Just(Whose::Current), 1 => Just(Whose::Replaced)];
    let changes = vec![
        Change::Pulling,
        Change::Creating,
        Change::Starting(1),
        Change::Running,
        Change::Collecting,
        Change::Finished(()),
    ];
    // In the order of a run, with other things in between, and sometimes out of order.
    let deed = prop_oneof![
        2 => Just(Deed::TakeOver),
        6 => (whose(), select(changes)).prop_map(|(whose, change)| Deed::Advance(whose, change)),
        2 => (0..3u8, proptest::option::of(0..4u8)).prop_map(|(by, grace)| Deed::RequestStop(by, grace)),
        1 => select(vec![Motion::Frozen, Motion::Going]).prop_map(Deed::RequestPause),
        1 => Just(Deed::BeginStop),
        1 => whose().prop_map(Deed::NoteSilence),
        1 => whose().prop_map(Deed::NotePause),
        1 => whose().prop_map(Deed::MarkRemoved),
    ];
    let forward = [
        Change::Pulling,
        Change::Creating,
        Change::Starting(1),
        Change::Running,
        Change::Collecting,
        Change::Finished(()),
    ];
    let between = proptest::collection::vec(proptest::collection::vec(deed, 0..3), 7);
    between.prop_map(move |mut between| {
        let mut deeds = between.pop().unwrap_or_default();
        for (change, others) in forward.into_iter().zip(between) {
            deeds.push(Deed::Advance(Whose::Current, change));
            deeds.extend(others);
        }
        deeds
    })
}

fn by(number: u8) -> StopReason {
    StopReason::Cancelled {
        by: number.to_string(),
    }
}

fn grace(number: u8) -> Duration {
    Duration::from_secs(number.into())
}

fn transition(attempt: AttemptId, change: Change<()>) -> Transition {
    match change {
        Change::Preparing => Transition::Preparing,
        Change::Pulling => Transition::Pulling,
        Change::Creating => Transition::Creating(ImageRecord {
            reference: "img:1".to_owned(),
            digest: "sha256:1".to_owned(),
        }),
        Change::Starting(_) => Transition::Starting(Handle {
            engine: "docker".to_owned(),
            attempt,
            container: "c".to_owned(),
            version: 1,
            state: json!({}),
        }),
        Change::Running => Transition::Running(moment(4)),
        Change::Collecting => Transition::Collecting,
        Change::Finished(()) => Transition::Finished(Box::new(report(attempt))),
    }
}

fn denied<T>(result: Result<T, StoreError>) -> Result<T, Denied> {
    result.map_err(|error| match error {
        StoreError::LeaseLost { .. } => Denied::LeaseLost,
        StoreError::BadTransition { .. } => Denied::BadTransition,
        other => panic!("{other}"),
    })
}

/// Does everything to the store and to the rules, and compares them after each deed.
async fn agree(fixture: &Fixture, first: Tenure, deeds: Vec<Deed>) {
    let (store, attempt) = (&fixture.store, first.attempt);
    let mut rules = Row::new(AttemptState::Preparing);
    let mut paused = (Motion::Going, None);
    let mut silence = None;
    let mut tenures = [first, first];
    for deed in deeds {
        let of = |whose| match whose {
            Whose::Current => tenures[1],
            Whose::Replaced => tenures[0],
        };
        let generation = |tenure: Tenure| u8::try_from(tenure.generation).unwrap();
        match deed.clone() {
            Deed::TakeOver => {
                let taken = store.take_over(attempt).await.unwrap();
                assert_eq!(rules.take_over(), generation(taken));
                tenures = [tenures[1], taken];
            }
            Deed::Advance(whose, change) => {
                let tenure = of(whose);
                let written = store
                    .advance(tenure, transition(attempt, change), time(1))
                    .await;
                let expected = rules.advance(generation(tenure), change);
                // Whoever takes a step is told whether a stop is wanted by then.
                let expected = expected.map(|()| rules.stop.is_some());
                assert_eq!(denied(written), expected, "{deed:?}");
            }
            Deed::RequestStop(number, seconds) => {
                let counts = store
                    .request_stop(attempt, by(number), seconds.map(grace))
                    .await
                    .unwrap();
                assert_eq!(counts, rules.request_stop(number, seconds).map(by));
            }
            Deed::RequestPause(wanted) => {
                store.request_pause(attempt, wanted).await.unwrap();
                if rules.state < AttemptState::Collecting {
                    paused.0 = wanted;
                }
            }
            Deed::BeginStop => {
                store.begin_stop(attempt, time(2)).await.unwrap();
                rules.begin_stop();
            }
            Deed::NoteSilence(whose) => {
                let new = Silence {
                    since: time(3),
                    why: "why".to_owned(),
                };
                let noted = store.set_silence(of(whose), Some(new.clone())).await;
                if is_kept(noted, of(whose), rules) {
                    silence = Some(new);
                }
            }
            Deed::NotePause(whose) => {
                let noted = store
                    .set_paused(of(whose), Some(moment(5)), Duration::ZERO)
                    .await;
                if is_kept(noted, of(whose), rules) {
                    paused.1 = Some(moment(5));
                }
            }
            Deed::MarkRemoved(whose) => {
                let tenure = of(whose);
                let written = store.mark_removed(tenure).await;
                assert_eq!(denied(written), rules.mark_removed(generation(tenure)));
            }
        }
        let row = store.attempt(attempt).await.unwrap().unwrap();
        assert_eq!(row.state, rules.state, "{deed:?}");
        assert_eq!(row.handle.is_some(), rules.handle.is_some());
        assert_eq!(row.report.is_some(), rules.report.is_some());
        let stop = row.stop.map(|stop| (stop.reason, stop.grace, stop.sent));
        let sent = if rules.sent { Sent::Yes } else { Sent::No };
        let expected = rules
            .stop
            .map(|number| (by(number), rules.grace.map(grace), sent));
        assert_eq!(stop, expected, "{deed:?}");
        assert_eq!((row.pause.wanted, row.pause.since), paused.clone());
        assert_eq!(row.silence, silence);
    }
    let open = store.open_attempts().await.unwrap();
    assert_eq!(
        open.iter().any(|row| row.id == attempt),
        rules.state != AttemptState::Finished || !rules.removed
    );
}

/// Returns whether a note was kept, which only the current generation's is.
fn is_kept(noted: Result<(), StoreError>, tenure: Tenure, rules: Row<()>) -> bool {
    let is_current = i64::from(rules.generation) == tenure.generation;
    assert_eq!(denied(noted).is_ok(), is_current);
    is_current
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_done_in_whatever_order_the_store_keeps_to_its_rules(deeds in deeds()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        runtime.block_on(async {
            let fixture = fixture();
            let first = fixture.add(7).await;
            agree(&fixture, first, deeds).await;
        });
    }
}
