# Tries every way out but the one that is allowed, and to turn that one to somewhere else.
my ($host, $decoy, $allowed, $redirecting, $neighbour, $guard, $abstract) = @ARGV;

attempt("engine $_", reach_unix($_)) for ('/var/run/docker.sock', '/run/docker.sock', '/run/containerd/containerd.sock');
attempt('another run\'s guard', reach_unix($neighbour));
symlink($neighbour, '/workspace/neighbour');
attempt('another run\'s guard by a link', reach_unix('/workspace/neighbour'));
attempt('another run\'s guard beside ours', reach_unix('/.dark-factory/attempt/../../' . join('/', (split m{/}, $neighbour)[-3 .. -1])));
attempt('the guard\'s control', reach_unix($guard));
attempt('an abstract socket of the host', reach_unix("\0$abstract"));
attempt('a socket in place of ours', rename('/.dark-factory/attempt/egress.sock', '/.dark-factory/attempt/x') ? 'renamed' : undef);
attempt('our socket linked out', link('/.dark-factory/attempt/egress.sock', '/workspace/egress.sock') ? 'linked' : undef);

attempt('engine by tcp', reach4($host, 2375));
attempt('decoy directly', reach4($host, $decoy));
attempt('decoy on loopback', reach4('127.0.0.1', $decoy));
attempt('decoy on every address', reach4('0.0.0.0', $decoy));
attempt('allowed host directly', reach4($host, $allowed));
attempt('internet', reach4('1.1.1.1', 443));
attempt('metadata', reach4('169.254.169.254', 80));
attempt('ipv6 internet', reach6('2606:4700:4700::1111', 443));
attempt('ipv6 metadata', reach6('fd00:ec2::254', 80));
attempt('ipv6 loopback', reach6('::1', $decoy));
attempt('ipv6 mapped', reach6("::ffff:$host", $decoy));
attempt('dns', send4('8.8.8.8', 53));
attempt('dns of the engine', send4('127.0.0.11', 53));
attempt('dns of the bridge', send4($host, 53));
attempt('dns over tcp', reach4('8.8.8.8', 53));
attempt('multicast', send4('224.0.0.251', 5353));
my ($error) = getaddrinfo('example.com', '80', {});
print 'resolver: ', $error ? 'no answer' : 'SUCCEEDED', "\n";
attempt('raw socket', socket(my $icmp, AF_INET, SOCK_RAW, 1) ? 'opened' : undef);
attempt('raw ipv6 socket', socket(my $icmp6, AF_INET6, SOCK_RAW, 58) ? 'opened' : undef);
attempt('packet socket', socket(my $packet, 17, SOCK_RAW, 0x0300) ? 'opened' : undef);
# A request to the kernel for an interface of its own: RTM_NEWLINK of a dummy device.
my $name = pack('SSa8', 12, 3, "evil\0");
my $kind = pack('SS', 4 + 12, 18) . pack('SSa8', 10, 1, "dummy\0");
my $link = pack('CCSiII', 0, 0, 0, 0, 0, 0) . $name . $kind;
socket(my $route, 16, SOCK_RAW, 0);
send($route, pack('LSSLL', 16 + length $link, 16, 0x605, 1, 0) . $link, 0, pack('SSLL', 16, 0, 0, 0));
sysread($route, my $answer, 4096);
$! = -unpack('x16 l', $answer);
attempt('a new interface', $! ? undef : 'made');
open(my $devices, '<', '/proc/net/dev');
print 'interfaces: ', join(' ', map { /^\s*(\S+):/ ? $1 : () } <$devices>), "\n";
open(my $routes, '<', '/proc/net/route');
my @routes = <$routes>;
print 'routes: ', @routes > 1 ? "SUCCEEDED @routes" : 'none', "\n";

asked('ask for the decoy', "GET http://$host:$decoy/");
asked('ask with a user', "GET http://$host:$allowed\@$host:$decoy/");
asked('ask with another host header', "GET http://$host:$decoy/", "Host: $host:$allowed\r\n");
asked('ask for the engine', 'GET http://127.0.0.1:2375/version');
asked('ask for a name of the host', "GET http://localhost:$decoy/");
asked('ask by number', "GET http://2130706433:$decoy/");
asked('ask in hexadecimal', "GET http://0x7f000001:$decoy/");
asked('ask in short', "GET http://127.1:$decoy/");
asked('ask for an address in ipv6', "GET http://[::ffff:$host]:$decoy/");
asked('ask for loopback in ipv6', "CONNECT [::1]:$decoy");
asked('ask for everywhere', "CONNECT 0.0.0.0:$decoy");
asked('ask for metadata', 'GET http://169.254.169.254/latest/meta-data/');
asked('ask for metadata in ipv6', 'GET http://[::ffff:169.254.169.254]/latest/meta-data/');
asked('ask for metadata by number', 'GET http://2852039166/latest/meta-data/');
asked('ask for metadata by name', 'GET http://metadata.google.internal/');
asked('ask for a file', 'GET file:///etc/passwd');
asked('ask for a socket', 'GET http+unix://%2Fvar%2Frun%2Fdocker.sock/version');
asked('ask for nothing', 'GET /');
asked('a name that leads inside', "GET http://inside.example:$decoy/");
asked('a name that leads inside, tunnelled', "CONNECT inside.example:$decoy");
asked('a name that leads to metadata', 'GET http://metadata.example/');
# The second request of a connection is judged as the first one is.
my $both = ask("GET http://$host:$allowed/ HTTP/1.1\r\nHost: x\r\n\r\nGET http://$host:$decoy/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
print 'ask behind an allowed one: ', join(' ', $both =~ m{^HTTP/1.1 (\d+)}mg), "\n";
# A body that says its length twice hides no second request.
my $hidden = "GET http://$host:$decoy/ HTTP/1.1\r\nHost: x\r\n\r\n";
my $smuggled = ask("POST http://$host:$allowed/ HTTP/1.1\r\nHost: x\r\nContent-Length: " . length($hidden) . "\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n$hidden");
my @statuses = $smuggled =~ m{^HTTP/1.1 (\d+)}mg;
print 'a request in a body: ', grep({ $_ eq '200' } @statuses[1 .. $#statuses]) ? "SUCCEEDED @statuses" : 'not answered', "\n";
# An allowed host says: go on over there.
my ($where) = ask("GET http://$host:$redirecting/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") =~ /^location: (\S+)/im;
asked('follow an allowed host inside', "GET $where");
