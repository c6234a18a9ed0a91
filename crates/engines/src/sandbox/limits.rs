//! The limits of sandboxes: control groups of either version, and what a process is limited to where there are none.
//!
//! Owns: the groups of sandboxes, from their making to their removal.
//! Reads: where our own process is in the hierarchies: a sandbox is below it, so that no limit of ours is escaped.
//! Never: changes a group that it did not make.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dark_factory_executor::engine::LimitKind;
use dark_factory_executor::spec::Limits;
use dark_factory_types::{ByteSize, CpuCount};
use rustix::fs::{Access, access};
use rustix::process::{Signal, getuid, kill_process};
use uuid::Uuid;

use super::config::{CgroupSetting, SandboxLimits};

/// Microseconds in which a group may use its CPU time.
const PERIOD: u64 = 100_000;
/// What a limit is tried with.
const TRIED: Limits = Limits {
    memory: Some(ByteSize(64 << 20)),
    cpus: Some(CpuCount {
        nanos: 1_000_000_000,
    }),
    pids: Some(64),
    disk: None,
    file_size: None,
    open_files: None,
    timeout: None,
    idle: None,
    log: None,
};

/// What the names of groups begin with that are only tried; the process's id follows.
const TRIED_BY: &str = "dark-factory-tried-by-";

/// A version of control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    /// A hierarchy for each controller.
    One,
    /// One hierarchy.
    Two,
}

/// A hierarchy that is mounted, and where we are in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    version: Version,
    /// Of the first version, its controllers.
    controllers: Vec<String>,
    mounted: PathBuf,
    own: PathBuf,
}

/// A group in which groups can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parent {
    version: Version,
    controllers: Vec<String>,
    folder: PathBuf,
}

/// Returns how a sandbox's limits are kept on this machine; nothing is made.
pub(super) fn plan(limits: &Limits) -> SandboxLimits {
    plan_below(limits, &parents())
}

fn plan_below(limits: &Limits, parents: &[Parent]) -> SandboxLimits {
    let name = format!("dark-factory-{}", Uuid::new_v4().simple());
    plan_named(&name, limits, parents)
}

fn plan_named(name: &str, limits: &Limits, parents: &[Parent]) -> SandboxLimits {
    let mut plan = SandboxLimits::default();
    let mut kept = Vec::new();
    for parent in parents {
        let folder = parent.folder.join(name);
        for controller in &parent.controllers {
            let settings = settings(parent.version, controller, limits);
            if !settings.is_empty() {
                kept.push(controller.as_str());
            }
            plan.settings
                .extend(settings.into_iter().map(|(file, value)| CgroupSetting {
                    file: folder.join(file),
                    value,
                }));
        }
        plan.cgroups.push(folder);
    }
    if !kept.contains(&"memory") {
        plan.data = limits.memory;
    }
    if !kept.contains(&"pids") {
        plan.processes = limits.pids.map(u64::from);
    }
    plan
}

/// Returns the files of a group in which a controller's limit is, and what it is.
fn settings(version: Version, controller: &str, limits: &Limits) -> Vec<(&'static str, String)> {
    let memory = limits.memory.map(|size| size.0.to_string());
    let quota = limits
        .cpus
        .map(|cpus| (cpus.nanos.saturating_mul(PERIOD) / 1_000_000_000).max(1000));
    let pids = limits.pids.map(|pids| pids.to_string());
    let found = match (version, controller) {
        (Version::One, "memory") => memory.map(|memory| {
            vec![
                ("memory.limit_in_bytes", memory.clone()),
                ("memory.memsw.limit_in_bytes", memory),
            ]
        }),
        (Version::Two, "memory") => {
            memory.map(|memory| vec![("memory.max", memory), ("memory.swap.max", "0".to_owned())])
        }
        (Version::One, "cpu") => quota.map(|quota| {
            vec![
                ("cpu.cfs_period_us", PERIOD.to_string()),
                ("cpu.cfs_quota_us", quota.to_string()),
            ]
        }),
        (Version::Two, "cpu") => quota.map(|quota| vec![("cpu.max", format!("{quota} {PERIOD}"))]),
        (_, "pids") => pids.map(|pids| vec![("pids.max", pids)]),
        _ => None,
    };
    found.unwrap_or_default()
}

