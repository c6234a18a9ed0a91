//! Files and folders of the host, inside a workload.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};

use dark_factory_executor::spec::{Access, Mount};
use tempfile::TempDir;

use crate::site::{Site, folder};

/// A folder with a file, both of the agent's user.
struct Shared {
    folder: TempDir,
}

impl Shared {
    fn new(site: &Site, name: &str) -> Self {
        let shared = Self {
            folder: folder("df-shared-"),
        };
        let inner = shared.path(name);
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("f"), "outside").unwrap();
        let (uid, gid) = site.lab.user();
        for path in [inner.join("f"), inner] {
            chown(path, Some(uid), Some(gid)).unwrap();
        }
        shared
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Reads and then writes what is mounted at `target`; returns the exit code, and what was read.
async fn use_mount(site: &Site, source: &Path, target: &str, access: Access) -> (i64, String) {
    let file = if source.is_dir() {
        format!("{target}/f")
    } else {
        target.to_owned()
    };
    let mut spec = site.spec(&format!("read '{file}'; write '{file}' inside"));
    spec.mounts = vec![Mount {
        source: source.to_owned(),
        target: target.to_owned(),
        access,
    }];
    let (exit, spool) = site.run(&spec).await;
    (exit.code, spool.text())
}

async fn is_as_writable_as_it_says(site: &Site, source: &Path, target: &str) {
    let outside = || {
        let file = if source.is_dir() {
            source.join("f")
        } else {
            source.to_owned()
        };
        fs::read_to_string(file).unwrap()
    };

    let read_only = use_mount(site, source, target, Access::ReadOnly).await;
    let untouched = outside();
    let read_write = use_mount(site, source, target, Access::ReadWrite).await;

    assert_eq!(read_only, (1, "outside".to_owned()));
    assert_eq!(untouched, "outside");
    assert_eq!(read_write, (0, "outside".to_owned()));
    assert_eq!(outside(), "inside");
}

pub(crate) async fn a_folder_is_as_writable_as_its_mount_says(site: &Site) {
    let shared = Shared::new(site, "data");

    is_as_writable_as_it_says(site, &shared.path("data"), "/shared").await;
}

pub(crate) async fn a_file_is_as_writable_as_its_mount_says(site: &Site) {
    let shared = Shared::new(site, "data");

    is_as_writable_as_it_says(site, &shared.path("data/f"), "/deep/down/shared.txt").await;
}

pub(crate) async fn a_source_behind_a_symlink_is_what_it_leads_to(site: &Site) {
    let shared = Shared::new(site, "data");
    symlink("data", shared.path("link")).unwrap();
    symlink("link/f", shared.path("file-link")).unwrap();

    let by_link = use_mount(site, &shared.path("link"), "/shared", Access::ReadOnly).await;
    is_as_writable_as_it_says(site, &shared.path("file-link"), "/shared").await;

    assert_eq!(by_link, (1, "outside".to_owned()));
    assert!(shared.path("link").is_symlink() && shared.path("file-link").is_symlink());
}

pub(crate) async fn paths_are_taken_as_they_are(site: &Site) {
    let name = "grüße, 世界 😀 \"quoted\" $HOME %s=x";
    let shared = Shared::new(site, name);

    is_as_writable_as_it_says(site, &shared.path(name), &format!("/in/{name}")).await;
}

pub(crate) async fn a_mount_may_lie_in_the_workspace(site: &Site) {
    let shared = Shared::new(site, "data");
    site.write("own", "mine");

    is_as_writable_as_it_says(site, &shared.path("data"), "/workspace/sub").await;

    assert_eq!(fs::read_to_string(site.file("own")).unwrap(), "mine");
    assert_eq!(fs::read_dir(site.file("sub")).unwrap().count(), 0);
}
