# Looks for what a host has and its agent should not: files, environments, credentials.
my ($mark, @paths) = @ARGV;
# So that the mark stands on no command line.
$mark =~ s/_/-/;

my $number = 0;
for my $path (@paths) {
    my ($name) = $path =~ m{([^/]+)$};
    attempt("read $name", first_bytes($path));
    symlink($path, '/workspace/link' . ++$number);
    attempt("read $name by a link", first_bytes("/workspace/link$number"));
    attempt("read $name from outside of the workspace", first_bytes("/workspace/../../../../..$path"));
    attempt("read $name under another root", first_bytes("/proc/1/root$path"));
}
attempt("read $_", first_bytes($_)) for ('/etc/shadow', '/home/agent/.claude/.credentials.json', '/home/agent/.netrc', '/home/agent/.gitconfig', '/home/agent/.ssh/id_ed25519');
print 'variables: ', $ENV{HARMLESS} ? 'SUCCEEDED' : 'none of the host', "\n";

# Everything that is mounted, and where on the host it comes from.
my @mounts;
open(my $mounts, '<', '/proc/self/mountinfo');
while (<$mounts>) {
    my ($root, $target, $options, $rest) = (split ' ')[3, 4, 5, 6];
    my ($type) = / - (\S+) /;
    push @mounts, [$target, $type, $options];
    print "mount $target: ", ($options =~ /^rw/ ? 'writable' : 'read-only'), "\n" if $type =~ /^(ext|xfs|btrfs|overlay|fuse|zfs|9p|virtiofs)/;
}

# The mark stands in every file and variable of the host that is one of these; it is in nothing that can be read here.
my @found;
my @folders = ('/workspace', '/.dark-factory', '/tmp', '/home', '/root', '/run', '/var', '/etc', '/dev', '/mnt', '/media', '/srv', '/opt', '/boot');
while (defined(my $folder = shift @folders)) {
    opendir(my $names, $folder) or next;
    for my $name (readdir $names) {
        next if $name eq '.' || $name eq '..';
        my $path = "$folder/$name";
        push @found, $path if index($name, $mark) >= 0;
        lstat $path;
        if (-d _) { push @folders, $path; next }
        next unless -f _ and -s _ < 4 << 20;
        open(my $file, '<', $path) or next;
        local $/;
        my $text = <$file>;
        push @found, $path if defined $text && index($text, $mark) >= 0 && $path ne '/workspace/attack.pl';
    }
}
for my $process (glob('/proc/[0-9]*')) {
    for my $name ('environ', 'cmdline', 'maps', 'mountinfo', 'net/unix') {
        open(my $file, '<', "$process/$name") or next;
        local $/;
        my $text = <$file>;
        push @found, "$process/$name" if defined $text && index($text, $mark) >= 0;
    }
}
print 'the mark: ', @found ? "SUCCEEDED @found" : 'nowhere', "\n";
sysopen(my $told, '/workspace/looked', O_CREAT | O_WRONLY);
my $patience = 0;
select(undef, undef, undef, 0.02) until -e '/workspace/enough' || $patience++ > 3000;
