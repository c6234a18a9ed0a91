//! The agent's files: out of its wheel, or out of a folder.
//!
//! Owns: what is taken for a wheel, and which of its files are needed.
//! Reads: wheels and folders.
//! Never: executes any of it, or keeps more than a piece of a file in memory.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use zip::ZipArchive;
use zip::result::ZipError;

use super::error::{AgentImageError, expected};
use super::recipe::{Extent, Recipe};

/// How much of a file is read at once.
const PIECE: usize = 1 << 20;
/// How a zip file begins, and how an ELF file and a script do.
const ZIP: &[u8] = b"PK\x03\x04";
const ELF: &[u8] = b"\x7fELF";
const SCRIPT: &[u8] = b"#!";
/// Bytes of an ELF file up to the end of its machine.
const ELF_HEAD: usize = 20;

/// An agent's files, looked at and found to be what they should be.
#[derive(Debug)]
pub(crate) struct Source {
    origin: Origin,
    members: Vec<Member>,
    /// What tells these files from others.
    pub(crate) digest: String,
}

#[derive(Debug)]
enum Origin {
    Wheel(PathBuf),
    Folder(PathBuf),
}

/// A file that goes into the image.
#[derive(Debug)]
struct Member {
    /// Its name in the wheel, or its path below the folder.
    name: String,
    /// Its path in the image.
    target: String,
    size: u64,
}

impl Source {
    /// Looks at a wheel or a folder.
    ///
    /// Reads all of it once; blocks.
    pub(crate) fn open(
        recipe: &'static Recipe,
        path: &Path,
        arch: &str,
    ) -> Result<Self, AgentImageError> {
        let unusable = |reason: String| AgentImageError::Source {
            path: path.to_owned(),
            agent: recipe.agent,
            reason,
            expected: expected(recipe, recipe.wheel(arch)),
        };
        let metadata = fs::metadata(path).map_err(|error| unusable(error.to_string()))?;
        let found = if metadata.is_dir() {
            Self::folder(recipe, path, arch)
        } else if metadata.is_file() {
            Self::wheel(recipe, path, arch)
        } else {
            Err("it is neither a file nor a folder".to_owned())
        };
        found.map_err(unusable)
    }

    fn wheel(recipe: &Recipe, path: &Path, arch: &str) -> Result<Self, String> {
        let mut file = File::open(path).map_err(|error| error.to_string())?;
        let mut start = [0; 4];
        if file.read_exact(&mut start).is_err() || start != ZIP {
            return Err("it is not a wheel: a wheel is a zip file".to_owned());
        }
        file.rewind().map_err(|error| error.to_string())?;
        let mut zip = ZipArchive::new(BufReader::new(file)).map_err(|error| match error {
            ZipError::Io(error) => error.to_string(),
            // It begins as one, so what is not found is its end.
            _ => "it is cut off or damaged: its table of contents cannot be read".to_owned(),
        })?;
        let mut members = Vec::new();
        let mut has_executable = false;
        for index in 0..zip.len() {
            let entry = zip.by_index_raw(index).map_err(|error| error.to_string())?;
            let name = entry.name().map_err(|error| error.to_string())?;
            let below = name.strip_prefix(recipe.folder);
            let Some(below) = below.and_then(|below| below.strip_prefix('/')) else {
                continue;
            };
            if entry.is_dir() || !is_needed(recipe, below) {
                continue;
            }
            if entry.enclosed_name().is_none() {
                return Err(format!("{name} leads out of it"));
            }
            has_executable |= below == recipe.executable;
            members.push(Member {
                target: format!("{}/{below}", recipe.target),
                name: name.into_owned(),
                size: entry.size(),
            });
        }
        if !has_executable {
            return Err(format!(
                "there is no {}/{} in it",
                recipe.folder, recipe.executable
            ));
        }
        let executable = format!("{}/{}", recipe.folder, recipe.executable);
        let mut head = Vec::new();
        zip.by_name(&executable)
            .map_err(|error| error.to_string())?
            .take(ELF_HEAD as u64)
            .read_to_end(&mut head)
            .map_err(|error| format!("{executable} in it cannot be unpacked: {error}"))?;
        check_executable(&executable, &head, arch)?;
        Ok(Self {
            digest: sha256(path).map_err(|error| error.to_string())?,
            origin: Origin::Wheel(path.to_owned()),
            members,
        })
    }

    fn folder(recipe: &Recipe, path: &Path, arch: &str) -> Result<Self, String> {
        let unpacked = path.join(recipe.folder);
        let root = [unpacked.as_path(), path]
            .into_iter()
            .find(|root| root.join(recipe.executable).is_file())
            .ok_or_else(|| {
                format!(
                    "there is no {} and no {}/{} in it",
                    recipe.executable, recipe.folder, recipe.executable
                )
            })?;
        let mut names = match recipe.extent {
            Extent::Executable => vec![recipe.executable.to_owned()],
            Extent::Folder => files_below(root)?,
        };
        names.retain(|name| is_needed(recipe, name));
        let mut digest = Sha256::new();
        let mut members = Vec::new();
        for name in names {
            let file = root.join(&name);
            let cannot = |error: io::Error| format!("{}: {error}", file.display());
            let size = fs::metadata(&file).map_err(cannot)?.len();
            digest.update(format!("{name}\n{}\n", sha256(&file).map_err(cannot)?));
            members.push(Member {
                target: format!("{}/{name}", recipe.target),
                name,
                size,
            });
        }
        let mut head = Vec::new();
        File::open(root.join(recipe.executable))
            .and_then(|file| file.take(ELF_HEAD as u64).read_to_end(&mut head))
            .map_err(|error| format!("{}: {error}", recipe.executable))?;
        check_executable(recipe.executable, &head, arch)?;
        Ok(Self {
            origin: Origin::Folder(root.to_owned()),
            members,
            digest: hex(&digest.finalize()),
        })
    }

