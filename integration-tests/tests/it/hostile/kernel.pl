# Asks the kernel for what only an administrator of the host may have.
my %numbers = (POSIX::uname())[4] eq 'aarch64'
    ? (acct => 89, add_key => 217, bpf => 280, capset => 91, chroot => 51, clock_settime => 112,
       delete_module => 106, fanotify_init => 262, finit_module => 273, fsopen => 430, init_module => 105,
       kexec_load => 104, keyctl => 219, mount => 40, move_mount => 429, open_by_handle_at => 265, open_tree => 428,
       perf_event_open => 241, pivot_root => 41, quotactl => 60, reboot => 142, request_key => 218, setgroups => 159,
       sethostname => 161, setns => 268, setuid => 146, swapon => 224, syslog => 116, umount2 => 39, unshare => 97,
       userfaultfd => 282, prctl => 167, mknodat => 33, setxattr => 5)
    : (acct => 163, add_key => 248, bpf => 321, capset => 126, chroot => 161, clock_settime => 227,
       delete_module => 176, fanotify_init => 300, finit_module => 313, fsopen => 430, init_module => 175,
       kexec_load => 246, keyctl => 250, mount => 165, move_mount => 429, open_by_handle_at => 304, open_tree => 428,
       perf_event_open => 298, pivot_root => 155, quotactl => 179, reboot => 169, request_key => 249, setgroups => 116,
       sethostname => 170, setns => 308, setuid => 105, swapon => 167, syslog => 103, umount2 => 166, unshare => 272,
       userfaultfd => 323, prctl => 157, mknodat => 259, setxattr => 188);

sub try {
    my ($name, $call, @arguments) = @_;
    $! = 0;
    my $result = syscall($numbers{$call}, @arguments);
    attempt($name, $result == -1 ? undef : "with $result");
}

my $here = -100;
my $time = pack('qq', 0, 0);
# What version 3 of the capabilities looks like: every one of them.
my ($head, $all) = (pack('Li', 0x20080522, 0), pack('L6', (0xffffffff, 0xffffffff, 0xffffffff) x 2));
my $groups = pack('L', 0);

try('mount', 'mount', "none\0", "/tmp\0", "tmpfs\0", 0, 0);
try('mount-bind', 'mount', "/proc\0", "/tmp\0", 0, 4096, 0);
try('remount-root', 'mount', 0, "/\0", 0, 32 | 4096, 0);
try('umount', 'umount2', "/.dark-factory/attempt\0", 2);
try('pivot-root', 'pivot_root', "/tmp\0", "/tmp\0");
try('fsopen', 'fsopen', "tmpfs\0", 0);
try('open-tree', 'open_tree', $here, "/\0", 1);
# Newer than any list of what may be called, and the same number everywhere.
$numbers{open_tree_attr} = 467;
try('open-tree-attr', 'open_tree_attr', $here, "/\0", 1, 0, 0);
try('move-mount', 'move_mount', $here, "/tmp\0", $here, "/home\0", 0);
try('chroot', 'chroot', "/tmp\0");
try('unshare-user', 'unshare', 0x10000000);
try('unshare-mount', 'unshare', 0x00020000);
try('unshare-net', 'unshare', 0x40000000);
opendir(my $namespaces, '/proc/self/ns');
sysopen(my $namespace, '/proc/self/ns/net', O_RDONLY);
try('setns', 'setns', fileno($namespace), 0);
try('setuid', 'setuid', 0);
try('setgroups', 'setgroups', 1, $groups);
try('capset', 'capset', $head, $all);
try('privileges-back', 'prctl', 38, 0, 0, 0, 0);
try('bpf', 'bpf', 0, 0, 0);
try('keyctl', 'keyctl', 0, -3, 1);
try('add-key', 'add_key', "user\0", "name\0", "x", 1, -3);
try('request-key', 'request_key', "user\0", "name\0", 0, 0);
try('perf-event', 'perf_event_open', 0, 0, -1, -1, 0);
try('userfaultfd', 'userfaultfd', 0);
try('open-by-handle', 'open_by_handle_at', $here, 0, 0);
try('fanotify', 'fanotify_init', 0, 0);
try('init-module', 'init_module', 0, 0, "\0");
try('finit-module', 'finit_module', 0, "\0", 0);
try('delete-module', 'delete_module', "x\0", 0);
try('kexec', 'kexec_load', 0, 0, 0, 0);
try('reboot', 'reboot', 0xfee1dead - 2**32, 672274793, 0, 0);
try('swapon', 'swapon', "/tmp/x\0", 0);
try('acct', 'acct', "/tmp/x\0");
try('quotactl', 'quotactl', 0, 0, 0, 0);
try('clock', 'clock_settime', 0, $time);
try('host-name', 'sethostname', "x", 1);
try('kernel-log', 'syslog', 3, my $log = ' ' x 100, 100);
# The device of the kernel's memory, and of the first disk.
try('device-memory', 'mknodat', $here, "/workspace/mem\0", 020666, 0x101);
try('device-disk', 'mknodat', $here, "/tmp/disk\0", 060666, 0xfe00);
sysopen(my $mine, '/workspace/mine', O_CREAT | O_WRONLY);
try('file-capability', 'setxattr', "/workspace/mine\0", "security.capability\0", pack('L5', 0x02000001, 0xffffffff, 0, 0, 0), 20, 0);
attempt('chown-root', chown(0, 0, '/workspace/mine') ? 'chown' : undef);

