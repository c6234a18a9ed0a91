# Leaves in the workspace what may surprise whoever reads it on the host afterwards.
my ($secret, $folder) = @ARGV;

# Links from here to what only the host has.
for my $name ('README.md', '.gitignore', '.gitattributes', 'new-link') {
    unlink $name;
    symlink($secret, $name) or die "$name: $!";
}
rename('sub', 'was-sub') or die;
symlink($folder, 'sub') or die;
symlink('loop', 'loop') or die;
symlink('..', 'up') or die;

# Names for what is elsewhere.
attempt('hard link to the prompt', link('/.dark-factory/attempt/prompt.md', 'prompt-link') ? 'linked' : undef);
attempt('hard link to the helper', link('/.dark-factory/init', 'init-link') ? 'linked' : undef);
attempt('hard link to the image', link('/etc/passwd', 'passwd-link') ? 'linked' : undef);
attempt('hard link by descriptor', link("/proc/$$/exe", 'exe-link') ? 'linked' : undef);
attempt('workspace moved', rename('/workspace', '/workspace.old') ? 'moved' : undef);
attempt('workspace replaced', rmdir('/workspace') ? 'removed' : undef);
attempt('folder of the attempt replaced', rename('/.dark-factory/attempt', '/tmp/attempt') ? 'moved' : undef);
attempt('file in the folder of the attempt', sysopen(my $file, '/.dark-factory/attempt/report.json', O_CREAT | O_WRONLY) ? 'made' : undef);
attempt('log of ours', sysopen(my $log, '/.dark-factory/attempt/../raw.jsonl', O_CREAT | O_WRONLY) ? 'made' : undef);
link('kept.txt', 'second-name') or die;

# What is no file.
POSIX::mkfifo('pipe', 0666) or die;
POSIX::mkfifo('sub.fifo', 0666) or die;
socket(my $socket, AF_UNIX, SOCK_STREAM, 0);
bind($socket, pack_sockaddr_un('socket')) or die "socket: $!";
my $null = "null\0";
attempt("a device", syscall((POSIX::uname())[4] eq "aarch64" ? 33 : 133, $null, 020666, 0x103) == 0 ? "made" : undef);
# A terabyte that takes no room, names that are not text, a folder that nobody may enter.
$SIG{XFSZ} = 'IGNORE';
sysopen(my $sparse, 'sparse', O_CREAT | O_WRONLY) or die;
truncate($sparse, 1 << 40);
for my $name ("\xff\xfe", "a\nb", "-rf", "\e]0;owned\a", '$(touch owned)', '..\\..\\x', ' ', 'con.') {
    sysopen(my $odd, $name, O_CREAT | O_WRONLY) or die "$name: $!";
}
mkdir 'closed' and chmod 0, 'closed';
# Deeper than a path may be long.
for (1 .. 40) { mkdir 'd' x 200 and chdir 'd' x 200 or last }
sysopen(my $deep, 'deep', O_CREAT | O_WRONLY);
chdir '/workspace';
print "done: all left\n";
