//! The store through its own interface, on a real file.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Barrier;
use std::thread;

use dark_factory_types::{NetworkMode, OutcomeKind, Transport};
use serde_json::json;

mod rules;

use super::*;
use crate::clock::Moment;
use crate::spec::{
    Disposal, GitVisibility, LaunchSpec, Limits, Profile, PullPolicy, SPEC_VERSION, SeedSpec,
    StopPolicy, User, Workspace,
};

fn spec(file: &str) -> LaunchSpec {
    LaunchSpec {
        version: SPEC_VERSION,
        file: file.to_owned(),
        project: "p".to_owned(),
        prompt: "042-fix".to_owned(),
        container: None,
        agent: "command".to_owned(),
        profile: Profile::Hardened,
        image: "img:1".to_owned(),
        pull: PullPolicy::Never,
        command: vec!["true".to_owned()],
        env: BTreeMap::new(),
        secrets: Vec::new(),
        labels: BTreeMap::new(),
        workspace: Workspace {
            source: PathBuf::from("/p"),
            target: "/workspace".to_owned(),
            git: GitVisibility::Visible,
            git_is_file: false,
        },
        mounts: Vec::new(),
        workdir: "/workspace".to_owned(),
        user: User::Ids {
            uid: 1000,
            gid: 1000,
        },
        limits: Limits::default(),
        network: NetworkMode::None,
        providers: Vec::new(),
        budget: dark_factory_types::Budget::default(),
        stop: StopPolicy::default(),
        engine_identity: None,
        disposal: Disposal::Remove,
        tell_limits: false,
        prompt_digests: None,
        secret_sources: BTreeMap::new(),
        env_from_host: BTreeSet::new(),
        completion_grace: None,
        transport: Transport::Spool,
        seed: SeedSpec::default(),
    }
}

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn moment(second: u64) -> Moment {
    Moment {
        wall: time(i64::try_from(second).unwrap()),
        boot: "b".to_owned(),
        uptime_ms: second * 1000,
        awake_ms: second * 1000,
    }
}

fn id(bits: u64) -> AttemptId {
    RunId::from_random_bits(bits).attempt(1)
}

struct Fixture {
    store: Store,
    folder: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("state.db"), &OwnerId("me".to_owned())).unwrap();
    Fixture { store, folder }
}

impl Fixture {
    async fn add(&self, bits: u64) -> Tenure {
        let new = NewAttempt {
            id: id(bits),
            engine: "docker".to_owned(),
            state: AttemptState::Preparing,
            spec: spec(&format!("/p/{bits}.md")),
            created_at: time(0),
        };
        match self.store.add(new).await.unwrap() {
            Added::New(tenure) => tenure,
            refused => panic!("{refused:?}"),
        }
    }

    async fn to_running(&self, tenure: Tenure) {
        let image = ImageRecord {
            reference: "img:1".to_owned(),
            digest: "sha256:1".to_owned(),
        };
        let handle = Handle {
            engine: "docker".to_owned(),
            attempt: tenure.attempt,
            container: "c".to_owned(),
            version: 1,
            state: json!({ "id": "abc" }),
        };
        for (step, transition) in [
            Transition::Pulling,
            Transition::Creating(image),
            Transition::Starting(handle),
            Transition::Running(moment(4)),
        ]
        .into_iter()
        .enumerate()
        {
            self.store
                .advance(tenure, transition, time(step as i64))
                .await
                .unwrap();
        }
    }
}

#[test]
fn a_database_that_others_keep_locked_is_busy_and_nothing_else() {
    let failure = |code| StoreError::Database {
        operation: "record a pause",
        source: rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None),
    };

    for code in [
        rusqlite::ffi::SQLITE_BUSY,
        rusqlite::ffi::SQLITE_BUSY_RECOVERY,
        rusqlite::ffi::SQLITE_LOCKED,
    ] {
        assert!(failure(code).is_busy() && !failure(code).is_full());
    }
    assert!(!failure(rusqlite::ffi::SQLITE_FULL).is_busy());
    assert!(!StoreError::ShutDown.is_busy());
}

#[tokio::test]
async fn a_store_that_was_made_ready_has_its_log_begun() {
    let Fixture { store, folder } = fixture();
    let path = folder.path().join("state.db");
    // The last to close it removes the log.
    drop(store);
    let store = Store::open(&path, &OwnerId("me".to_owned())).unwrap();
    let length = || std::fs::metadata(store.log()).unwrap().len();
    assert_eq!(length(), 0);

    store.make_ready().await;

    assert!(length() > 0);
}

#[tokio::test]
async fn an_attempt_keeps_what_became_known_on_its_way() {
    let fixture = fixture();
    let tenure = fixture.add(7).await;

    fixture.to_running(tenure).await;

    let attempt = fixture
        .store
        .attempt(tenure.attempt)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(attempt.state, AttemptState::Running);
    assert_eq!(attempt.image.unwrap().digest, "sha256:1");
    assert_eq!(attempt.handle.unwrap().container, "c");
    assert_eq!(attempt.started_at, Some(time(4)));
    assert_eq!(attempt.spec, spec("/p/7.md"));
}

