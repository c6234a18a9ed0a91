# What every attack begins with: each attempt prints one line, "name: evidence".
use strict;
use warnings;
use Errno qw(EAGAIN EINPROGRESS);
use Fcntl;
use POSIX ();
use Socket qw(:all);

$| = 1;

# Tells how an attempt ended: by the system's own words, or by what it achieved.
sub attempt {
    my ($name, $achieved) = @_;
    my $why = "$!";
    print "$name: ", $achieved ? "SUCCEEDED $achieved" : $why, "\n";
}

# Opens a file and returns what it begins with.
sub first_bytes {
    my ($path) = @_;
    sysopen(my $file, $path, O_RDONLY | O_NONBLOCK) or return;
    my $read = sysread($file, my $bytes, 100);
    return defined $read ? "read $read bytes" : undef;
}

# Opens a file to write, and nothing more.
sub writable {
    my ($path) = @_;
    return sysopen(my $file, $path, O_WRONLY) ? 'opened to write' : undef;
}

# Connects, in at most two seconds.
sub reach {
    my ($family, $kind, $address) = @_;
    socket(my $socket, $family, $kind, 0) or return;
    fcntl($socket, F_SETFL, O_NONBLOCK);
    connect($socket, $address) and return 'connected';
    return if $! != EINPROGRESS;
    my $ready = '';
    vec($ready, fileno($socket), 1) = 1;
    select(undef, $ready, undef, 2) or do { $! = POSIX::ETIMEDOUT; return };
    $! = unpack('i', getsockopt($socket, SOL_SOCKET, SO_ERROR));
    return $! ? undef : 'connected';
}

sub reach4 { my ($host, $port) = @_; return reach(AF_INET, SOCK_STREAM, pack_sockaddr_in($port, inet_aton($host))) }
sub reach6 { my ($host, $port) = @_; return reach(AF_INET6, SOCK_STREAM, pack_sockaddr_in6($port, inet_pton(AF_INET6, $host))) }
sub reach_unix { my ($path) = @_; return reach(AF_UNIX, SOCK_STREAM, pack_sockaddr_un($path)) }

# Sends a datagram, and waits at most two seconds for what comes of it.
sub send4 {
    my ($host, $port) = @_;
    socket(my $socket, AF_INET, SOCK_DGRAM, 0) or return;
    connect($socket, pack_sockaddr_in($port, inet_aton($host))) or return;
    defined send($socket, "hello", 0) or return;
    my $ready = '';
    vec($ready, fileno($socket), 1) = 1;
    select($ready, undef, undef, 2) or return 'sent';
    return defined recv($socket, my $answer, 100, 0) ? 'answered' : undef;
}

# Asks the way out for something, and returns the answer.
sub ask {
    my ($head) = @_;
    socket(my $socket, AF_INET, SOCK_STREAM, 0) or return;
    connect($socket, pack_sockaddr_in(3128, inet_aton('127.0.0.1'))) or return;
    syswrite($socket, $head);
    my ($answer, $more) = ('', '');
    $answer .= $more while sysread($socket, $more, 65536);
    return $answer;
}

# Tells with which words a request was refused.
sub asked {
    my ($name, $request, $headers) = @_;
    my $answer = ask("$request HTTP/1.1\r\n" . ($headers || '') . "Connection: close\r\n\r\n");
    my ($status) = $answer =~ m{^HTTP/1.1 (\d+)} ? $1 : 'no answer';
    my ($words) = $answer =~ /^dark-factory: (.*)$/m ? " $1" : '';
    print "$name: ", $status eq '200' ? 'SUCCEEDED' : $status, "$words\n";
}
