//! Images that are made here.

use std::process::Command;

use dark_factory_engines::docker::images::DockerImages;
use dark_factory_executor::engine::EngineError;

use crate::lab::{docker, random};
use crate::rig::endpoint;

/// Two blocks of zeros are an archive of nothing.
const EMPTY_ARCHIVE: [u8; 1024] = [0; 1024];

fn is_there(reference: &str) -> bool {
    Command::new("docker")
        .args(["image", "inspect", reference])
        .output()
        .unwrap()
        .status
        .success()
}

#[tokio::test]
async fn an_imported_image_is_there_until_it_is_removed() {
    let images = DockerImages::connect(&endpoint());
    for reference in [
        format!("df-import-{:x}", random()),
        format!("df-import/{:x}:2", random()),
    ] {
        images
            .import_image(&reference, EMPTY_ARCHIVE.to_vec())
            .await
            .unwrap();
        let was_there = is_there(&reference);
        images.remove_image(&reference).await.unwrap();

        assert!(was_there && !is_there(&reference), "{reference}");
    }
}

#[tokio::test]
async fn an_image_that_is_not_there_is_removed_already() {
    DockerImages::connect(&endpoint())
        .remove_image(&format!("df-import-{:x}:1", random()))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_image_that_a_container_uses_is_not_removed() {
    let images = DockerImages::connect(&endpoint());
    let reference = format!("df-import-{:x}:1", random());
    images
        .import_image(&reference, EMPTY_ARCHIVE.to_vec())
        .await
        .unwrap();
    let container = docker(&["create", &reference, "/none"]);

    let removed = images.remove_image(&reference).await;

    docker(&["rm", container.trim()]);
    images.remove_image(&reference).await.unwrap();
    assert!(
        matches!(removed, Err(EngineError::Failed { .. })),
        "{removed:?}"
    );
}

#[tokio::test]
async fn a_reference_that_cannot_be_chosen_is_refused() {
    let images = DockerImages::connect(&endpoint());
    for reference in ["", "../containers", "A:1", "a@sha256:0a"] {
        let imported = images.import_image(reference, EMPTY_ARCHIVE.to_vec()).await;

        assert!(
            matches!(imported, Err(EngineError::BadImageReference { .. })),
            "{reference}: {imported:?}"
        );
    }
}

#[tokio::test]
async fn bytes_that_are_no_archive_make_no_image() {
    let images = DockerImages::connect(&endpoint());
    let reference = format!("df-import-{:x}:1", random());

    let imported = images
        .import_image(
            &reference,
            b"not an archive, but as long as the head of one".repeat(20),
        )
        .await;

    assert!(imported.is_err() && !is_there(&reference), "{imported:?}");
}
