//! The root file system of a sandbox.
//!
//! Owns: the order in which it is put together.
//! Reads: the configuration.
//! Never: leaves a way to the host's files but those that the configuration names.

use std::fs;
use std::path::Path;

use dark_factory_executor::spec::Access;
use nix::mount::MsFlags;
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::super::config::{Network, Root, SandboxConfig};
use super::cgroups;
use super::error::{Doing as _, ShimError};
use super::host_root;
use super::mounts::{Protection, Tree};
use super::namespaces::Privilege;

/// The folder in the sandbox's folder on which its root is put together.
const STAGING: &str = "root";

/// The folder of the sandbox with the files that say what is called how.
const NAMES: &str = "/.dark-factory/etc";

const DEVICES: &[&str] = &[
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
];
const DEVICE_LINKS: &[(&str, &str)] = &[
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];
/// The group that terminals belong to by custom.
const TTY_GROUP: u32 = 5;

/// What the kernel tells of the whole machine: the lists of Docker.
const HIDDEN: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
];
const READ_ONLY: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Puts the root together and enters it; what is in it is read-only from then on, but for what the configuration
/// makes writable.
pub(super) fn enter(
    folder: &Path,
    config: &SandboxConfig,
    privilege: Privilege,
) -> Result<(), ShimError> {
    let staging = folder.join(STAGING);
    fs::create_dir_all(&staging).doing(|| format!("make {}", staging.display()))?;
    let mut tree = Tree::begin(&staging)?;
    match &config.root {
        Root::Host => host_root::fill(&mut tree)?,
        Root::Folder(from) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let from = openat(CWD, from, flags, Mode::empty())
                .doing(|| format!("open the root file system {}", from.display()))?;
            tree.fill(Path::new("/"), &from)?;
        }
    }
    names(&mut tree, config)?;
    devices(&mut tree, privilege)?;
    processes(&mut tree)?;
    for group in &config.limits.cgroups {
        if let Some(target) = cgroups::target(group) {
            tree.bind(group, &target, Access::ReadOnly)?;
        }
    }
    for memory in &config.tmpfs {
        let options = format!(
            "size={},nr_inodes={},mode={:o},uid={},gid={}",
            memory.size.0, memory.files, memory.mode, config.uid, config.gid
        );
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        tree.mount(&memory.target, "tmpfs", flags, &options)?;
    }
    for bind in &config.binds {
        tree.bind(&bind.source, &bind.target, bind.access)?;
    }
    tree.folder(Path::new(&config.workdir))?;
    tree.seal()?;
    tree.enter()
}

/// Says what the machine is called, and who else can be reached by name, as a container engine does.
fn names(tree: &mut Tree, config: &SandboxConfig) -> Result<(), ShimError> {
    let hostname = &config.hostname;
    let hosts = match config.network {
        Network::Loopback => loopback_hosts(hostname).into_bytes(),
        Network::Host => fs::read("/etc/hosts").unwrap_or_default(),
    };
    let resolvers = fs::read("/etc/resolv.conf").unwrap_or_default();
    for (name, content) in [
        ("hostname", format!("{hostname}\n").into_bytes()),
        ("hosts", hosts),
        ("resolv.conf", resolvers),
    ] {
        let written = Path::new(NAMES).join(name);
        tree.write(&written, &content)?;
        tree.show(&written, &Path::new("/etc").join(name))?;
    }
    Ok(())
}

fn loopback_hosts(hostname: &str) -> String {
    format!("127.0.0.1 localhost {hostname}\n::1 localhost ip6-localhost ip6-loopback\n")
}

fn devices(tree: &mut Tree, privilege: Privilege) -> Result<(), ShimError> {
    // What an unpacked image has there are no devices.
    tree.memory(Path::new("/dev"), "mode=755,size=64k")?;
    for device in DEVICES {
        tree.device(Path::new(device))?;
    }
    for (path, to) in DEVICE_LINKS {
        tree.link(Path::new(path), Path::new(to))?;
    }
    let terminals = match privilege {
        Privilege::Root => format!("newinstance,ptmxmode=0666,mode=0620,gid={TTY_GROUP}"),
        // The group is nobody's in a user namespace.
        Privilege::User => "newinstance,ptmxmode=0666,mode=0620".to_owned(),
    };
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    tree.mount(Path::new("/dev/pts"), "devpts", flags, &terminals)?;
    let flags = flags | MsFlags::MS_NODEV;
    // No more files than pages, or the kernel's part of them would be what has no limit.
    let room = "mode=1777,size=64m,nr_inodes=16k";
    tree.mount(Path::new("/dev/shm"), "tmpfs", flags, room)
}

fn processes(tree: &mut Tree) -> Result<(), ShimError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    tree.mount(Path::new("/proc"), "proc", flags, "")?;
    for path in HIDDEN {
        tree.protect(Path::new(path), Protection::Hidden)?;
    }
    for path in READ_ONLY {
        tree.protect(Path::new(path), Protection::ReadOnly)?;
    }
    Ok(())
}
