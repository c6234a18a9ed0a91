//! The system calls that a sandbox has no use for.
//!
//! Owns: the lists: what Docker's profile refuses to a container without capabilities, and what injects into a terminal.
//! Reads: nothing.
//! Never: refuses what an agent's tools need: see the tests.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter, sock_filter,
};

use super::error::{Doing as _, ShimError};

/// Refused whatever their arguments are, with `EPERM`.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_get_mempolicy,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mbind,
    libc::SYS_migrate_pages,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_move_pages,
    libc::SYS_nfsservctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_set_mempolicy,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

/// The same for calls that only this architecture has.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[libc::c_long] = &[
    libc::SYS__sysctl,
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_sysfs,
    libc::SYS_uselib,
    libc::SYS_ustat,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[libc::c_long] = &[];

/// Namespaces that a new process may not get.
const NAMESPACES: &[libc::c_int] = &[
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWUTS,
];

/// Sockets that reach out of the network namespace: of virtual machines, and of the kernel's ciphers, which have had
/// more holes than uses.
const FAMILIES: &[libc::c_int] = &[libc::AF_ALG, libc::AF_VSOCK];

/// What types into a terminal.
const TERMINAL: &[libc::c_ulong] = &[libc::TIOCSTI, libc::TIOCLINUX];

/// The last system call that the lists know: `mseal` of Linux 6.10, on every architecture.
const NEWEST: u32 = 462;

/// The execution domains that a process may choose; all others are for emulations.
const PERSONALITIES: &[u64] = &[0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Refuses the calls to this process and to all that it starts. One made in the form of another architecture, as 32-bit
/// programs do, kills its process.
pub(super) fn restrict() -> Result<(), ShimError> {
    let doing = || "restrict the system calls".to_owned();
    let refused = refused().doing(doing)?;
    // Each may refuse; what one allows the other may refuse all the same.
    apply_filter(&missing()).doing(doing)?;
    apply_filter(&refused).doing(doing)
}

fn refused() -> Result<BpfProgram, seccompiler::BackendError> {
    let always = REFUSED.iter().chain(REFUSED_HERE);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        always.map(|call| (*call, Vec::new())).collect();
    let namespaces = NAMESPACES.iter().map(|flag| {
        let flag = u64::from(flag.unsigned_abs());
        only(
            0,
            SeccompCmpArgLen::Qword,
            SeccompCmpOp::MaskedEq(flag),
            flag,
        )
    });
    rules.insert(libc::SYS_clone, namespaces.collect::<Result<_, _>>()?);
    let families = FAMILIES.iter().map(|family| {
        let family = u64::from(family.unsigned_abs());
        only(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, family)
    });
    rules.insert(libc::SYS_socket, families.collect::<Result<_, _>>()?);
    let terminal = TERMINAL
        .iter()
        .map(|request| only(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, *request));
    rules.insert(libc::SYS_ioctl, terminal.collect::<Result<_, _>>()?);
    let personalities = PERSONALITIES
        .iter()
        .map(|known| SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, *known));
    let personalities = SeccompRule::new(personalities.collect::<Result<_, _>>()?)?;
    rules.insert(libc::SYS_personality, vec![personalities]);
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        std::env::consts::ARCH.try_into()?,
    )?;
    filter.try_into()
}

/// Returns a rule for one argument of a call.
fn only(
    argument: u8,
    length: SeccompCmpArgLen,
    compare: SeccompCmpOp,
    value: u64,
) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(
        argument, length, compare, value,
    )?])
}

/// Returns the filter of calls that look as if the kernel did not have them.
///
/// `clone3` has its flags in memory, where no filter sees them; libraries then use `clone`. Nobody has looked yet at what
/// newer calls than [`NEWEST`] let through. Numbers from 2^30 on are the same calls once more, for x32 programs. The list
/// of rules above cannot say "from": this is written by hand.
fn missing() -> BpfProgram {
    const LOAD: u16 = 0x20;
    const IF_EQUAL: u16 = 0x15;
    const IF_AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const ERROR: u32 = 0x0005_0000;
    let clone3 = u32::try_from(libc::SYS_clone3).unwrap_or(u32::MAX);
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        step(LOAD, 0, 0, 0),
        step(IF_EQUAL, 2, 0, clone3),
        step(IF_AT_LEAST, 1, 0, NEWEST + 1),
        step(RETURN, 0, 0, ALLOW),
        step(RETURN, 0, 0, ERROR | libc::ENOSYS.unsigned_abs()),
    ]
}
