//! What a sandbox may use.

use std::path::{Path, PathBuf};

use dark_factory_engines::sandbox::config::{Ended, SandboxLimits};
use dark_factory_types::ByteSize;

use crate::both;
use crate::lab::{Lab, Who};

/// Takes more and more memory, up to 200 MB.
const HUNGRY: &str = "perl -e '$x .= \"x\" x 1000000 for 1..200; print \"full\\n\"'";

both! {
    fn limits_of_processes_hold_for_all_of_them_and_cannot_be_raised(who) {
        let mut lab = Lab::new(who);
        lab.config.limits = SandboxLimits {
            data: Some(ByteSize(64 << 20)),
            processes: Some(12_345),
            ..SandboxLimits::default()
        };

        let said = lab.output_of(&format!(
            "ulimit -Hd; ulimit -Sd; ulimit -Hp; ulimit -d unlimited 2>/dev/null && echo raised; \
             {HUNGRY} 2>/dev/null || echo hungry",
        ));

        assert_eq!(said, "65536\n65536\n12345\nhungry\n");
    }

    fn shared_memory_holds_no_more_files_than_pages(who) {
        let mut lab = Lab::new(who);

        let said = lab.output_of("stat -f -c '%b %c' /dev/shm");

        assert_eq!(said, "16384 16384\n");
    }
}

/// A group of the machine's memory controller, removed with the test.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    fn new(name: &str, limit: u64) -> Self {
        let first = Path::new("/sys/fs/cgroup/memory");
        let (root, file) = if first.exists() {
            (first, "memory.limit_in_bytes")
        } else {
            (Path::new("/sys/fs/cgroup"), "memory.max")
        };
        let group = root.join(format!("dark-factory-test-{name}"));
        std::fs::create_dir_all(&group).unwrap();
        std::fs::write(group.join(file), limit.to_string()).unwrap();
        Self(group)
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _removed = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn what_the_kernel_kills_for_lack_of_memory_is_recorded() {
    let group = MemoryGroup::new("oom", 50 << 20);
    let mut lab = Lab::new(Who::Root);
    lab.config.limits.cgroups.push(group.0.clone());
    lab.script(&format!("{HUNGRY}; exit $?"));

    let exit = lab.run();

    assert!(exit.oom_killed, "{exit:?}: {}", lab.output());
    assert_eq!(exit.ended, Ended::Code(137));
}

#[test]
fn a_sandbox_sees_its_own_control_group_where_programs_look() {
    let group = MemoryGroup::new("seen", 77 << 20);
    let mut lab = Lab::new(Who::Root);
    lab.config.limits.cgroups.push(group.0.clone());

    let said = lab.output_of(
        "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory.max 2>/dev/null; \
         cat memory/cgroup.procs cgroup.procs 2>/dev/null | grep -cx 1; \
         grep -c 'dark-factory' /proc/self/cgroup; (echo 1 >memory/cgroup.procs) 2>/dev/null && echo wrote; true",
    );

    assert_eq!(said, format!("{}\n1\n0\n", 77 << 20));
}

#[test]
fn what_is_executed_in_a_sandbox_is_in_its_control_group() {
    let group = MemoryGroup::new("exec", 50 << 20);
    let mut lab = Lab::new(Who::Root);
    lab.config.limits.cgroups.push(group.0.clone());
    let mut shim = lab.start("");

    let output = lab.exec(&["sh", "-c", HUNGRY]);

    assert!(!output.status.success(), "{output:?}");
    shim.kill().unwrap();
    shim.wait().unwrap();
    // The group is empty only when the kernel is done with the dead.
    crate::lab::eventually("the group is empty", || {
        std::fs::read_to_string(group.0.join("cgroup.procs")).unwrap() == ""
    });
}