/// Makes the groups of a sandbox and sets their limits; may be done again.
pub(super) fn prepare(limits: &SandboxLimits) -> io::Result<()> {
    for group in &limits.cgroups {
        match fs::create_dir(group) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(with_path(group, &error));
            }
            _ => {}
        }
    }
    for setting in &limits.settings {
        // A machine without swap has no file for it.
        let is_swap = ["memory.memsw.limit_in_bytes", "memory.swap.max"]
            .iter()
            .any(|name| setting.file.ends_with(name));
        if is_swap && !setting.file.exists() {
            continue;
        }
        fs::write(&setting.file, &setting.value)
            .map_err(|error| with_path(&setting.file, &error))?;
    }
    Ok(())
}

/// Kills what is left in the groups of a sandbox that has ended.
pub(super) fn kill(limits: &SandboxLimits) {
    for group in &limits.cgroups {
        let members = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        for pid in members.lines().filter_map(|line| line.parse().ok()) {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                // One that has ended meanwhile is what was wanted.
                let _killed = kill_process(pid, Signal::KILL);
            }
        }
    }
    thaw(limits);
}

/// Lets the groups of a sandbox go on, so that what was killed in them dies: in the first version nothing frozen does.
pub(super) fn thaw(limits: &SandboxLimits) {
    for state in limits
        .cgroups
        .iter()
        .map(|group| group.join("freezer.state"))
    {
        if let Err(error) = fs::write(&state, "THAWED") {
            tracing::debug!(%error, file = %state.display(), "no freezer to thaw");
        }
    }
}

/// Removes the groups of a sandbox, and returns whether they are gone: a group stays as long as something in it dies.
pub(super) fn remove(limits: &SandboxLimits) -> bool {
    let mut is_done = true;
    for group in &limits.cgroups {
        match fs::remove_dir(group) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(%error, group = %group.display(), "a control group stays");
                is_done = false;
            }
            _ => {}
        }
    }
    is_done
}

/// Removes the groups that were tried by processes that did not live to remove them.
fn clear_tried(parents: &[Parent]) {
    for parent in parents {
        let entries = fs::read_dir(&parent.folder).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name();
            let by = name.to_str().and_then(|name| name.strip_prefix(TRIED_BY));
            let Some((pid, _)) = by.and_then(|by| by.split_once('-')) else {
                continue;
            };
            if !Path::new("/proc").join(pid).exists() {
                // Somebody else may do the same in this moment.
                let _gone = fs::remove_dir(entry.path());
            }
        }
    }
}

/// Returns the limits that this machine keeps, by trying.
pub(super) fn kept() -> Vec<LimitKind> {
    let parents = parents();
    clear_tried(&parents);
    let name = format!(
        "{TRIED_BY}{}-{}",
        std::process::id(),
        Uuid::new_v4().simple()
    );
    let plan = plan_named(&name, &TRIED, &parents);
    let mut kept = Vec::new();
    let kinds = [
        ("memory.", LimitKind::Memory),
        ("cpu.", LimitKind::Cpus),
        ("pids.", LimitKind::Pids),
    ];
    for (prefix, kind) in kinds {
        let is_of = |setting: &&CgroupSetting| {
            let name = setting.file.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(prefix))
        };
        let settings: Vec<CgroupSetting> = plan.settings.iter().filter(is_of).cloned().collect();
        let alone = SandboxLimits {
            settings,
            ..plan.clone()
        };
        if !alone.settings.is_empty() && prepare(&alone).is_ok() {
            kept.push(kind);
        }
    }
    // Nothing was ever in them.
    let _gone = remove(&plan);
    // In a user namespace of its own, the processes of a user who is not root are counted by sandbox.
    if !getuid().is_root() && !kept.contains(&LimitKind::Pids) {
        kept.push(LimitKind::Pids);
    }
    kept
}

/// Returns how each limit is kept, for people, where those of `kept` are.
pub(super) fn means(kept: &[LimitKind]) -> [(LimitKind, String); 3] {
    means_below(kept, &parents())
}

fn means_below(kept: &[LimitKind], parents: &[Parent]) -> [(LimitKind, String); 3] {
    LimitKind::ALL.map(|kind| {
        let controller = match kind {
            LimitKind::Memory => "memory",
            LimitKind::Cpus => "cpu",
            LimitKind::Pids => "pids",
        };
        let has = |parent: &&Parent| parent.controllers.iter().any(|name| name == controller);
        let means = match (parents.iter().find(has), kind) {
            (Some(parent), _) if kept.contains(&kind) => {
                let version = match parent.version {
                    Version::One => 1,
                    Version::Two => 2,
                };
                format!("by control groups of version {version}")
            }
            (_, LimitKind::Pids) if kept.contains(&kind) => {
                "by rlimit, in a user namespace".to_owned()
            }
            _ => "not kept".to_owned(),
        };
        (kind, means)
    })
}

