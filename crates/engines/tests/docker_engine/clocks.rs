//! Runs on a simulated clock: what a jump of the wall clock, a suspend and a reboot do to them on a real engine.
//!
//! The clock is the only thing that is simulated here; that a machine does suspend or boot is not tested.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dark_factory_executor::attempt::{Control, Progress};
use dark_factory_executor::clock::{Alarm, Clock, Moment, SystemClock};
use dark_factory_executor::engine::Engine;
use dark_factory_executor::error::ExecutorError;
use dark_factory_executor::resolve::{Demands, Resolved};
use dark_factory_executor::spec::LaunchSpec;
use dark_factory_executor::state_dir::HelperExe;
use dark_factory_executor::supervisor::{Recovery, Supervisor};
use dark_factory_types::{AttemptId, LogState, OutcomeKind, Report, StopReason};
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::lab::{Lab, docker, engine, helper, wait_for_file};

const HOUR: Duration = Duration::from_secs(3600);
/// Leaves a trace of each start.
const STARTED: &str = "append starts \"started\\n\"; write begun x; ";

/// The system's clock, moved.
#[derive(Debug, Default)]
struct MovedClock {
    by: Mutex<Moved>,
    moved: Notify,
}

#[derive(Debug, Clone, Default)]
struct Moved {
    wall: SignedDuration,
    suspended: Duration,
    boots: u32,
}

impl MovedClock {
    fn change(&self, change: impl FnOnce(&mut Moved)) {
        change(&mut self.by.lock().unwrap());
        self.moved.notify_waiters();
    }

    /// Sets the wall clock, as an operator or NTP would.
    fn set_wall(&self, by: SignedDuration) {
        self.change(|moved| moved.wall += by);
    }

    /// Lets time pass asleep: alarms that were due meanwhile ring at once.
    fn suspend(&self, time: Duration) {
        self.change(|moved| {
            moved.wall += SignedDuration::try_from(time).unwrap();
            moved.suspended += time;
        });
    }

    /// Boots the machine anew.
    fn reboot(&self) {
        self.change(|moved| moved.boots += 1);
    }
}

impl Clock for MovedClock {
    fn now(&self) -> Timestamp {
        self.moment().wall
    }

    fn moment(&self) -> Moment {
        let moved = self.by.lock().unwrap().clone();
        let now = SystemClock.moment();
        let suspended = u64::try_from(moved.suspended.as_millis()).unwrap();
        Moment {
            wall: now.wall + moved.wall,
            boot: format!("{}-{}", now.boot, moved.boots),
            uptime_ms: now.uptime_ms + suspended,
            awake_ms: now.awake_ms,
        }
    }

    /// Rings early when the clock is moved, so that whoever waits looks at it again.
    fn alarm(&self, after: Duration) -> Alarm<'_> {
        Box::pin(async move {
            tokio::select! {
                () = SystemClock.alarm(after) => {}
                () = self.moved.notified() => {}
            }
        })
    }
}

/// A lab whose runs are supervised on a moved clock.
struct Office {
    lab: Lab,
    clock: Arc<MovedClock>,
    supervisor: Arc<Supervisor>,
    _folder: TempDir,
}

impl Office {
    fn open() -> Self {
        let lab = Lab::new();
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(MovedClock::default());
        let supervisor = supervisor(folder.path(), &clock);
        Self {
            lab,
            clock,
            supervisor: Arc::new(supervisor),
            _folder: folder,
        }
    }

    /// Returns the spec of a script.
    fn spec(&self, script: &str) -> LaunchSpec {
        self.lab.spec(&format!("{STARTED}{script}"))
    }

    /// Starts a run, and waits until its agent has begun.
    async fn begin(&self, spec: LaunchSpec) -> Run {
        let resolved = Resolved {
            spec,
            prompt_text: "Do it.\n".to_owned(),
            secrets: Vec::new(),
            env_from_host: BTreeSet::new(),
            demands: Demands::default(),
            warnings: Vec::new(),
            notices: Vec::new(),
        };
        let supervisor = Arc::clone(&self.supervisor);
        let mut run = Run(JoinSet::new());
        run.0.spawn(async move {
            let submitted = supervisor.submit(&resolved).await?;
            let progress = |_: Progress| {};
            let control = Control::new("nobody");
            supervisor
                .run(submitted, Vec::new(), &control, &progress)
                .await
        });
        wait_for_file(&self.lab.project.path().join("begun")).await;
        run
    }

    fn let_it_go_on(&self) {
        std::fs::write(self.lab.project.path().join("go"), "").unwrap();
    }

    fn starts(&self) -> String {
        std::fs::read_to_string(self.lab.project.path().join("starts")).unwrap()
    }

    fn containers(&self) -> String {
        let owner = self.supervisor.store().owner();
        let label = format!("label=dark-factory.owner={owner}");
        docker(&["ps", "--all", "--quiet", "--filter", &label])
    }
}

