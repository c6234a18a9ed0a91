//! What a sandbox's root file system can be made of.
//!
//! Owns: the forms of image references.
//! Reads: `host`, a folder, an archive of an image, the name of an agent's image.
//! Never: talks to a registry, or changes a folder that it did not make.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dark_factory_executor::engine::EngineError;
use dark_factory_executor::spec::{Access, CONTAINER_DIR, OUR_IMAGES};
use dark_factory_types::ImageRecord;
use jiff::Timestamp;

use super::config::{Root, SandboxBind};
use super::image_store::{AgentNote, Hold, ImageNote, ImageStore, Stored};
use super::lower::Image;
use super::unpack;
use crate::agent_image::sha256;

/// The reference of the machine's own system folders.
pub(super) const HOST: &str = "host";
/// In an agent's image: the folder that sandboxes have at [`agent_folder`].
pub(super) const AGENT_FILES: &str = "usr/local";
/// The file by which a folder is known that is an image and no root file system.
const OCI_LAYOUT: &str = "oci-layout";
/// What can be run, for whoever asked for something else.
const POSSIBLE: &str = "a sandbox runs on `host` (this machine's own system folders), on a folder with a root file \
                        system, or on an archive of an image, as `docker save` writes it: give `host` or an absolute \
                        path, or the name of an image that `dark-factory image build` made";

/// What a reference names.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Host,
    Folder(PathBuf),
    Archive(PathBuf),
    Agent(Box<Stored>, AgentNote),
}

/// An image that stays until this goes.
#[derive(Debug)]
pub(super) struct HeldImage {
    pub(super) image: Image,
    _hold: Option<Hold>,
}

/// What sandboxes beside a folder of images can be made of.
#[derive(Debug, Clone)]
pub(super) struct Images {
    pub(super) store: ImageStore,
}

impl Images {
    /// Names the images of a folder of sandboxes.
    pub(super) fn new(sandboxes: &Path) -> Self {
        Self {
            store: ImageStore::new(sandboxes),
        }
    }

    /// Makes sure that an image can be used, and says which one it is. Blocks.
    pub(super) fn ensure(
        &self,
        reference: &str,
        now: Timestamp,
    ) -> Result<ImageRecord, EngineError> {
        let failed = failed(reference);
        let digest = match self.source(reference)? {
            Source::Host => HOST.to_owned(),
            Source::Folder(folder) => folder.display().to_string(),
            Source::Archive(archive) => {
                let hold = self.store.hold().map_err(&failed)?;
                let unpacked = self.unpack_once(&archive, &hold, now).map_err(&failed)?;
                drop(hold);
                self.prune(now);
                format!("sha256:{}", unpacked.id)
            }
            Source::Agent(_, agent) => {
                self.ensure(&agent.base, now)?;
                self.prune(now);
                format!("sha256:{}", agent.recipe)
            }
        };
        Ok(ImageRecord {
            reference: reference.to_owned(),
            digest,
        })
    }

    /// Returns an image for a sandbox. Blocks.
    pub(super) fn image(&self, reference: &str, now: Timestamp) -> Result<HeldImage, EngineError> {
        if reference == HOST {
            return Ok(HeldImage {
                image: Image::plain(Root::Host),
                _hold: None,
            });
        }
        let hold = self.store.hold().map_err(failed(reference))?;
        Ok(HeldImage {
            image: self.held(reference, &hold, now)?,
            _hold: Some(hold),
        })
    }

    /// Returns an image while none can be removed.
    pub(super) fn held(
        &self,
        reference: &str,
        hold: &Hold,
        now: Timestamp,
    ) -> Result<Image, EngineError> {
        match self.source(reference)? {
            Source::Host => Ok(Image::plain(Root::Host)),
            Source::Folder(folder) => Ok(Image::plain(Root::Folder(folder))),
            Source::Archive(archive) => {
                let unpacked = self.unpack_once(&archive, hold, now);
                let unpacked = unpacked.map_err(failed(reference))?;
                unpacked.note_use(now);
                let files = unpacked.files();
                let ImageNote {
                    env,
                    command,
                    workdir,
                    ..
                } = unpacked.note;
                let env = env.iter().filter_map(|pair| pair.split_once('='));
                Ok(Image {
                    env: env
                        .map(|(name, value)| (name.to_owned(), value.to_owned()))
                        .collect::<BTreeMap<_, _>>(),
                    command,
                    workdir,
                    ..Image::plain(Root::Folder(files))
                })
            }
            Source::Agent(stored, agent) => {
                stored.note_use(now);
                let base = self.held(&agent.base, hold, now)?;
                Ok(with_agent(base, &stored.files()))
            }
        }
    }

