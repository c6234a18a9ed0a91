//! The archive of an image: as `docker save` writes it, or an OCI layout in a tar archive.
//!
//! Owns: which of its files are the image, and that they are what the image says they are.
//! Reads: the archive.
//! Never: takes one image of several, or unpacks anything.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tar::{Archive, EntryType};

/// File: the list of an archive's images, by Docker and by OCI. What has both is Docker's.
const DOCKER_LIST: &str = "manifest.json";
const OCI_LIST: &str = "index.json";
/// Folder of OCI's files.
const BLOBS: &str = "blobs";
/// The largest description that is read.
const DESCRIPTION: u64 = 16 << 20;
/// How deep lists of images may be in lists of images.
const DEPTH: u32 = 4;
/// What of an archive is compressed as a whole, by how it begins.
const WHOLE: [(&[u8], &str); 4] = [
    (&[0x1f, 0x8b], "gunzip"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "unzstd"),
    (&[0xfd, b'7', b'z', b'X', b'Z'], "unxz"),
    (b"BZh", "bunzip2"),
];
/// What sandboxes run.
pub(super) const OS: &str = "linux";

/// Docker's entry for an image.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    layers: Vec<String>,
}

/// OCI's list of images, and its description of one.
#[derive(Debug, Deserialize)]
struct OciList {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct OciImage {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// Either of them: a list has no layers.
#[derive(Debug, Deserialize)]
struct OciKind {
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    digest: String,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// What an image says of itself.
#[derive(Debug, Default, Deserialize)]
struct Described {
    #[serde(default)]
    config: Option<Settings>,
    #[serde(default)]
    rootfs: Option<RootFs>,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

/// How an image wants to be run.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Settings {
    #[serde(default)]
    pub(super) env: Option<Vec<String>>,
    #[serde(default)]
    pub(super) entrypoint: Option<Vec<String>>,
    #[serde(default)]
    pub(super) cmd: Option<Vec<String>>,
    #[serde(default)]
    pub(super) working_dir: Option<String>,
}

/// Where in an archive each file is.
type Index = BTreeMap<String, (u64, u64)>;

/// An archive with one image.
#[derive(Debug)]
pub(super) struct ImageArchive {
    file: File,
    index: Index,
    pub(super) settings: Settings,
    /// The layers, the lowest first.
    pub(super) layers: Vec<Layer>,
}

/// A layer: a tar archive, maybe compressed.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    /// Its file in the archive.
    pub(super) name: String,
    /// The SHA-256 of what it is unpacked, where the image says it.
    pub(super) content: Option<String>,
}

impl ImageArchive {
    /// Finds the image of an archive.
    pub(super) fn open(path: &Path, architecture: &str) -> io::Result<Self> {
        let file = File::open(path)?;
        refuse_compressed(&file)?;
        let index = index(&file).map_err(|error| {
            let kind = error.kind();
            let text = match kind {
                io::ErrorKind::UnexpectedEof => "it is cut off".to_owned(),
                _ => format!("it is no archive of an image: {error}"),
            };
            io::Error::new(kind, text)
        })?;
        let mut archive = Self {
            file,
            index,
            settings: Settings::default(),
            layers: Vec::new(),
        };
        if archive.index.contains_key(DOCKER_LIST) {
            archive.find_docker()?;
        } else if archive.index.contains_key(OCI_LIST) {
            archive.find_oci(architecture)?;
        } else {
            return Err(invalid(format!(
                "it is no archive of an image: there is neither {DOCKER_LIST} (`docker save`) nor {OCI_LIST} (an OCI \
                 layout) in it"
            )));
        }
        Ok(archive)
    }

    /// Returns the length of the archive's file.
    pub(super) fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Returns a file of the archive.
    pub(super) fn part(&mut self, name: &str) -> io::Result<impl Read + use<'_>> {
        let place = self.index.get(name);
        let (at, length) = *place.ok_or_else(|| invalid(format!("{name} is missing in it")))?;
        self.file.seek(SeekFrom::Start(at))?;
        Ok((&self.file).take(length))
    }

    fn find_docker(&mut self) -> io::Result<()> {
        let images: Vec<DockerImage> = parse(DOCKER_LIST, &self.description(DOCKER_LIST)?)?;
        let [image] = images.as_slice() else {
            return Err(invalid(format!(
                "it has {} images; save one alone",
                images.len()
            )));
        };
        let config = self.description(&image.config)?;
        self.describe(&image.config, &config, image.layers.clone())
    }

    fn find_oci(&mut self, architecture: &str) -> io::Result<()> {
        let mut name = OCI_LIST.to_owned();
        let mut text = self.description(&name)?;
        for _ in 0..DEPTH {
            let kind: OciKind = parse(&name, &text)?;
            if kind.manifests.is_none() {
                return self.take_oci(&name, &text);
            }
            let list: OciList = parse(&name, &text)?;
            let chosen = choose(list.manifests, architecture)?;
            (name, text) = self.blob(&chosen)?;
        }
        Err(invalid(format!(
            "its lists of images are more than {DEPTH} deep"
        )))
    }

    fn take_oci(&mut self, name: &str, text: &[u8]) -> io::Result<()> {
        let image: OciImage = parse(name, text)?;
        let (config_name, config) = self.blob(&image.config)?;
        let layers = image.layers.iter().map(|layer| blob_name(&layer.digest));
        let layers = layers.collect::<io::Result<Vec<_>>>()?;
        self.describe(&config_name, &config, layers)?;
        if self.layers.iter().all(|layer| layer.content.is_some()) {
            return Ok(());
        }
        Err(invalid(format!(
            "{config_name} in it does not say what its layers are (rootfs.diff_ids)"
        )))
    }

