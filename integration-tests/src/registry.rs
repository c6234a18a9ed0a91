//! A registry of images that does what a test wants: is slow, wants a login, has a damaged layer.
//!
//! Owns: a port of this machine, and the images that are offered there, each made of that of the scripted agent.
//! Reads: that image, as the engine saves it.
//! Never: takes an image; it ends with the test's process.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::agent_image;

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// What is sent of a blob at once, and how long a slow registry rests after it.
const CHUNK: usize = 64 << 10;
const REST: Duration = Duration::from_millis(50);

/// A registry on this machine.
#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    shelf: Arc<Mutex<Shelf>>,
}

/// What a registry has, and how it serves it.
#[derive(Debug, Default)]
struct Shelf {
    /// By tag, and by digest.
    manifests: HashMap<String, Vec<u8>>,
    /// By digest.
    blobs: HashMap<String, Vec<u8>>,
    /// What has to stand in the header `Authorization`.
    login: Option<String>,
    is_slow: bool,
    pulls: usize,
}

impl Registry {
    /// Opens an empty one.
    ///
    /// # Panics
    ///
    /// If there is no port for it.
    pub fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of this machine");
        let address = listener.local_addr().expect("its address");
        let shelf = Arc::<Mutex<Shelf>>::default();
        let served = Arc::clone(&shelf);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shelf = Arc::clone(&served);
                // Whoever hangs up in the middle has had enough.
                thread::spawn(move || serve(client, &shelf).unwrap_or_default());
            }
        });
        Self { address, shelf }
    }

    /// Offers the scripted agent's image under a tag, with a layer of so many bytes on top; returns its digest.
    ///
    /// # Panics
    ///
    /// If the engine does not have that image.
    pub fn offer(&self, tag: &str, bytes: usize) -> String {
        let (config, mut layers) = saved();
        let mut config: Value = serde_json::from_slice(&config).expect("a configuration is JSON");
        layers.push(ballast(&self.reference(tag), bytes));
        let mut shelf = self.shelf();
        let mut keep = |blob: Vec<u8>, kind: &str| {
            let (digest, size) = (digest(&blob), blob.len());
            shelf.blobs.insert(digest.clone(), blob);
            json!({ "mediaType": kind, "size": size, "digest": digest })
        };
        let layers: Vec<Value> = layers.into_iter().map(|layer| keep(layer, LAYER)).collect();
        // They are not compressed, so each is what it unpacks to.
        config["rootfs"]["diff_ids"] = layers.iter().map(|layer| layer["digest"].clone()).collect();
        config["history"] = layers
            .iter()
            .map(|_| json!({ "created_by": "a test" }))
            .collect();
        let config = keep(config.to_string().into_bytes(), CONFIG);
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
        let manifest = manifest.to_string().into_bytes();
        let name = digest(&manifest);
        shelf.manifests.insert(tag.to_owned(), manifest.clone());
        shelf.manifests.insert(name.clone(), manifest);
        name
    }

    /// Returns the reference of an image.
    pub fn reference(&self, tag: &str) -> String {
        format!("{}/agent:{tag}", self.address)
    }

    /// Returns its name in files of logins.
    pub fn name(&self) -> String {
        self.address.to_string()
    }

    /// Serves only those who log in; `basic` is user and password in base64, as files of logins have it.
    pub fn demand(&self, basic: &str) {
        self.shelf().login = Some(format!("Basic {basic}"));
    }

    /// Serves layers slowly, some 1.3 MB a second.
    pub fn slow_down(&self) {
        self.shelf().is_slow = true;
    }

    /// Sends another byte in place of the last one of every layer.
    pub fn damage(&self) {
        for blob in self.shelf().blobs.values_mut() {
            if let Some(last) = blob.last_mut().filter(|last| **last == 0) {
                *last = 1;
            }
        }
    }

    /// Returns how often an image was asked for.
    pub fn pulls(&self) -> usize {
        self.shelf().pulls
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers one request.
fn serve(mut client: TcpStream, shelf: &Mutex<Shelf>) -> std::io::Result<()> {
    let mut lines = BufReader::new(client.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let mut login = None;
    for line in lines {
        let line = line?;
        match line.split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                login = Some(value.to_owned());
            }
            Some(_) => {}
            None => break,
        }
    }
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let mut parts = path.trim_start_matches("/v2/").rsplit('/');
    let (name, kind) = (parts.next().unwrap_or(""), parts.next());
    let (status, headers, body, is_slow) = {
        let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.pulls += usize::from(kind == Some("manifests"));
        let manifest = shelf.manifests.get(name).cloned();
        let found = match kind {
            _ if shelf.login.is_some() && shelf.login != login => None,
            Some("manifests") => manifest.map(|manifest| (MANIFEST, manifest)),
            Some("blobs") => {
                let blob = shelf.blobs.get(name).cloned();
                blob.map(|blob| ("application/octet-stream", blob))
            }
            _ => Some(("application/json", b"{}".to_vec())),
        };
        match found {
            Some((kind, body)) => {
                let digest = digest(&body);
                let headers =
                    format!("Content-Type: {kind}\r\nDocker-Content-Digest: {digest}\r\n");
                ("200 OK", headers, body, shelf.is_slow)
            }
            None if shelf.login != login => {
                let headers = "WWW-Authenticate: Basic realm=\"test\"\r\n".to_owned();
                ("401 Unauthorized", headers, Vec::new(), false)
            }
            None => ("404 Not Found", String::new(), Vec::new(), false),
        }
    };
    write!(
        client,
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    if method == "HEAD" {
        return Ok(());
    }
    for chunk in body.chunks(CHUNK) {
        client.write_all(chunk)?;
        if is_slow {
            thread::sleep(REST);
        }
    }
    Ok(())
}

/// Returns the configuration and the layers of the scripted agent's image.
fn saved() -> (Vec<u8>, Vec<Vec<u8>>) {
    let saved = Command::new("docker")
        .args(["save", &agent_image()])
        .output()
        .expect("docker can be started");
    let mut files = HashMap::new();
    let mut archive = tar::Archive::new(saved.stdout.as_slice());
    for entry in archive.entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("its content");
        files.insert(path, content);
    }
    let manifest: Value = serde_json::from_slice(&files["manifest.json"]).expect("JSON");
    let file = |path: &Value| files[path.as_str().expect("a path")].clone();
    let layers = manifest[0]["Layers"].as_array().expect("layers");
    (
        file(&manifest[0]["Config"]),
        layers.iter().map(file).collect(),
    )
}

/// Makes a layer that no other image has.
fn ballast(reference: &str, bytes: usize) -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    for (name, content) in [
        ("reference", reference.as_bytes()),
        ("ballast", &vec![b'.'; bytes]),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(content.len()).expect("a size"));
        header.set_mode(0o644);
        layer
            .append_data(&mut header, name, content)
            .expect("room for it");
    }
    layer.into_inner().expect("an archive")
}

fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