impl Drop for Office {
    fn drop(&mut self) {
        for id in self.containers().split_whitespace() {
            docker(&["rm", "--force", "--volumes", id]);
        }
    }
}

/// A run that is supervised while the test goes on.
struct Run(JoinSet<Result<Report, ExecutorError>>);

impl Run {
    /// Waits for its end.
    async fn ended(mut self) -> Report {
        self.0.join_next().await.unwrap().unwrap().unwrap()
    }

    /// Lets its supervisor be gone.
    async fn dies(mut self) {
        self.0.shutdown().await;
    }
}

fn supervisor(state: &Path, clock: &Arc<MovedClock>) -> Supervisor {
    let engine: Arc<dyn Engine> = Arc::new(engine("unix:///var/run/docker.sock"));
    let helper = HelperExe::new(Box::leak(helper().into_boxed_slice()));
    let clock: Arc<dyn Clock> = Arc::<MovedClock>::clone(clock);
    Supervisor::open(engine, state, helper, clock).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_that_is_set_does_not_end_a_run() {
    let office = Office::open();
    let mut spec = office.spec("wait-file go; print done; exit 3");
    spec.limits.timeout = Some(HOUR / 2);
    spec.limits.idle = Some(HOUR / 2);
    let run = office.begin(spec).await;

    office.clock.set_wall(SignedDuration::from_hours(1));
    office.clock.set_wall(SignedDuration::from_hours(-2));
    office.clock.set_wall(SignedDuration::from_hours(4));
    office.let_it_go_on();
    let report = run.ended().await;

    assert_eq!(report.outcome, OutcomeKind::Failed, "{}", report.cause);
    assert_eq!(report.stop_reason, None);
    assert_eq!(report.stdout_bytes, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_limit_that_passed_in_suspend_is_due_when_the_machine_wakes() {
    let office = Office::open();
    let mut spec = office.spec("sleep 1h");
    spec.limits.timeout = Some(HOUR);
    let run = office.begin(spec).await;

    office.clock.suspend(2 * HOUR);
    let report = run.ended().await;

    assert_eq!(report.outcome, OutcomeKind::TimedOut, "{}", report.cause);
    assert_eq!(
        report.stop_reason,
        Some(StopReason::Deadline { limit: HOUR })
    );
    assert_eq!(office.starts(), "started\n");
    assert_eq!(office.containers(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_not_silent_while_the_machine_is_suspended() {
    let office = Office::open();
    let mut spec = office.spec("wait-file go; exit 3");
    spec.limits.idle = Some(HOUR);
    let run = office.begin(spec).await;

    office.clock.suspend(2 * HOUR);
    office.let_it_go_on();
    let report = run.ended().await;

    assert_eq!(report.outcome, OutcomeKind::Failed, "{}", report.cause);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reboot_a_container_that_is_gone_was_lost_and_nothing_runs_again() {
    let office = Office::open();
    let run = office.begin(office.spec("print hello; sleep 1h")).await;
    let attempt = open_attempt(&office).await;

    // As a reboot leaves it: we are gone, and so is the container.
    run.dies().await;
    docker(&["rm", "--force", office.containers().trim()]);
    office.clock.reboot();
    let report = recovered(&office, attempt).await;

    assert_eq!(report.outcome, OutcomeKind::Lost, "{}", report.cause);
    assert_eq!(report.log, LogState::Incomplete);
    assert_eq!(
        (report.stdout_bytes, office.starts().as_str()),
        (6, "started\n")
    );
    assert_eq!(office.containers(), "");
    let left = office.supervisor.store().open_attempts().await.unwrap();
    assert!(left.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn across_a_reboot_a_time_limit_counts_by_the_wall_clock_from_the_stored_start() {
    let office = Office::open();
    let mut spec = office.spec("sleep 1h");
    spec.limits.timeout = Some(HOUR);
    let run = office.begin(spec).await;
    let attempt = open_attempt(&office).await;

    run.dies().await;
    office.clock.reboot();
    office.clock.set_wall(SignedDuration::from_hours(1));
    let report = recovered(&office, attempt).await;

    assert_eq!(report.outcome, OutcomeKind::TimedOut, "{}", report.cause);
    assert_eq!(office.starts(), "started\n");
}

/// Returns the one open attempt, once its start is recorded.
async fn open_attempt(office: &Office) -> AttemptId {
    loop {
        let open = office.supervisor.store().open_attempts().await.unwrap();
        if let [attempt] = open.as_slice()
            && attempt.started.is_some()
        {
            return attempt.id;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn recovered(office: &Office, attempt: AttemptId) -> Report {
    let control = Control::new("nobody");
    let recovery = office
        .supervisor
        .recover(attempt, Vec::new(), &control, &|_| {})
        .await
        .unwrap();
    match recovery {
        Recovery::Finished(report) => *report,
        other => panic!("{other:?}"),
    }
}