    /// Takes over what an image says of itself.
    fn describe(&mut self, name: &str, config: &[u8], layers: Vec<String>) -> io::Result<()> {
        let described: Described = parse(name, config)?;
        let known = described.rootfs.map(|rootfs| rootfs.diff_ids);
        let known = known.unwrap_or_default();
        if !known.is_empty() && known.len() != layers.len() {
            return Err(invalid(format!(
                "it has {} layers, and {name} in it says what {} are",
                layers.len(),
                known.len()
            )));
        }
        let mut known = known.into_iter();
        self.layers = layers
            .into_iter()
            .map(|name| {
                let content = known.next();
                let content = content.map(|digest| sha256_of(&digest).map(str::to_owned));
                Ok(Layer {
                    name,
                    content: content.transpose()?,
                })
            })
            .collect::<io::Result<_>>()?;
        self.settings = described.config.unwrap_or_default();
        Ok(())
    }

    /// Returns a file by its digest, which it must have.
    fn blob(&mut self, descriptor: &Descriptor) -> io::Result<(String, Vec<u8>)> {
        let name = blob_name(&descriptor.digest)?;
        let text = self.description(&name)?;
        refuse_other(
            &name,
            &hex(Sha256::digest(&text)),
            sha256_of(&descriptor.digest)?,
        )?;
        Ok((name, text))
    }

    fn description(&mut self, name: &str) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        let part = self.part(name)?;
        part.take(DESCRIPTION + 1).read_to_end(&mut text)?;
        if text.len() as u64 > DESCRIPTION {
            let most = DESCRIPTION >> 20;
            return Err(invalid(format!("{name} in it is larger than {most} MiB")));
        }
        Ok(text)
    }
}

/// Returns the one image of a list that this machine can run.
fn choose(all: Vec<Descriptor>, architecture: &str) -> io::Result<Descriptor> {
    let is_ours = |image: &Descriptor| {
        image
            .platform
            .as_ref()
            .is_none_or(|platform| platform.os == OS && platform.architecture == architecture)
    };
    let others: Vec<String> = all
        .iter()
        .filter_map(|image| image.platform.as_ref())
        .map(|platform| format!("{}/{}", platform.os, platform.architecture))
        .collect();
    let mut ours = all.into_iter().filter(is_ours);
    match (ours.next(), ours.count()) {
        (Some(image), 0) => Ok(image),
        (Some(_), more) => Err(invalid(format!(
            "it has {} images; save one alone",
            more + 1
        ))),
        (None, _) if others.is_empty() => Err(invalid("there is no image in it".to_owned())),
        (None, _) => Err(invalid(format!(
            "it has no image for {OS}/{architecture}, but for {}",
            others.join(", ")
        ))),
    }
}

/// Refuses a file whose content has another SHA-256 than was said.
pub(super) fn refuse_other(name: &str, found: &str, said: &str) -> io::Result<()> {
    if found == said {
        return Ok(());
    }
    Err(invalid(format!(
        "{name} in it is damaged: its content is sha256:{found}, and should be sha256:{said}"
    )))
}

pub(super) fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

pub(super) fn hex(bytes: impl AsRef<[u8]>) -> String {
    let digits = bytes.as_ref().iter().map(|byte| format!("{byte:02x}"));
    digits.collect()
}

fn sha256_of(digest: &str) -> io::Result<&str> {
    let is_hex = |text: &&str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let found = digest.strip_prefix("sha256:").filter(is_hex);
    found.ok_or_else(|| invalid(format!("{digest:?} in it is no SHA-256")))
}

fn blob_name(digest: &str) -> io::Result<String> {
    sha256_of(digest).map(|hex| format!("{BLOBS}/sha256/{hex}"))
}

fn parse<T: DeserializeOwned>(name: &str, text: &[u8]) -> io::Result<T> {
    serde_json::from_slice(text)
        .map_err(|error| invalid(format!("{name} in it cannot be read: {error}")))
}

/// Says what to do with an archive that is compressed as a whole: files are looked for in it.
fn refuse_compressed(mut file: &File) -> io::Result<()> {
    let mut begin = Vec::new();
    file.take(8).read_to_end(&mut begin)?;
    file.rewind()?;
    let found = WHOLE.iter().find(|(magic, _)| begin.starts_with(magic));
    match found {
        None => Ok(()),
        Some((_, program)) => Err(invalid(format!(
            "it is compressed as a whole: unpack it with {program} first (compressed layers in it are fine)"
        ))),
    }
}

/// Reads where each file of an archive is; a link's place is that of what it names.
fn index(file: &File) -> io::Result<Index> {
    let length = file.metadata()?.len();
    let mut index = Index::new();
    let mut links = Vec::new();
    let mut archive = Archive::new(file);
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let name = text(&lexical(&entry.path()?));
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {
                let place = (entry.raw_file_position(), entry.size());
                if place.0.saturating_add(place.1) > length {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                index.insert(name, place);
            }
            EntryType::Symlink | EntryType::Link => {
                if let Some(to) = entry.link_name()? {
                    links.push((name, to.into_owned()));
                }
            }
            _ => {}
        }
    }
    for (name, to) in links {
        let beside = Path::new(&name).parent().map(|folder| folder.join(&to));
        let named = [Some(to), beside];
        let found = named
            .into_iter()
            .flatten()
            .find_map(|path| index.get(&text(&lexical(&path))).copied());
        if let Some(place) = found {
            index.insert(name, place);
        }
    }
    Ok(index)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Returns a path without `..`, by its text.
pub(super) fn lexical(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::Normal(name) => clean.push(name),
            _ => {}
        }
    }
    clean
}
