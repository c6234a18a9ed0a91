//! Archives as `docker save` writes them, and hostile ones.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, Header};

use super::super::image_archive::{OS, hex};

use super::*;

/// What a layer says of one path.
enum Item {
    File(&'static str, &'static str),
    Folder(&'static str),
    Symlink(&'static str, &'static str),
    Hardlink(&'static str, &'static str),
}

fn layer(items: &[Item]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for item in items {
        let mut header = Header::new_gnu();
        header.set_mode(0o755);
        let (path, text) = match item {
            Item::File(path, text) => {
                header.set_entry_type(EntryType::Regular);
                (path, *text)
            }
            Item::Folder(path) => {
                header.set_entry_type(EntryType::Directory);
                (path, "")
            }
            Item::Symlink(path, to) => {
                header.set_entry_type(EntryType::Symlink);
                header.set_link_name(to).unwrap();
                (path, "")
            }
            Item::Hardlink(path, to) => {
                header.set_entry_type(EntryType::Link);
                header.set_link_name(to).unwrap();
                (path, "")
            }
        };
        header.set_size(text.len() as u64);
        // Past the builder's own care: the name is written as it is.
        let bytes = path.as_bytes();
        header.as_old_mut().name[..bytes.len()].copy_from_slice(bytes);
        header.set_cksum();
        builder.append(&header, text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Writes an archive with these files.
fn saved(folder: &Path, files: &[(String, Vec<u8>)]) -> PathBuf {
    let path = folder.join("image.tar");
    let mut builder = Builder::new(File::create(&path).unwrap());
    for (name, bytes) in files {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        builder
            .append_data(&mut header, name, bytes.as_slice())
            .unwrap();
    }
    builder.finish().unwrap();
    path
}

fn archive(folder: &Path, layers: &[Vec<u8>]) -> PathBuf {
    docker_archive(folder, layers, &json!({}))
}

/// Writes what `docker save` writes; `more` is what the image says besides how it runs.
fn docker_archive(folder: &Path, layers: &[Vec<u8>], more: &Value) -> PathBuf {
    let names: Vec<String> = (0..layers.len())
        .map(|n| format!("{n}/layer.tar"))
        .collect();
    let mut files: Vec<_> = names.iter().cloned().zip(layers.to_vec()).collect();
    let mut config = json!({
        "config": { "Env": ["A=b"], "Entrypoint": ["/init"], "Cmd": ["x"], "WorkingDir": "/w" },
    });
    let more = more.as_object().unwrap().clone();
    config.as_object_mut().unwrap().extend(more);
    files.push(("c.json".to_owned(), config.to_string().into()));
    let manifest = json!([{ "Config": "c.json", "Layers": names, "RepoTags": null }]);
    files.push(("manifest.json".to_owned(), manifest.to_string().into()));
    saved(folder, &files)
}

fn unpacked(layers: &[Vec<u8>]) -> (tempfile::TempDir, PathBuf, io::Result<ImageNote>) {
    let scratch = tempfile::tempdir().unwrap();
    let files = scratch.path().join("files");
    fs::create_dir(&files).unwrap();
    let note = unpack(&archive(scratch.path(), layers), &files);
    (scratch, files, note)
}

#[test]
fn later_layers_are_over_earlier_ones_and_whiteouts_remove() {
    let first = layer(&[
        Item::Folder("etc"),
        Item::File("etc/a", "one"),
        Item::File("etc/b", "one"),
        Item::Folder("old"),
        Item::File("old/x", "one"),
        Item::Folder("opaque"),
        Item::File("opaque/below", "one"),
        Item::File("bin/program", "p"),
        Item::Hardlink("bin/twin", "bin/program"),
        Item::Symlink("lib", "usr/lib"),
        Item::Folder("usr/lib"),
    ]);
    let second = layer(&[
        Item::File("etc/a", "two"),
        Item::File("etc/.wh.b", ""),
        Item::File(".wh.old", ""),
        Item::File("opaque/.wh..wh..opq", ""),
        Item::File("opaque/above", "two"),
        Item::File("lib/through", "two"),
    ]);

    let (_scratch, files, note) = unpacked(&[first, second]);

    let note = note.unwrap();
    assert_eq!(note.env, ["A=b"]);
    assert_eq!(note.command, ["/init", "x"]);
    assert_eq!(note.workdir, "/w");
    let read = |path: &str| fs::read_to_string(files.join(path)).ok();
    assert_eq!(read("etc/a").as_deref(), Some("two"));
    assert_eq!(read("etc/b"), None);
    assert!(!files.join("old").exists());
    assert_eq!(read("opaque/below"), None);
    assert_eq!(read("opaque/above").as_deref(), Some("two"));
    assert_eq!(read("bin/twin").as_deref(), Some("p"));
    assert_eq!(read("usr/lib/through").as_deref(), Some("two"));
    let mode = fs::metadata(files.join("bin/program"))
        .unwrap()
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o755);
}

#[test]
fn nothing_is_written_outside_the_folder() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "untouched").unwrap();
    let leaked: &'static str = Box::leak(outside.path().to_str().unwrap().into());
    let secret_path: &'static str = Box::leak(secret.to_str().unwrap().into());
    let table = [
        vec![Item::File("../escaped", "x")],
        vec![Item::File("/escaped", "x")],
        vec![Item::Symlink("out", leaked), Item::File("out/secret", "x")],
        vec![Item::Symlink("out", ".."), Item::File("out/escaped", "x")],
        vec![
            Item::Symlink("out", leaked),
            Item::File("out/.wh.secret", ""),
        ],
        vec![
            Item::Symlink("out", secret_path),
            Item::File("out", "written over the link"),
        ],
        vec![Item::Hardlink("out", secret_path), Item::File("out", "x")],
        vec![Item::File(".wh...", "")],
    ];
    for (at, items) in table.iter().enumerate() {
        let (scratch, _files, _either) = unpacked(&[layer(items)]);

        assert!(!scratch.path().join("escaped").exists(), "{at}");
        assert!(scratch.path().join("image.tar").exists(), "{at}");
        assert_eq!(fs::read_to_string(&secret).unwrap(), "untouched", "{at}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "{at}");
    }
}

#[test]
fn what_is_no_such_archive_is_told_why() {
    let scratch = tempfile::tempdir().unwrap();
    let text = scratch.path().join("text");
    fs::write(&text, "not an archive").unwrap();
    let error = unpack(&text, scratch.path()).unwrap_err().to_string();
    assert!(error.contains("no archive of an image"), "{error}");

    let whole = archive(scratch.path(), &[layer(&[Item::File("x", "content")])]);
    let bytes = fs::read(&whole).unwrap();
    fs::write(&text, &bytes[..1000]).unwrap();
    let error = unpack(&text, scratch.path()).unwrap_err().to_string();
    assert!(error.contains("it is cut off"), "{error}");

    fs::write(&text, gzip(b"not an archive")).unwrap();
    let error = unpack(&text, scratch.path()).unwrap_err().to_string();
    assert!(error.contains("gunzip first"), "{error}");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(Sha256::digest(bytes)))
}

/// Blobs of an OCI layout.
#[derive(Default)]
struct Blobs(Vec<(String, Vec<u8>)>);

impl Blobs {
    /// Adds a blob and returns its descriptor.
    fn add(&mut self, bytes: Vec<u8>) -> Value {
        let digest = sha256(&bytes);
        let size = bytes.len();
        let name = format!("./blobs/{}", digest.replace(':', "/"));
        self.0.push((name, bytes));
        json!({ "mediaType": "application/octet-stream", "digest": digest, "size": size })
    }

