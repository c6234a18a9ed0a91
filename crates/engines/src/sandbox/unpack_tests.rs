//! Archives as `docker save` writes them, and hostile ones.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use tar::{Builder, Header};

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

fn archive(folder: &Path, layers: &[Vec<u8>]) -> PathBuf {
    let path = folder.join("image.tar");
    let mut builder = Builder::new(File::create(&path).unwrap());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    let names: Vec<String> = (0..layers.len())
        .map(|n| format!("{n}/layer.tar"))
        .collect();
    for (name, layer) in names.iter().zip(layers) {
        add(name, layer);
    }
    add(
        "c.json",
        br#"{"config":{"Env":["A=b"],"Entrypoint":["/init"],"Cmd":["x"],"WorkingDir":"/w"}}"#,
    );
    let manifest = serde_json::json!([{ "Config": "c.json", "Layers": names, "RepoTags": null }]);
    add(MANIFEST, manifest.to_string().as_bytes());
    builder.finish().unwrap();
    path
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
    ];
    for (at, items) in table.iter().enumerate() {
        let (scratch, _files, _either) = unpacked(&[layer(items)]);

        assert!(!scratch.path().join("escaped").exists(), "{at}");
        assert_eq!(fs::read_to_string(&secret).unwrap(), "untouched", "{at}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "{at}");
    }
}

#[test]
fn what_is_no_such_archive_is_told_why() {
    let mut compressed = layer(&[Item::Folder("etc")]);
    compressed[..2].copy_from_slice(&GZIP);
    let (_scratch, _files, error) = unpacked(&[compressed]);
    assert!(error.unwrap_err().to_string().contains("compressed"));

    let scratch = tempfile::tempdir().unwrap();
    let text = scratch.path().join("text");
    fs::write(&text, "not an archive").unwrap();
    let error = unpack(&text, scratch.path()).unwrap_err().to_string();
    assert!(
        error.contains("manifest.json is missing") || error.contains("docker save"),
        "{error}"
    );
}
