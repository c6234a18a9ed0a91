//! What an engine says that it can do: that is written down, and what it cannot do is refused before anything starts.

use std::fs;
use std::path::{Path, PathBuf};

use dark_factory_executor::engine::{
    Capabilities, EngineError, Fate, Feature, LimitKind, Recognized,
};
use dark_factory_executor::host::HostView;
use dark_factory_executor::prompt::Prompt;
use dark_factory_executor::resolve::{ResolveContext, ResolveError, resolve};
use dark_factory_executor::settings::Settings;
use dark_factory_executor::spec::{LaunchSpec, Profile, User};
use dark_factory_types::Transport;

use crate::site::{Site, folder};

pub(crate) async fn probing_and_describing_say_the_same_and_leave_nothing(site: &Site) {
    let probed = folder("df-probe-");

    let found = site.engine.probe(probed.path()).await.unwrap();
    let described = site.engine.describe().await.unwrap();

    assert_eq!(described.capabilities, found);
    assert!(!found.version.is_empty());
    assert_eq!(fs::read_dir(probed.path()).unwrap().count(), 0);
    let known = site.engine.identity().await.unwrap();
    assert_eq!(site.lab.engine().identity().await.unwrap(), known);
}

pub(crate) async fn an_engine_that_was_checked_is_recognized(site: &Site) {
    let (probed, notes) = (folder("df-probe-"), folder("df-notes-"));

    site.engine
        .check(probed.path(), notes.path())
        .await
        .unwrap();

    let recognized = site.lab.engine().recognize(notes.path()).await.unwrap();
    assert_eq!(recognized, Recognized::Yes);
    assert_eq!(fs::read_dir(probed.path()).unwrap().count(), 0);
}

pub(crate) async fn what_the_engine_cannot_do_is_refused_before_anything_starts(site: &Site) {
    let capabilities = site.engine.describe().await.unwrap().capabilities;
    let kept = |limit| capabilities.limits.contains(&limit);
    let had = |feature| !capabilities.lacks.contains(&feature);

    for (demand, is_met) in [
        ("memory: 64m", kept(LimitKind::Memory)),
        ("cpus: 0.5", kept(LimitKind::Cpus)),
        ("pids: 20", kept(LimitKind::Pids)),
        ("transport: attach", had(Feature::Attach)),
        ("profile: seed", had(Feature::SeedProfile)),
        ("user: 4242:4242", had(Feature::OtherUsers)),
    ] {
        let answer = asked(site, demand, &capabilities);

        match answer {
            Ok(()) => assert!(is_met, "{demand} is not refused"),
            Err(
                refused @ (ResolveError::LimitNotKept { .. } | ResolveError::FeatureLacking { .. }),
            ) => assert!(!is_met, "{refused}"),
            Err(other) => panic!("{other}"),
        }
    }
    asked(site, "memory: none", &capabilities).unwrap();
}

pub(crate) async fn what_the_engine_lacks_is_not_created_either(site: &Site) {
    let plain = site.spec("print hello");
    let capabilities = site.engine.describe().await.unwrap().capabilities;

    for feature in capabilities.lacks {
        let spec = match feature {
            Feature::Attach => LaunchSpec {
                transport: Transport::Attach,
                ..plain.clone()
            },
            Feature::SeedProfile => LaunchSpec {
                profile: Profile::Seed,
                ..plain.clone()
            },
            Feature::OtherUsers => LaunchSpec {
                user: User::Ids {
                    uid: 4242,
                    gid: 4242,
                },
                ..plain.clone()
            },
        };

        let error = site
            .engine
            .create(&spec, &site.owner, &site.attempt())
            .await;

        let error = error.unwrap_err();
        assert!(
            matches!(error, EngineError::CreateRefused { .. }),
            "{feature}: {error:?}"
        );
        assert_eq!(error.fate(), Fate::Refused);
    }
    assert_eq!(site.engine.list_owned(&site.owner).await.unwrap(), []);
}

/// Resolves a prompt with one demand, for an engine that can do so much.
fn asked(site: &Site, demand: &str, capabilities: &Capabilities) -> Result<(), ResolveError> {
    let file = site.write(
        "prompt.md",
        format!("---\nagent: command\nimage: i\ncommand: [/bin/agent]\n{demand}\n---\nDo it.\n"),
    );
    let prompt = Prompt::parse(file.to_str().unwrap(), &fs::read(&file).unwrap()).unwrap();
    let context = ResolveContext {
        capabilities: Some(capabilities.clone()),
        ..ResolveContext::new(PathBuf::from("/nowhere/state"))
    };
    let host = HostView {
        cwd: site.project.path().to_owned(),
        ..HostView::default()
    };
    resolve(&prompt, &Settings::default(), &host, &context).map(drop)
}

pub(crate) async fn the_documentation_has_what_the_engine_declares(site: &Site) {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/engines.md");
    let capabilities = site.engine.describe().await.unwrap().capabilities;
    let (head, row) = table(&site.lab.documented_as(), &capabilities);

    let text = fs::read_to_string(docs).unwrap();

    for line in [head, row] {
        assert!(
            text.lines().any(|it| it == line),
            "docs/engines.md is not true; its table needs the line\n{line}"
        );
    }
}

/// Returns the first line of the table of engines, and an engine's line in it.
fn table(engine: &str, capabilities: &Capabilities) -> (String, String) {
    let limits = LimitKind::ALL
        .iter()
        .map(|limit| (limit.to_string(), capabilities.limits.contains(limit)));
    let features = Feature::ALL
        .iter()
        .map(|feature| (feature.to_string(), !capabilities.lacks.contains(feature)));
    let (mut head, mut row) = ("| engine |".to_owned(), format!("| {engine} |"));
    for (name, is_there) in limits.chain(features) {
        head = format!("{head} {name} |");
        row = format!("{row} {} |", if is_there { "yes" } else { "no" });
    }
    (head, row)
}