    /// Adds an image, and returns its descriptor.
    fn image(&mut self, layers: &[(Vec<u8>, Vec<u8>)]) -> Value {
        let known: Vec<String> = layers.iter().map(|(plain, _)| sha256(plain)).collect();
        let config = json!({
            "config": { "Env": ["A=b"] },
            "rootfs": { "type": "layers", "diff_ids": known },
        });
        let config = self.add(config.to_string().into());
        let layers: Vec<Value> = layers
            .iter()
            .map(|(_, stored)| self.add(stored.clone()))
            .collect();
        self.add(
            json!({ "config": config, "layers": layers })
                .to_string()
                .into(),
        )
    }

    /// Writes the archive of a layout with these images, as tar makes it of a folder.
    fn layout(mut self, folder: &Path, images: &[Value]) -> PathBuf {
        let index = json!({ "schemaVersion": 2, "manifests": images });
        self.0
            .push(("./index.json".to_owned(), index.to_string().into()));
        saved(folder, &self.0)
    }
}

fn with_platform(mut image: Value, os: &str, architecture: &str) -> Value {
    image["platform"] = json!({ "os": os, "architecture": architecture });
    image
}

fn files_of(scratch: &Path) -> PathBuf {
    let files = scratch.join("files");
    fs::create_dir(&files).unwrap();
    files
}

#[test]
fn layers_are_unpacked_however_they_are_compressed() {
    let layers = ["plain", "gzip", "zstd"].map(|name| layer(&[Item::File(name, "content")]));
    let [plain, gzipped, zstded] = &layers;
    // As two members, and as frames of which one has no content, which is what tools make that work in parallel.
    let (head, tail) = gzipped.split_at(700);
    let gzipped = [gzip(head), gzip(tail)].concat();
    let (head, tail) = zstded.split_at(700);
    let nothing = [
        &0x184D_2A53_u32.to_le_bytes()[..],
        &3_u32.to_le_bytes(),
        b"abc",
    ]
    .concat();
    let zstded = [nothing.clone(), zstd(head), nothing, zstd(tail)].concat();
    let stored = [plain.clone(), gzipped, zstded];
    let scratch = tempfile::tempdir().unwrap();
    let files = files_of(scratch.path());
    let known = layers.each_ref().map(|layer| sha256(layer));
    let known = json!({ "rootfs": { "diff_ids": known } });

    let note = unpack(&docker_archive(scratch.path(), &stored, &known), &files).unwrap();

    for name in ["plain", "gzip", "zstd"] {
        let content = fs::read_to_string(files.join(name));
        assert_eq!(content.ok().as_deref(), Some("content"), "{name}");
    }
    assert_eq!(note.bytes, 21);
}

#[test]
fn of_an_oci_layout_the_image_for_this_machine_is_taken() {
    let scratch = tempfile::tempdir().unwrap();
    let files = files_of(scratch.path());
    let plain = layer(&[Item::File("ours", "x")]);
    let other = layer(&[Item::File("theirs", "x")]);
    let mut blobs = Blobs::default();
    let ours = blobs.image(&[(plain.clone(), gzip(&plain))]);
    let theirs = blobs.image(&[(other.clone(), zstd(&other))]);
    let list = json!({ "manifests": [
        with_platform(theirs.clone(), OS, "sparc"),
        with_platform(ours, OS, architecture()),
        with_platform(theirs, "unknown", "unknown"),
    ] });
    let list = blobs.add(list.to_string().into());

    let note = unpack(&blobs.layout(scratch.path(), &[list]), &files).unwrap();

    assert_eq!(note.env, ["A=b"]);
    assert!(files.join("ours").exists());
    assert!(!files.join("theirs").exists());
}

#[test]
fn an_archive_of_which_not_one_image_can_be_taken_is_told_why() {
    let plain = layer(&[Item::File("x", "x")]);
    let mut blobs = Blobs::default();
    let image = blobs.image(&[(plain.clone(), plain)]);
    for (images, told) in [
        (vec![], "there is no image in it"),
        (
            vec![image.clone(), image.clone()],
            "it has 2 images; save one alone",
        ),
        (
            vec![with_platform(image, "linux", "sparc")],
            "but for linux/sparc",
        ),
        (
            vec![json!({ "digest": "sha512:00" })],
            "\"sha512:00\" in it is no SHA-256",
        ),
        (
            vec![json!({ "digest": sha256(b"nowhere") })],
            "is missing in it",
        ),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let files = files_of(scratch.path());
        let path = Blobs(blobs.0.clone()).layout(scratch.path(), &images);

        let error = unpack(&path, &files).unwrap_err().to_string();

        assert!(error.contains(told), "{told}: {error}");
    }
}

#[test]
fn what_is_not_what_the_image_says_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let plain = layer(&[Item::File("x", "x")]);
    let other = layer(&[Item::File("x", "y")]);
    let unpacked = |path: &Path, name: &str| {
        let files = scratch.path().join(name);
        fs::create_dir(&files).unwrap();
        unpack(path, &files).unwrap_err().to_string()
    };
    let mut blobs = Blobs::default();
    let image = blobs.image(&[(plain.clone(), gzip(&other))]);
    let exchanged = blobs.layout(scratch.path(), &[image]);

