//! Whose certificates are believed in a run's requests to providers.
//!
//! Owns: which variables say so, for whoever supervises.
//! Reads: whether what they name is there.
//! Never: reads a certificate: the guard does.

use std::fs;
use std::io;
use std::path::Path;

use dark_factory_executor::host::HostView;
use dark_factory_guard::Certificates;

/// The variables that name a file and folders with certificates, in place of the system's.
const FILE: &str = "SSL_CERT_FILE";
const FOLDERS: &str = "SSL_CERT_DIR";

/// Returns the certificates that the host's environment names; the system's, if it names none. Blocks.
///
/// # Errors
///
/// `InvalidInput` if what it names is not there, or may not be read.
pub(crate) fn named(host: &HostView) -> io::Result<Certificates> {
    let set = |variable| host.var(variable).filter(|value| !value.is_empty());
    let found = |variable: &str, path: &Path, looked: io::Result<()>| {
        looked.map_err(|error| {
            let why = format!(
                "{variable} names {} for the certificates to believe, which cannot be read: {error}",
                path.display()
            );
            io::Error::new(io::ErrorKind::InvalidInput, why)
        })
    };
    let mut certificates = Certificates::default();
    if let Some(file) = set(FILE) {
        let file = host.absolute(Path::new(file));
        found(FILE, &file, fs::File::open(&file).map(drop))?;
        certificates.file = Some(file);
    }
    let folders = set(FOLDERS).map(std::env::split_paths);
    for folder in folders.into_iter().flatten() {
        if folder.as_os_str().is_empty() {
            continue;
        }
        let folder = host.absolute(&folder);
        found(FOLDERS, &folder, fs::read_dir(&folder).map(drop))?;
        certificates.folders.push(folder);
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(variables: &[(&str, &str)]) -> HostView {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        HostView {
            env: variables.iter().map(pair).collect(),
            cwd: "/".into(),
            ..HostView::default()
        }
    }

    #[test]
    fn what_the_environment_names_is_told_and_what_is_not_there_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), "").unwrap();
        let file = folder.path().join("ca.pem").display().to_string();

        let place = folder.path().display().to_string();
        let both = named(&host(&[(FILE, &file), (FOLDERS, &format!("{place}:/"))]));
        let none = named(&host(&[(FILE, "")]));
        let absent = named(&host(&[(FILE, "/no/such.pem")])).unwrap_err();

        let both = both.unwrap();
        assert_eq!(both.file.as_deref(), Some(Path::new(&file)));
        assert_eq!(both.folders, [folder.path(), Path::new("/")]);
        assert_eq!(none.unwrap(), Certificates::default());
        assert_eq!(absent.kind(), io::ErrorKind::InvalidInput);
        let text = absent.to_string();
        assert!(
            text.contains("SSL_CERT_FILE") && text.contains("/no/such.pem"),
            "{text}"
        );
    }
}
