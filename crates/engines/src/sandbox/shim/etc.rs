//! What of the machine's `/etc` is in a sandbox.
//!
//! Owns: the lists; nothing on them is secret.
//! Reads: nothing.
//! Never: has a folder in which keys may be.

/// Folders, read-only.
pub(super) const FOLDERS: &[&str] = &[
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/fonts",
    "/etc/ld.so.conf.d",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/certs",
    "/etc/profile.d",
    "/etc/ssl/certs",
    "/etc/terminfo",
];

/// Files, as they are when the sandbox starts.
pub(super) const FILES: &[&str] = &[
    "/etc/bash.bashrc",
    "/etc/ca-certificates.conf",
    "/etc/debian_version",
    "/etc/ethertypes",
    "/etc/gai.conf",
    "/etc/group",
    "/etc/host.conf",
    "/etc/inputrc",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/localtime",
    "/etc/lsb-release",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/openssl.cnf",
    "/etc/profile",
    "/etc/protocols",
    "/etc/services",
    "/etc/shells",
    "/etc/ssl/cert.pem",
    "/etc/ssl/openssl.cnf",
    "/etc/timezone",
];