    /// Returns the wheel, or the folder of the files.
    pub(crate) fn path(&self) -> &Path {
        match &self.origin {
            Origin::Wheel(path) | Origin::Folder(path) => path,
        }
    }

    /// Returns its name, without where it lies.
    pub(crate) fn name(&self) -> String {
        let path = self.path();
        let name = path.file_name().unwrap_or(path.as_os_str());
        name.to_string_lossy().into_owned()
    }

    /// Writes the files as a tar archive of the image's root; blocks.
    pub(crate) fn write_archive(&self, output: impl Write) -> io::Result<()> {
        let mut archive = tar::Builder::new(output);
        match &self.origin {
            Origin::Wheel(path) => {
                let file = BufReader::with_capacity(PIECE, File::open(path)?);
                let mut zip = ZipArchive::new(file)?;
                for member in &self.members {
                    member.append(&mut archive, zip.by_name(&member.name)?)?;
                }
            }
            Origin::Folder(root) => {
                for member in &self.members {
                    member.append(&mut archive, File::open(root.join(&member.name))?)?;
                }
            }
        }
        archive.finish()
    }
}

impl Member {
    fn append(&self, archive: &mut tar::Builder<impl Write>, content: impl Read) -> io::Result<()> {
        // One byte more shows that there is more than was said.
        let most = self.size.saturating_add(1);
        let mut content = BufReader::with_capacity(PIECE, content.take(most));
        let start = io::BufRead::fill_buf(&mut content)?;
        let mode = if start.starts_with(ELF) || start.starts_with(SCRIPT) {
            0o755
        } else {
            0o644
        };
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_size(self.size);
        archive.append_data(&mut header, &self.target, &mut content)?;
        if most - content.get_ref().limit() == self.size {
            return Ok(());
        }
        let reason = format!("{} is not as large as it was said to be", self.name);
        Err(io::Error::new(io::ErrorKind::InvalidData, reason))
    }
}

/// Returns whether a file, named below the recipe's folder, goes into the image.
fn is_needed(recipe: &Recipe, name: &str) -> bool {
    match recipe.extent {
        Extent::Executable => name == recipe.executable,
        Extent::Folder => !name.ends_with(".py") && !name.contains("__pycache__"),
    }
}

/// Returns the regular files below a folder, as paths from there.
fn files_below(root: &Path) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let cannot = |error: io::Error| format!("{}: {error}", folder.display());
        for entry in fs::read_dir(&folder).map_err(cannot)? {
            let entry = entry.map_err(cannot)?;
            let kind = entry.file_type().map_err(cannot)?;
            let path = entry.path();
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                let name = path.strip_prefix(root).ok().and_then(Path::to_str);
                names.push(
                    name.ok_or_else(|| format!("{} is not UTF-8", path.display()))?
                        .to_owned(),
                );
            } else {
                return Err(format!("{} is not a regular file", path.display()));
            }
        }
    }
    names.sort();
    Ok(names)
}

/// Refuses what an engine of this architecture cannot execute; a script is for what is in the image to say.
fn check_executable(name: &str, head: &[u8], arch: &str) -> Result<(), String> {
    if head.starts_with(SCRIPT) {
        return Ok(());
    }
    if !head.starts_with(ELF) || head.len() < ELF_HEAD {
        return Err(format!(
            "{name} in it is not a Linux executable; the engine needs one for {arch}"
        ));
    }
    let machine = u16::from_le_bytes([head[18], head[19]]);
    let found = match machine {
        3 => "386",
        40 => "arm",
        62 => "amd64",
        183 => "arm64",
        243 => "riscv64",
        _ => "another machine",
    };
    if found == arch || found == "another machine" && !["amd64", "arm64"].contains(&arch) {
        Ok(())
    } else {
        Err(format!(
            "{name} in it is for {found}; the engine needs one for {arch}"
        ))
    }
}

/// Returns the SHA-256 of a file, in hexadecimal digits.
pub(crate) fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hex(&hash.finalize())),
            read => hash.update(&piece[..read]),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_as_large_as_was_said_is_refused_and_not_read_to_its_end() {
        let member = Member {
            name: "agent".to_owned(),
            target: "usr/local/bin/agent".to_owned(),
            size: 4,
        };
        let append = |content: &mut dyn Read| {
            let mut archive = tar::Builder::new(Vec::new());
            member.append(&mut archive, content)
        };

        append(&mut &b"four"[..]).unwrap();
        for mut content in [&b"one"[..], &b"fives"[..]] {
            assert!(append(&mut content).is_err());
        }
        assert!(append(&mut io::repeat(0)).is_err());
    }
}