/// Returns what would let this process make control groups.
pub(super) fn advice() -> String {
    let is_second = fs::read_to_string("/proc/self/mountinfo").is_ok_and(|mounts| {
        let of_second = |line: &str| {
            let kind = line.split_once(" - ");
            kind.is_some_and(|(_, kind)| kind.starts_with("cgroup2 "))
        };
        let of_first = |line: &str| {
            let kind = line.split_once(" - ");
            kind.is_some_and(|(_, kind)| kind.starts_with("cgroup ") && kind.contains("memory"))
        };
        mounts.lines().any(of_second) && !mounts.lines().any(of_first)
    });
    match is_second {
        true => "control groups must be handed on to us: start us by `systemd-run --user --scope -p Delegate=yes`, or as \
                 a service of systemd with Delegate=yes"
            .to_owned(),
        false => "control groups of version 1 are for root alone: run us as root, or boot with control groups of \
                  version 2 (`systemd.unified_cgroup_hierarchy=1`) and have them handed on to us"
            .to_owned(),
    }
}

fn with_path(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Returns the groups in which we can make groups: at most one for each controller.
fn parents() -> Vec<Parent> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let found = hierarchies(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
    one_for_each(found.iter().filter_map(usable).collect())
}

/// Takes of these groups what is first for a controller.
fn one_for_each(mut found: Vec<Parent>) -> Vec<Parent> {
    // Beside the first version, the second is for systemd, and has no controllers. It would freeze, as the first does, and
    // is slow to join.
    found.sort_by_key(|parent| parent.version == Version::Two && parent.controllers == [FREEZER]);
    let mut parents: Vec<Parent> = Vec::new();
    for parent in found {
        let is_new = |controller: &String| {
            !parents
                .iter()
                .any(|parent| parent.controllers.contains(controller))
        };
        let controllers: Vec<String> = parent
            .controllers
            .iter()
            .filter(|controller| is_new(controller))
            .cloned()
            .collect();
        if !controllers.is_empty() {
            parents.push(Parent {
                controllers,
                ..parent
            });
        }
    }
    parents
}

/// Returns the nearest group, from our own upward, in which we can make groups.
fn usable(hierarchy: &Hierarchy) -> Option<Parent> {
    let mut groups = hierarchy
        .own
        .ancestors()
        .take_while(|group| group.starts_with(&hierarchy.mounted));
    groups.find_map(|group| {
        let is_writable = |path: &Path| access(path, Access::WRITE_OK).is_ok();
        if !is_writable(group) {
            return None;
        }
        let controllers = match hierarchy.version {
            Version::One => hierarchy.controllers.clone(),
            // What moves a process needs a group above both places; and only what is handed on has its files below.
            Version::Two if is_writable(&group.join("cgroup.procs")) => {
                let handed_on = fs::read_to_string(group.join("cgroup.subtree_control")).ok()?;
                let handed_on = handed_on.split_ascii_whitespace().map(str::to_owned);
                let all: Vec<String> = handed_on.collect();
                if all.is_empty() && group != hierarchy.mounted {
                    return None;
                }
                // Freezing needs no controller.
                all.into_iter().chain([FREEZER.to_owned()]).collect()
            }
            Version::Two => return None,
        };
        Some(Parent {
            version: hierarchy.version,
            controllers,
            folder: group.to_owned(),
        })
    })
}

/// The controllers of the first version that a sandbox has a use for.
const CONTROLLERS: [&str; 5] = ["memory", "cpu", "cpuacct", "pids", FREEZER];
/// What freezes: a controller of the first version, and of every group of the second.
const FREEZER: &str = "freezer";

/// Reads which hierarchies are mounted, the second version's first, and where we are in each.
fn hierarchies(mountinfo: &str, own: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = mountinfo
        .lines()
        .filter_map(|line| hierarchy(line, own))
        .collect();
    found.sort_by_key(|hierarchy| hierarchy.version == Version::One);
    found
}

fn hierarchy(line: &str, own: &str) -> Option<Hierarchy> {
    let (place, kind) = line.split_once(" - ")?;
    let place: Vec<&str> = place.split(' ').collect();
    let [root, mounted] = [place.get(3)?, place.get(4)?];
    let mut kind = kind.split(' ');
    let version = match kind.next()? {
        "cgroup" => Version::One,
        "cgroup2" => Version::Two,
        _ => return None,
    };
    let options: Vec<&str> = kind.nth(1)?.split(',').collect();
    let controllers: Vec<String> = CONTROLLERS
        .into_iter()
        .filter(|name| version == Version::One && options.contains(name))
        .map(str::to_owned)
        .collect();
    if version == Version::One && controllers.is_empty() {
        return None;
    }
    let path = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (names, path) = (fields.next()?, fields.next()?);
        let is_it = match controllers.first() {
            Some(controller) => names.split(',').any(|name| name == controller),
            None => names.is_empty(),
        };
        is_it.then_some(path)
    })?;
    let mounted = PathBuf::from(mounted);
    // Of another namespace's hierarchy only the part below its root can be seen.
    let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
    Some(Hierarchy {
        version,
        controllers,
        own: mounted.join(below),
        mounted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_a_limit_is_said() {
        let parent = |version, controller: &str| Parent {
            version,
            controllers: vec![controller.to_owned()],
            folder: "/g".into(),
        };
        let parents = [parent(Version::One, "memory"), parent(Version::Two, "cpu")];

        let all = means_below(&LimitKind::ALL, &parents);
        let none = means_below(&[], &parents);

        assert_eq!(
            all.map(|(_, means)| means),
            [
                "by control groups of version 1",
                "by control groups of version 2",
                "by rlimit, in a user namespace",
            ]
        );
        assert!(none.iter().all(|(_, means)| means == "not kept"));
    }

    #[test]
    fn hierarchies_are_found_with_our_place_in_each() {
        let mountinfo = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            35 31 0:32 /outer /sys/fs/cgroup/memory rw,relatime shared:4 - cgroup cgroup rw,memory\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let own = "9:name=systemd:/\n4:memory:/outer/ours\n0::/user.slice\n";

        let found = hierarchies(mountinfo, own);

        let places: Vec<(&str, Vec<String>)> = found
            .iter()
            .map(|found| (found.own.to_str().unwrap(), found.controllers.clone()))
            .collect();
        assert_eq!(
            places,
            [
                ("/sys/fs/cgroup/unified/user.slice", vec![]),
                ("/sys/fs/cgroup/memory/ours", vec!["memory".to_owned()]),
            ]
        );
    }

    #[test]
    fn a_second_version_without_controllers_is_only_taken_for_what_the_first_has_not() {
        let parent = |version, controllers: &[&str]| Parent {
            version,
            controllers: controllers.iter().map(|name| (*name).to_owned()).collect(),
            folder: "/g".into(),
        };
        let bare = parent(Version::Two, &["freezer"]);
        let whole = parent(Version::Two, &["memory", "freezer"]);
        let [memory, freezer] = ["memory", "freezer"].map(|name| parent(Version::One, &[name]));

        let all = one_for_each(vec![bare.clone(), memory.clone(), freezer.clone()]);
        let unfrozen = one_for_each(vec![bare.clone(), memory.clone()]);
        let mixed = one_for_each(vec![whole.clone(), freezer.clone()]);

        assert_eq!(all, [memory.clone(), freezer]);
        assert_eq!(unfrozen, [memory, bare]);
        assert_eq!(mixed, [whole]);
    }

    #[test]
    fn a_limit_is_a_groups_setting_where_there_is_one_and_else_a_processs() {
        let parent = |version, controllers: &[&str]| Parent {
            version,
            controllers: controllers.iter().map(|name| (*name).to_owned()).collect(),
            folder: "/g".into(),
        };
        let values = |parents: &[Parent]| {
            let plan = plan_below(&TRIED, parents);
            let values: Vec<String> = plan
                .settings
                .iter()
                .map(|setting| {
                    let name = setting.file.file_name().unwrap().to_str().unwrap();
                    format!("{name}={}", setting.value)
                })
                .collect();
            (values.join(" "), plan.data.is_some(), plan.processes)
        };

        let table = [
            (vec![], "", true, Some(64)),
            (
                vec![parent(Version::Two, &["cpu", "memory", "pids"])],
                "cpu.max=100000 100000 memory.max=67108864 memory.swap.max=0 pids.max=64",
                false,
                None,
            ),
            (
                vec![
                    parent(Version::One, &["memory"]),
                    parent(Version::One, &["cpu", "cpuacct"]),
                ],
                "memory.limit_in_bytes=67108864 memory.memsw.limit_in_bytes=67108864 \
                 cpu.cfs_period_us=100000 cpu.cfs_quota_us=100000",
                false,
                Some(64),
            ),
        ];
        for (parents, settings, data, processes) in table {
            assert_eq!(
                values(&parents),
                (settings.to_owned(), data, processes),
                "{parents:?}"
            );
        }
    }
}