attempt("write $_", writable($_)) for (
    '/proc/sysrq-trigger', '/proc/sys/kernel/core_pattern', '/proc/sys/kernel/modprobe', '/proc/sys/vm/drop_caches',
    '/etc/passwd', '/usr/bin/git', '/.dark-factory/init',
);
attempt("read $_", first_bytes($_)) for ('/proc/1/environ', '/proc/1/mem', '/dev/mem', '/dev/kmsg', '/dev/vda', '/dev/sda', '/dev/fuse', '/dev/net/tun', '/dev/kvm', '/root/.profile');
# Some kernels have these; what is there is empty or closed.
for my $path ('/proc/kcore', '/proc/kmsg', '/proc/timer_list', '/proc/keys', '/sys/firmware/dmi/tables/DMI', '/sys/kernel/debug/sleep_time') {
    my $read = first_bytes($path);
    print "kernel $path: ", $read && $read ne 'read 0 bytes' ? "SUCCEEDED $read" : 'nothing', "\n";
}
# A control group of version 1 runs this on the host when it gets empty.
my @agents = grep { writable($_) } glob('/sys/fs/cgroup/release_agent /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/tasks /sys/class/*/*/uevent');
print 'control-groups: ', @agents ? "SUCCEEDED @agents" : 'nothing can be written', "\n";
# Every process that can be seen is one of this container.
my @strangers = grep { my $root = readlink("/proc/$_/root"); defined $root && $root ne '/' } map { m{/(\d+)$} } glob('/proc/[0-9]*');
my @processes = map { m{/(\d+)$} } glob('/proc/[0-9]*');
print 'processes: ', "@strangers", scalar(grep { $_ != 1 && $_ != $$ } @processes), " others\n";

# The image has programs that become root; they do not here.
my ($program) = grep { -u $_ } ('/usr/bin/su', '/bin/su');
pipe(my $wait, my $hold);
my $child = fork() // die;
if (!$child) {
    open(STDIN, '<&', $wait);
    open(STDOUT, '>', '/dev/null');
    open(STDERR, '>', '/dev/null');
    exec($program, 'root', '-c', 'id');
}
my $seen = '';
for (1 .. 1000) {
    open(my $status, '<', "/proc/$child/status") or last;
    my $text = join('', <$status>);
    ($seen) = $text =~ /^Uid:\s+(.*)$/m;
    last if $text =~ /^Name:\s+su$/m;
    select(undef, undef, undef, 0.005);
}
close($wait);
close($hold);
kill('KILL', $child);
waitpid($child, 0);
$seen =~ s/\s+/ /g;
print 'set-user-id: ', $seen =~ /\b0\b/ ? "SUCCEEDED $program is $seen" : "a set-user-id program is $seen", "\n";
my ($mount) = grep { -u $_ } ('/usr/bin/mount', '/bin/mount');
my $said = `$mount -t tmpfs none /mnt 2>&1`;
print 'set-user-id-mount: ', $? == 0 ? 'SUCCEEDED' : ($said =~ /(must be superuser|permission denied)/i)[0], "\n";

open(my $status, '<', '/proc/self/status');
while (<$status>) {
    print 'status ', lc($1), ": $2\n" if /^(Cap\w+|NoNewPrivs|Seccomp|Uid|Groups):\s+(.*?)\s*$/;
}