#[tokio::test]
async fn an_adopted_container_is_there_whole_and_has_one_open_attempt() {
    let fixture = fixture();
    let adopt = async |bits, container_id: &str| {
        let new = NewAttempt {
            id: id(bits),
            engine: "docker".to_owned(),
            state: AttemptState::Preparing,
            spec: spec("-"),
            created_at: time(9),
        };
        let image = ImageRecord {
            reference: "img:1".to_owned(),
            digest: "sha256:1".to_owned(),
        };
        let handle = Handle {
            engine: "docker".to_owned(),
            attempt: id(bits),
            container: "c".to_owned(),
            version: 1,
            state: json!({ "id": container_id }),
        };
        fixture
            .store
            .adopt(new, image, handle, moment(4))
            .await
            .unwrap()
    };

    let first = adopt(1, "abc").await;
    let same_container = adopt(2, "abc").await;
    let same_name = adopt(3, "def").await;

    assert!(first.is_some() && same_container.is_none() && same_name.is_some());
    assert!(fixture.store.attempt(id(2)).await.unwrap().is_none());
    let adopted = fixture.store.attempt(id(1)).await.unwrap().unwrap();
    assert_eq!(
        (adopted.state, adopted.started_at),
        (AttemptState::Running, Some(time(4)))
    );
    assert!(adopted.handle.is_some() && adopted.image.is_some());
}

#[tokio::test]
async fn an_attempt_is_found_by_the_container_that_it_has_or_is_going_to_have() {
    let fixture = fixture();
    fixture.to_running(fixture.add(1).await).await;
    fixture.add(2).await;
    let spec = LaunchSpec {
        container: Some("c".to_owned()),
        ..spec("-")
    };
    let new = NewAttempt {
        id: id(3),
        engine: "docker".to_owned(),
        state: AttemptState::Preparing,
        spec,
        created_at: time(5),
    };
    fixture.store.add(new).await.unwrap();

    let found = fixture.store.of_container("c").await.unwrap();

    assert_eq!(
        found.iter().map(|attempt| attempt.id).collect::<Vec<_>>(),
        [id(1), id(3)]
    );
    assert!(fixture.store.of_container("d").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_supervisor_that_was_replaced_cannot_write_any_more() {
    let fixture = fixture();
    let first = fixture.add(7).await;

    let second = fixture.store.take_over(first.attempt).await.unwrap();

    let error = fixture
        .store
        .advance(first, Transition::Pulling, time(1))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::LeaseLost { .. }), "{error}");
    fixture
        .store
        .advance(second, Transition::Pulling, time(1))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_state_cannot_be_skipped_or_left_backwards() {
    let fixture = fixture();
    let tenure = fixture.add(7).await;

    let skipped = fixture
        .store
        .advance(tenure, Transition::Running(moment(1)), time(1))
        .await
        .unwrap_err();
    fixture.to_running(tenure).await;
    let back = fixture
        .store
        .advance(tenure, Transition::Pulling, time(9))
        .await
        .unwrap_err();

    assert_eq!(
        skipped.to_string(),
        format!(
            "attempt {} cannot go from preparing to running",
            tenure.attempt
        )
    );
    assert!(matches!(back, StoreError::BadTransition { .. }), "{back}");
}

#[tokio::test]
async fn the_first_stop_reason_is_the_one_that_counts() {
    let fixture = fixture();
    let tenure = fixture.add(7).await;
    let deadline = StopReason::Deadline {
        limit: Duration::from_secs(5),
    };

    let first = fixture
        .store
        .request_stop(tenure.attempt, deadline.clone(), None)
        .await
        .unwrap();
    let cancel = StopReason::Cancelled {
        by: "somebody".to_owned(),
    };
    let second = fixture
        .store
        .request_stop(tenure.attempt, cancel, None)
        .await
        .unwrap();

    assert_eq!((first, second), (Some(deadline.clone()), Some(deadline)));
}

#[tokio::test]
async fn a_file_has_one_open_attempt_and_what_is_no_file_any_number() {
    let fixture = fixture();
    let first = fixture.add(7).await;
    let again = |bits, file: &str| NewAttempt {
        id: id(bits),
        engine: "docker".to_owned(),
        state: AttemptState::Preparing,
        spec: spec(file),
        created_at: time(1),
    };

    let second = fixture.store.add(again(8, "/p/7.md")).await.unwrap();

    assert_eq!(second, Added::FileIsOpen(first.attempt));
    assert_eq!(fixture.store.attempts().await.unwrap().len(), 1);
    for bits in [9, 10] {
        let added = fixture.store.add(again(bits, "-")).await.unwrap();
        assert!(matches!(added, Added::New(_)), "{added:?}");
    }
    let finished = Transition::Finished(Box::new(report(first.attempt)));
    fixture
        .store
        .advance(first, finished, time(2))
        .await
        .unwrap();
    let third = fixture.store.add(again(11, "/p/7.md")).await.unwrap();
    assert!(matches!(third, Added::New(_)), "{third:?}");
}

#[tokio::test]
async fn runs_are_found_by_either_end_of_their_id() {
    let fixture = fixture();
    let run = fixture.add(0x0123_4567_89ab_cdef).await.attempt.run();
    fixture.add(0x0fed_cba9_8765_4321).await;

    let begin = fixture.store.find_runs(&run.as_str()[..5]).await.unwrap();
    let end = fixture.store.find_runs(&run.as_str()[6..]).await.unwrap();

    assert_eq!((begin, end), (vec![run], vec![run]));
    assert_eq!(fixture.store.find_runs("").await.unwrap().len(), 2);
    assert_eq!(fixture.store.find_runs("%").await.unwrap(), []);
}

#[tokio::test]
async fn a_finished_attempt_is_open_until_its_container_is_removed() {
    let fixture = fixture();
    let tenure = fixture.add(7).await;
    let report = report(tenure.attempt);

    fixture
        .store
        .advance(
            tenure,
            Transition::Finished(Box::new(report.clone())),
            time(9),
        )
        .await
        .unwrap();

    assert_eq!(fixture.store.open_attempts().await.unwrap().len(), 1);
    fixture.store.mark_removed(tenure).await.unwrap();
    assert_eq!(fixture.store.open_attempts().await.unwrap().len(), 0);
    assert_eq!(
        fixture
            .store
            .latest(tenure.attempt.run())
            .await
            .unwrap()
            .unwrap()
            .report,
        Some(report)
    );
}

#[tokio::test]
async fn a_second_process_sees_the_same_store_and_owner() {
    let fixture = fixture();
    let tenure = fixture.add(7).await;

    let other = Store::open(
        &fixture.folder.path().join("state.db"),
        &OwnerId("other".to_owned()),
    )
    .unwrap();

    assert_eq!(other.owner().0, "me");
    assert_eq!(other.attempts().await.unwrap()[0].id, tenure.attempt);
}

#[test]
fn many_that_open_a_new_store_at_once_all_get_it() {
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let start = Barrier::new(8);
        thread::scope(|scope| {
            let openings: Vec<_> = (0..8)
                .map(|number| {
                    let (path, start) = (&path, &start);
                    scope.spawn(move || {
                        start.wait();
                        Store::open(path, &OwnerId(number.to_string()))
                    })
                })
                .collect();
            let owners: HashSet<OwnerId> = openings
                .into_iter()
                .map(|opening| opening.join().unwrap().unwrap().owner().clone())
                .collect();
            assert_eq!(owners.len(), 1, "they agree on the owner");
        });
    }
}