    let error = unpacked(&exchanged, "exchanged");

    assert!(error.contains("is damaged: its content is"), "{error}");

    let mut blobs = Blobs::default();
    let image = blobs.image(&[(plain.clone(), plain.clone())]);
    let manifest = blobs.0.last_mut().unwrap();
    manifest.1.push(b' ');
    let changed = blobs.layout(scratch.path(), &[image]);

    let error = unpacked(&changed, "changed");

    assert!(error.contains("is damaged: its content is"), "{error}");

    for (name, stored) in [("gzip", gzip(&plain)), ("zstd", zstd(&plain))] {
        let cut = stored[..stored.len() / 2].to_vec();
        let known = json!({ "rootfs": { "diff_ids": [sha256(&plain)] } });
        let cut = docker_archive(scratch.path(), &[cut], &known);

        let error = unpacked(&cut, name);

        assert!(error.starts_with("layer 0/layer.tar: "), "{error}");
    }

    let known = json!({ "rootfs": { "diff_ids": [sha256(&plain), sha256(&plain)] } });
    let short = docker_archive(scratch.path(), &[plain], &known);

    let error = unpacked(&short, "short");

    assert!(error.contains("it has 1 layers"), "{error}");
}

#[test]
fn a_layer_that_grows_beyond_all_bounds_is_refused() {
    let large: &'static str = Box::leak("x".repeat(1 << 20).into_boxed_str());
    let many: Vec<Item> = std::iter::repeat_with(|| Item::Folder("again"))
        .take(50)
        .collect();
    for (items, bounds) in [
        (
            vec![Item::File("large", large)],
            Bounds {
                bytes: 1 << 19,
                entries: 100,
            },
        ),
        (
            many,
            Bounds {
                bytes: 1 << 30,
                entries: 49,
            },
        ),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let files = files_of(scratch.path());
        let plain = layer(&items);
        for stored in [plain.clone(), gzip(&plain), zstd(&plain)] {
            let path = archive(scratch.path(), &[stored]);
            let mut archive = ImageArchive::open(&path, architecture()).unwrap();

            let refused = unpack_within(&mut archive, &files, bounds);

            let error = refused.unwrap_err().to_string();
            assert!(
                error.contains("more than an image may") || error.contains("too many"),
                "{error}"
            );
        }
    }
}
