# Takes as much as it can get of everything that a machine has too little of.
sub bomb {
    my ($name, $once) = @_;
    my $count = 0;
    $count++ while $count < 3_000_000 && $once->($count);
    my $why = "$!";
    print "$name: ", $count == 3_000_000 ? 'SUCCEEDED' : $why, "\n";
    return $count;
}

# Fills a folder, in pieces of 64 KiB.
sub fill {
    my ($folder) = @_;
    sysopen(my $file, "$folder/full", O_CREAT | O_WRONLY) or return attempt("disk $folder", undef);
    my $piece = 'x' x 65536;
    bomb("disk $folder", sub { (syswrite($file, $piece) // 0) == 65536 });
    unlink "$folder/full";
}

my @children;
my $parent = $$;
my $forked = bomb('fork', sub {
    my $child = fork();
    return 0 unless defined $child;
    if (!$child) { POSIX::pause() while getppid() == $parent; POSIX::_exit(0) }
    push @children, $child;
    return 1;
});
print 'forked: ', $forked < 64 ? 'fewer than 64' : $forked, "\n";
# Each child of such a child is one more of the same container.
kill 'KILL', @children;
waitpid $_, 0 for @children;
undef @children;

my @files;
bomb('open files', sub { sysopen(my $file, '/dev/null', O_RDONLY) or return 0; push @files, $file; 1 });
undef @files;

fill($_) for ('/tmp', '/home/agent', '/dev/shm');
for my $folder ('/', '/etc', '/usr', '/var/tmp', '/var/lib', '/opt', '/run', '/run/lock', '/root', '/dev', '/.dark-factory/attempt', '/sys/fs/cgroup', '/proc/self') {
    attempt("disk $folder", sysopen(my $file, "$folder/hostile", O_CREAT | O_WRONLY) ? 'made a file' : undef);
}

mkdir '/tmp/many';
my $made = bomb('inodes', sub { sysopen(my $file, "/tmp/many/$_[0]", O_CREAT | O_WRONLY) ? 1 : 0 });
print 'inodes made: ', $made < 100_000 ? 'fewer than 100000' : $made, "\n";
unlink "/tmp/many/$_" for 0 .. $made;

my $eater = fork() // die;
if (!$eater) {
    my @eaten;
    push @eaten, 'x' x 1_000_000 while @eaten < 4000;
    POSIX::_exit(0);
}
waitpid $eater, 0;
print 'memory: ', $? & 127 ? 'killed by signal ' . ($? & 127) : 'SUCCEEDED', "\n";
print "afterwards: still here\n";
