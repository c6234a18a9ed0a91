//! Schedules: what is run, and what goes wrong meanwhile.
//!
//! Owns: the scenarios, the faults, and how random ones are made up.
//! Reads: a seed.
//! Never: does anything; see `play`.

use std::fmt;
use std::time::Duration;

use crate::{Engine, Fault as SocketFault, Instead};

use super::point::KNOWN;
use super::{Random, Script};

/// What is done with one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scenario {
    /// It is run, and ends by itself.
    Plain,
    /// Its agent is given a secret, which it prints.
    Secret,
    /// Another process stops it.
    Stopped,
    /// Its time limit stops it.
    Limited,
    /// Another process freezes it, and lets it go on.
    Paused,
    /// Its first process is killed once the agent works.
    Orphaned,
    /// It is left as an orphan, and another process stops it.
    OrphanStopped,
    /// The helper in its container is killed with SIGKILL.
    HelperKilled,
    /// The shim of its sandbox is killed with SIGKILL, and all in it with that.
    ShimKilled,
}

impl Scenario {
    /// Every scenario of any engine.
    pub const ALL: [Self; 8] = [
        Self::Plain,
        Self::Secret,
        Self::Stopped,
        Self::Limited,
        Self::Paused,
        Self::Orphaned,
        Self::OrphanStopped,
        Self::HelperKilled,
    ];

    /// Returns every scenario of an engine.
    pub fn all_on(engine: Engine) -> Vec<Self> {
        let more = match engine {
            Engine::Docker => None,
            Engine::Sandbox => Some(Self::ShimKilled),
        };
        Self::ALL.into_iter().chain(more).collect()
    }

    /// Returns whether something of its engine is killed under it.
    pub(super) fn is_murder(self) -> bool {
        matches!(self, Self::HelperKilled | Self::ShimKilled)
    }

    /// Returns whether its project is one of git's, so that there is to be a patch.
    pub(super) fn is_versioned(self) -> bool {
        matches!(self, Self::Plain | Self::Orphaned)
    }

    /// Returns the other commands of the scenario, in order; `RUN` stands for the run.
    pub(super) fn acts(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Stopped | Self::OrphanStopped => &[&["stop", "--grace", "300ms", "RUN"]],
            Self::Paused => &[&["pause", "RUN"], &["resume", "RUN"]],
            _ => &[],
        }
    }
}

/// Who meets a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `run`.
    Run,
    /// The scenario's other command with this number.
    Act(usize),
    /// The first `recover`.
    Recovery,
}

/// What a fail point does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// It kills the process with SIGKILL.
    Kill,
    /// What is done there fails; behind a call or a write, it was done all the same.
    Error,
    /// What is done there never ends, and somebody kills the process.
    Hang,
}

impl Effect {
    /// Every effect.
    pub const ALL: [Self; 3] = [Self::Kill, Self::Error, Self::Hang];

    fn word(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Error => "error",
            Self::Hang => "hang",
        }
    }
}

/// What goes wrong with one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// A fail point has an effect at its n-th hit, from 1, and at so many hits.
    Point {
        /// Its name.
        point: String,
        /// The first hit that it has an effect on.
        hit: usize,
        /// On how many.
        times: usize,
        /// Which.
        effect: Effect,
    },
    /// The process is killed after a time.
    KillAfter(Duration),
    /// The process is killed once the agent has begun.
    KillOnceBegun,
}

impl Fault {
    /// Returns what the variable `FAILPOINTS` is to be.
    pub(super) fn variable(&self) -> Option<String> {
        let Self::Point {
            point,
            hit,
            times,
            effect,
        } = self
        else {
            return None;
        };
        let spared = match hit {
            0 | 1 => String::new(),
            hit => format!("{}*off->", hit - 1),
        };
        Some(format!(
            "{point}={spared}{times}*return({})->off",
            effect.word()
        ))
    }

    fn random(random: &mut Random, role: Role) -> Self {
        match random.below(100) {
            0..30 => Self::KillAfter(random.millis(900)),
            30..90 => Self::Point {
                point: KNOWN[usize::try_from(random.below(KNOWN.len() as u64)).unwrap_or(0)]
                    .to_owned(),
                hit: random.one_of(&[1, 1, 1, 2, 3]),
                times: random.one_of(&[1, 1, 2]),
                effect: random.one_of(&[Effect::Kill, Effect::Kill, Effect::Error, Effect::Hang]),
            },
            _ if role == Role::Run => Self::KillOnceBegun,
            _ => Self::None,
        }
    }
}

/// What goes wrong between us and the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The engine goes away after a time, for a time.
    Away {
        /// When, counted from the beginning.
        after: Duration,
        /// For how long.
        lasting: Duration,
    },
    /// The first request of this kind meets a fault of the socket.
    Socket {
        /// The beginning of the request.
        request: &'static str,
        /// What happens to it.
        fault: SocketFault,
    },
}

