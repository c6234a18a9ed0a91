//! What an engine cannot do.

use super::*;
use crate::engine::{Capabilities, Feature, LimitKind, OnRestart};

/// A fixture whose engine keeps these limits and lacks these features.
fn on_engine(limits: &[LimitKind], lacks: &[Feature]) -> Fixture {
    let mut fixture = Fixture::new();
    fixture.context.capabilities = Some(Capabilities {
        version: "1".to_owned(),
        api_version: String::new(),
        limits: limits.to_vec(),
        on_restart: OnRestart::Survive,
        lacks: lacks.to_vec(),
    });
    fixture
}

#[test]
fn a_limit_that_was_written_and_is_not_kept_is_refused_where_it_was_written() {
    let fixture = on_engine(&[], &[]);

    for (line, limit) in [
        ("memory: 1g", "memory"),
        ("cpus: 2", "cpus"),
        ("pids: 9", "pids"),
    ] {
        assert_eq!(
            fixture.error(line),
            format!(
                "prompts/p.md:4: the engine cannot limit {limit} on its host; write none, or use another engine"
            )
        );
    }
}

#[test]
fn a_default_limit_that_is_not_kept_is_left_out_with_a_warning() {
    let fixture = on_engine(&[LimitKind::Cpus], &[]);

    let resolved = fixture.resolve("memory: none").unwrap();

    let limits = resolved.spec.limits;
    assert_eq!((limits.memory, limits.pids), (None, None));
    assert!(limits.cpus.is_some());
    assert_eq!(
        resolved.warnings,
        [
            "pids is not limited: the engine cannot do it on its host; the default of 512 is left out"
        ]
    );
}

#[test]
fn what_the_engine_lacks_is_refused_only_if_it_is_asked_for() {
    let fixture = on_engine(&LimitKind::ALL, &Feature::ALL);

    assert_eq!(fixture.resolve("").unwrap().warnings, [""; 0]);
    for line in ["transport: attach", "profile: seed"] {
        assert_eq!(
            fixture.error(line),
            format!(
                "prompts/p.md:4: the engine has no {}; leave it out, or use another engine",
                line.replace(':', "")
            )
        );
    }
}

#[test]
fn an_engine_that_has_everything_refuses_nothing() {
    let fixture = on_engine(&LimitKind::ALL, &[]);

    let resolved = fixture
        .resolve("memory: 1g\ncpus: 1\npids: 9\ntransport: attach")
        .unwrap();

    assert_eq!(resolved.spec.limits.pids, Some(9));
}