    /// Returns what an image would be, and makes nothing: an archive stands for the root file system in it.
    pub(super) fn preview(&self, reference: &str) -> Result<Image, EngineError> {
        Ok(match self.source(reference)? {
            Source::Host => Image::plain(Root::Host),
            Source::Folder(path) | Source::Archive(path) => Image::plain(Root::Folder(path)),
            Source::Agent(stored, agent) => with_agent(self.preview(&agent.base)?, &stored.files()),
        })
    }

    /// Returns what a reference names.
    fn source(&self, reference: &str) -> Result<Source, EngineError> {
        let not_possible = |reason: &str| EngineError::Pull {
            image: reference.to_owned(),
            source: format!("{reason}{POSSIBLE}").into(),
        };
        if reference == HOST {
            return Ok(Source::Host);
        }
        let path = Path::new(reference);
        if path.is_absolute() {
            return match fs::metadata(path) {
                Ok(found) if found.is_dir() && path.join(OCI_LAYOUT).is_file() => {
                    Err(not_possible(
                        "this folder is an OCI layout, of which an archive is taken (`tar -C FOLDER -cf FILE.tar .`); ",
                    ))
                }
                Ok(found) if found.is_dir() => Ok(Source::Folder(path.to_owned())),
                Ok(_) => Ok(Source::Archive(path.to_owned())),
                Err(error) => Err(not_possible(&format!("{error}; "))),
            };
        }
        let stored = self.store.named(&with_tag(reference));
        let stored = stored.map_err(failed(reference))?;
        let agent = stored.as_ref().and_then(|image| image.note.agent.clone());
        match (stored, agent) {
            (Some(stored), Some(agent)) => Ok(Source::Agent(Box::new(stored), agent)),
            _ if reference.starts_with(OUR_IMAGES) => Err(EngineError::ImageMissing {
                image: reference.to_owned(),
            }),
            _ => Err(not_possible("")),
        }
    }

    /// Unpacks an archive unless that was done.
    fn unpack_once(&self, archive: &Path, hold: &Hold, now: Timestamp) -> io::Result<Stored> {
        let digest = sha256(archive)?;
        if let Some(stored) = self.store.find(&digest)? {
            return Ok(stored);
        }
        let new = self.store.begin(hold)?;
        let note = ImageNote {
            made: Some(now),
            archive: Some(archive.to_owned()),
            ..unpack::unpack(archive, &new.files())?
        };
        self.store.keep(&new, &digest, &note, hold)
    }

    /// Removes images that nobody needs; that it does not work is no reason not to run.
    fn prune(&self, now: Timestamp) {
        if let Err(error) = self.store.prune(now) {
            tracing::debug!(%error, "old images stay for the next time");
        }
    }
}

/// Returns where sandboxes have an agent's files.
pub(super) fn agent_folder() -> PathBuf {
    Path::new(CONTAINER_DIR).join("agent")
}

/// Puts an agent's files on a base.
pub(super) fn with_agent(base: Image, files: &Path) -> Image {
    let target = agent_folder();
    Image {
        first_in_path: Some(target.join("bin").display().to_string()),
        binds: vec![SandboxBind {
            source: files.join(AGENT_FILES),
            target,
            access: Access::ReadOnly,
        }],
        ..base
    }
}

/// Returns an image's name with the tag that it has if none is given.
pub(super) fn with_tag(reference: &str) -> String {
    let last = reference.rsplit('/').next().unwrap_or_default();
    match last.contains([':', '@']) {
        true => reference.to_owned(),
        false => format!("{reference}:latest"),
    }
}

fn failed(reference: &str) -> impl Fn(io::Error) -> EngineError {
    let image = reference.to_owned();
    move |source| EngineError::Pull {
        image: image.clone(),
        source: source.into(),
    }
}
