//! Images that are there, and those that are not.

use dark_factory_executor::engine::{Engine, EngineError, Fate};
use dark_factory_executor::spec::{LaunchSpec, PullPolicy};

use crate::site::Site;

pub(crate) async fn an_image_that_is_there_is_told_by_what_it_is(site: &Site) {
    let ensure = async |engine: &dyn Engine, policy| {
        let image = site.lab.image();
        let found = engine.ensure_image(&image, policy, &mut |_| ()).await;
        found.unwrap().digest
    };

    let first = ensure(&*site.engine, PullPolicy::Never).await;
    let again = ensure(&*site.lab.engine(), PullPolicy::Missing).await;

    assert!(!first.is_empty());
    assert_eq!(first, again);
}

pub(crate) async fn a_missing_image_is_an_error(site: &Site) {
    let missing = site.lab.missing_image();

    let error = site
        .engine
        .ensure_image(&missing, PullPolicy::Never, &mut |_| ())
        .await
        .unwrap_err();

    assert!(is_about(&error, &missing), "{error:?}");
    assert_eq!(error.fate(), Fate::Refused);
}

pub(crate) async fn nothing_is_created_of_a_missing_image(site: &Site) {
    let missing = site.lab.missing_image();
    let spec = LaunchSpec {
        image: missing.clone(),
        ..site.spec("print hello")
    };

    let error = site
        .engine
        .create(&spec, &site.owner, &site.attempt())
        .await
        .unwrap_err();

    assert!(is_about(&error, &missing), "{error:?}");
    assert_eq!(site.engine.list_owned(&site.owner).await.unwrap(), []);
}

/// Returns whether an error names the image; an engine without registries says what it would take instead.
fn is_about(error: &EngineError, missing: &str) -> bool {
    matches!(
        error,
        EngineError::ImageMissing { image } | EngineError::Pull { image, .. } if image == missing
    )
}