#[test]
fn a_store_of_a_newer_version_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();

    let error = Store::open(&path, &OwnerId("me".to_owned())).unwrap_err();

    assert!(error.to_string().contains("schema version 99"), "{error}");
    let version: u32 = Connection::open(&path)
        .unwrap()
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap();
    assert_eq!(version, 99);
}

fn report(attempt: AttemptId) -> Report {
    Report {
        version: 1,
        attempt_id: attempt,
        file: "/p/a.md".to_owned(),
        engine: "docker".to_owned(),
        agent: "command".to_owned(),
        container: "c".to_owned(),
        image: None,
        outcome: OutcomeKind::Succeeded,
        cause: "why".to_owned(),
        exit: None,
        verdict: dark_factory_types::Verdict::Silent,
        stop_reason: None,
        log: dark_factory_types::LogState::Complete,
        transport: Transport::Spool,
        unsealed: false,
        root_owner: false,
        limits: dark_factory_types::LimitsRecord::default(),
        usage: dark_factory_types::Usage::default(),
        model: None,
        session_id: None,
        last_tool: None,
        peak_memory: None,
        oom_kills: None,
        oom_victim: None,
        cpu_ms: None,
        stdout_bytes: 0,
        stderr_bytes: 0,
        changes: None,
        changed_files: Vec::new(),
        egress: None,
        warnings: Vec::new(),
        created_at: time(0),
        started_at: None,
        finished_at: time(9),
    }
}

#[tokio::test]
async fn a_next_attempt_follows_the_latest_one_once_that_has_ended() {
    let fixture = fixture();
    let first = fixture.add(7).await;
    let attempt = |number| NewAttempt {
        id: first.attempt.run().attempt(number),
        engine: "docker".to_owned(),
        state: AttemptState::Preparing,
        spec: spec("-"),
        created_at: time(1),
    };
    let add = async |number| fixture.store.add(attempt(number)).await.unwrap();

    let too_early = add(2).await;
    let finished = Transition::Finished(Box::new(report(first.attempt)));
    fixture
        .store
        .advance(first, finished, time(2))
        .await
        .unwrap();
    let skipping = add(3).await;
    let second = add(2).await;
    let twice = add(2).await;

    assert_eq!([too_early, skipping, twice], [Added::NotNext; 3]);
    assert!(matches!(second, Added::New(_)), "{second:?}");
}
