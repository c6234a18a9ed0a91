//! What a sandbox's root file system can be made of.
//!
//! Owns: the folders of unpacked archives, each named by its digest.
//! Reads: image references: `host`, a folder, an archive of an image.
//! Never: talks to a registry, or changes a folder that it did not make.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use dark_factory_executor::engine::EngineError;
use dark_factory_types::ImageRecord;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::config::Root;
use super::lower::Image;
use super::unpack;

/// The reference of the machine's own system folders.
pub(super) const HOST: &str = "host";
/// Folder: unpacked archives, in the folder of sandboxes, where no sandbox's name begins so.
const IMAGES: &str = ".images";
/// In an unpacked archive's folder: its files, and what it says of itself.
const FILES: &str = "files";
const NOTE: &str = "image.json";
/// The file by which a folder is known that is an image and no root file system.
const OCI_LAYOUT: &str = "oci-layout";
/// What can be run, for whoever asked for something else.
const POSSIBLE: &str = "a sandbox runs on `host` (this machine's own system folders), on a folder with a root file \
                        system, or on an archive of an image, as `docker save` writes it: give `host` or an \
                        absolute path";

/// What an archive says of the image in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImageNote {
    pub(super) env: Vec<String>,
    pub(super) command: Vec<String>,
    pub(super) workdir: String,
    /// What its files hold.
    #[serde(default)]
    pub(super) bytes: u64,
}

/// What a reference names.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Host,
    Folder(PathBuf),
    Archive(PathBuf),
}

fn source(reference: &str) -> Result<Source, EngineError> {
    if reference == HOST {
        return Ok(Source::Host);
    }
    let path = Path::new(reference);
    if !path.is_absolute() {
        return Err(EngineError::Pull {
            image: reference.to_owned(),
            source: POSSIBLE.into(),
        });
    }
    match fs::metadata(path) {
        Ok(found) if found.is_dir() && path.join(OCI_LAYOUT).is_file() => Err(EngineError::Pull {
            image: reference.to_owned(),
            source: format!(
                "this folder is an OCI layout, of which an archive is taken (`tar -C FOLDER -cf FILE.tar .`); {POSSIBLE}"
            )
            .into(),
        }),
        Ok(found) if found.is_dir() => Ok(Source::Folder(path.to_owned())),
        Ok(_) => Ok(Source::Archive(path.to_owned())),
        Err(error) => Err(EngineError::Pull {
            image: reference.to_owned(),
            source: format!("{error}; {POSSIBLE}").into(),
        }),
    }
}

/// Makes sure that an image can be used, and says which one it is. Blocks.
pub(super) fn ensure(root: &Path, reference: &str) -> Result<ImageRecord, EngineError> {
    let failed = |source: io::Error| EngineError::Pull {
        image: reference.to_owned(),
        source: source.into(),
    };
    let digest = match source(reference)? {
        Source::Host => HOST.to_owned(),
        Source::Folder(folder) => folder.display().to_string(),
        Source::Archive(archive) => {
            let digest = digest(&archive).map_err(failed)?;
            unpack_once(root, &archive, &digest).map_err(failed)?;
            format!("sha256:{digest}")
        }
    };
    Ok(ImageRecord {
        reference: reference.to_owned(),
        digest,
    })
}

/// Returns an image for a sandbox. Blocks.
pub(super) fn image(root: &Path, reference: &str) -> Result<Image, EngineError> {
    match source(reference)? {
        Source::Host => Ok(Image::plain(Root::Host)),
        Source::Folder(folder) => Ok(Image::plain(Root::Folder(folder))),
        Source::Archive(archive) => {
            let failed = |source: io::Error| EngineError::Pull {
                image: reference.to_owned(),
                source: source.into(),
            };
            let digest = digest(&archive).map_err(failed)?;
            let folder = unpack_once(root, &archive, &digest).map_err(failed)?;
            let note = fs::read(folder.join(NOTE)).map_err(failed)?;
            let note: ImageNote =
                serde_json::from_slice(&note).map_err(|error| failed(error.into()))?;
            let env = note.env.iter().filter_map(|pair| pair.split_once('='));
            Ok(Image {
                env: env
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect::<BTreeMap<_, _>>(),
                command: note.command,
                workdir: note.workdir,
                root: Root::Folder(folder.join(FILES)),
            })
        }
    }
}

/// Returns the digest of a file's bytes.
fn digest(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path)?, &mut HashWriter(&mut hash))?;
    Ok(hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// Hands what is written to a hash.
struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Unpacks an archive unless that was done, and returns the folder.
fn unpack_once(root: &Path, archive: &Path, digest: &str) -> io::Result<PathBuf> {
    let images = root.join(IMAGES);
    let folder = images.join(digest);
    if folder.exists() {
        return Ok(folder);
    }
    let new = images.join(format!(".new-{}", Uuid::new_v4().simple()));
    fs::create_dir_all(new.join(FILES))?;
    let made = unpack::unpack(archive, &new.join(FILES))
        .and_then(|note| fs::write(new.join(NOTE), serde_json::to_vec(&note)?))
        .and_then(|()| match fs::rename(&new, &folder) {
            // Somebody else was quicker.
            Err(_) if folder.exists() => fs::remove_dir_all(&new),
            renamed => renamed,
        });
    if let Err(error) = made {
        fs::remove_dir_all(&new)?;
        return Err(error);
    }
    Ok(folder)
}
