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
        only_user: None,
    });
    fixture
}

/// A fixture whose engine's agents can be nobody but this user.
fn on_engine_of(user: u32) -> Fixture {
    let mut fixture = on_engine(&LimitKind::ALL, &[Feature::OtherUsers]);
    let capabilities = fixture.context.capabilities.as_mut();
    capabilities.unwrap().only_user = Some((user, user));
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
fn a_user_whom_the_engine_cannot_be_is_refused_where_it_was_written() {
    let fixture = on_engine_of(4242);

    for line in ["user: 1000:1000", "user: 1000", "user: 4242:1000"] {
        assert_eq!(
            fixture.error(line),
            "prompts/p.md:4: the engine has no user other than yours; leave it out, or use another engine"
        );
    }
    for line in ["user: 4242", "user: 4242:4242"] {
        assert_eq!(fixture.spec(line).user.to_string(), "4242:4242");
    }
}

#[test]
fn a_project_of_somebody_else_is_worked_on_by_the_only_user_there_is_with_a_warning() {
    let fixture = on_engine_of(4242);
    let owner = fs::metadata(fixture.path("proj")).unwrap().uid();

    let resolved = fixture.resolve("").unwrap();

    assert_eq!(resolved.spec.user.to_string(), "4242:4242");
    assert_eq!(
        resolved.warnings[0],
        format!(
            "the project belongs to uid {owner}, and the engine has no user other than yours: the agent runs as 4242:4242"
        )
    );
    assert_eq!(resolved.notices, [""; 0]);
}

#[test]
fn a_launch_is_fitted_to_an_engine_that_is_asked_later_as_to_one_that_was_asked_before() {
    let table = [
        ("", LimitKind::ALL.to_vec(), vec![]),
        ("memory: none", vec![LimitKind::Cpus], vec![]),
        ("cpus: 2", vec![LimitKind::Memory], vec![]),
        (
            "profile: seed",
            LimitKind::ALL.to_vec(),
            Feature::ALL.to_vec(),
        ),
    ];
    for (line, limits, lacks) in table {
        let mut fixture = on_engine(&limits, &lacks);
        let before = fixture.resolve(line);

        let capabilities = fixture.context.capabilities.take().unwrap();
        let mut later = fixture.resolve(line).unwrap();
        let fitted = later.fit(&capabilities);

        match before {
            Ok(before) => {
                assert_eq!(fitted.unwrap(), before.warnings, "{line}");
                assert_eq!(later, before);
            }
            Err(error) => assert_eq!(fitted.unwrap_err().to_string(), error.to_string()),
        }
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
