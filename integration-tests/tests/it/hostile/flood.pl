# Takes every place that the way out has, and gives none back until it is told to.
my ($allowed) = @ARGV;
my ($tried, @held) = 0;
for my $address (pack_sockaddr_in(3128, inet_aton('127.0.0.1')), pack_sockaddr_un('/.dark-factory/attempt/egress.sock')) {
    for (1 .. 5000) {
        socket(my $socket, sockaddr_family($address), SOCK_STREAM, 0) or die "socket: $!";
        fcntl($socket, F_SETFL, O_NONBLOCK);
        $tried++;
        connect($socket, $address) or $! == EINPROGRESS or next;
        syswrite($socket, "GET http://$allowed/ HTTP/1.1\r\nX: ");
        push @held, $socket;
    }
}
print "tried: $tried\n";
print 'held: ', @held > 500 ? 'hundreds' : scalar @held, "\n";
sysopen(my $told, '/workspace/flooding', O_CREAT | O_WRONLY);
local $SIG{PIPE} = 'IGNORE';
# A byte of each head now and then, so that none of them is silent.
until (-e '/workspace/enough') {
    syswrite($_, 'x') for @held;
    select(undef, undef, undef, 0.2);
}
@held = ();
asked('afterwards', "GET http://$allowed/");