impl Trouble {
    fn random(random: &mut Random) -> Self {
        if random.chance(40) {
            return Self::Away {
                after: random.millis(800),
                lasting: random.millis(1500),
            };
        }
        let delay = random.millis(700);
        let bytes = usize::try_from(random.below(40)).unwrap_or(0);
        Self::Socket {
            request: random.one_of(&REQUESTS),
            fault: random.one_of(&[
                SocketFault::LoseReply,
                SocketFault::LoseReply,
                SocketFault::CutHead(bytes),
                SocketFault::CutBody(bytes),
                SocketFault::DelayRequest(delay),
                SocketFault::DelayReply(delay),
                SocketFault::Answer(Instead::ServerError),
            ]),
        }
    }
}

const REQUESTS: [&str; 7] = [
    "POST /containers/create?name=",
    "POST /containers/*/start",
    "POST /containers/*/wait",
    "POST /containers/*/kill",
    "DELETE /containers/",
    "GET /containers/",
    "GET /images/",
];

/// When the scenario's other command comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// Once the agent has begun.
    Begun,
    /// As soon as the run has a folder, begun or not.
    Recorded,
}

/// One run, and all that goes wrong with it.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// How a person finds it again.
    pub name: String,
    /// What it is run on.
    pub engine: Engine,
    /// What is done with the run.
    pub scenario: Scenario,
    /// What its agent does.
    pub script: Script,
    /// What the process that runs it meets.
    pub run: Fault,
    /// When the scenario's other command comes.
    pub trigger: Trigger,
    /// What the scenario's other commands meet, the first time.
    pub acts: Vec<Fault>,
    /// What the recoveries after the run meet: several at once in one round.
    pub recoveries: Vec<Vec<Fault>>,
    /// What is wrong with the engine's socket.
    pub trouble: Option<Trouble>,
}

impl Schedule {
    /// Makes a schedule of a scenario in which nothing goes wrong.
    pub fn calm(engine: Engine, scenario: Scenario) -> Self {
        let script = Script {
            work: match scenario {
                Scenario::Orphaned => 300,
                _ => 30,
            },
            ..Script::short()
        };
        let is_orphan = matches!(scenario, Scenario::Orphaned | Scenario::OrphanStopped);
        Self {
            name: format!("calm {scenario:?}, {engine:?}"),
            engine,
            scenario,
            script,
            run: match is_orphan {
                true => Fault::KillOnceBegun,
                false => Fault::None,
            },
            trigger: Trigger::Begun,
            acts: Vec::new(),
            recoveries: Vec::new(),
            trouble: None,
        }
    }

    /// Makes a schedule of a scenario in which one process meets one fault.
    pub fn with_fault(engine: Engine, scenario: Scenario, role: Role, fault: Fault) -> Self {
        let mut schedule = Self::calm(engine, scenario);
        schedule.name = format!("{scenario:?}, {engine:?}, {role:?}: {fault}");
        match role {
            Role::Run => schedule.run = fault,
            Role::Act(number) => {
                schedule.acts = vec![Fault::None; number];
                schedule.acts.push(fault);
            }
            Role::Recovery => schedule.recoveries = vec![vec![fault]],
        }
        schedule
    }

    /// Makes up schedule number `index` of a seed.
    pub fn random(seed: u64, index: u64) -> Self {
        let mut random = Random::new(seed, index);
        let random = &mut random;
        let scenario = random.one_of(&Scenario::ALL);
        let mut script = Script::random(random);
        if matches!(scenario, Scenario::Limited) {
            // Its grace is not ours to shorten.
            script.habits.retain(|&habit| habit != "ignore-term");
        }
        let run = match scenario {
            Scenario::Orphaned | Scenario::OrphanStopped => Fault::KillOnceBegun,
            _ => Fault::random(random, Role::Run),
        };
        let acts = scenario
            .acts()
            .iter()
            .map(|_| match random.chance(50) {
                true => Fault::random(random, Role::Act(0)),
                false => Fault::None,
            })
            .collect();
        let rounds = random.below(3);
        let recoveries = (0..rounds)
            .map(|_| {
                let at_once = random.one_of(&[1, 1, 2, 3]);
                (0..at_once)
                    .map(|_| Fault::random(random, Role::Recovery))
                    .collect()
            })
            .collect();
        let trouble = random.chance(35).then(|| Trouble::random(random));
        let trigger = random.one_of(&[Trigger::Begun, Trigger::Begun, Trigger::Recorded]);
        // Last, so that what was made up before is what it was when there was one engine.
        let engine = random.one_of(&Engine::ALL);
        let scenario = match (engine, scenario) {
            (Engine::Sandbox, Scenario::HelperKilled) => {
                random.one_of(&[scenario, Scenario::ShimKilled])
            }
            _ => scenario,
        };
        Self {
            name: format!("random, seed {seed}, index {index}, {engine:?}"),
            engine,
            scenario,
            script,
            run,
            trigger,
            acts,
            recoveries,
            // There is no socket to a sandbox.
            trouble: trouble.filter(|_| engine == Engine::Docker),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.variable(), self) {
            (Some(variable), _) => f.write_str(&variable),
            (None, other) => write!(f, "{other:?}"),
        }
    }
}
