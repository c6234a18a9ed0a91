//! What a sandbox reaches.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use dark_factory_engines::sandbox::config::Network;

use crate::both;
use crate::lab::Lab;

/// Returns a line of a script that says whether a port of the loopback interface answers.
fn knock(port: u16) -> String {
    format!(
        "(bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}') 2>/dev/null && echo reached || echo refused\n"
    )
}

/// Returns the same for a socket that has a name and no path.
fn knock_by_name(name: &str) -> String {
    format!(
        "perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0); \
         print connect(S, pack(\"S a*\", AF_UNIX, \"\\0{name}\")) ? \"reached\\n\" : \"refused\\n\"'\n"
    )
}

/// Listens on a socket of the host that has a name and no path.
fn listen_by_name(name: &str) -> UnixListener {
    let address = SocketAddr::from_abstract_name(name).unwrap();
    UnixListener::bind_addr(&address).unwrap()
}

both! {
    fn the_loopback_is_its_own_and_works(who) {
        let mut lab = Lab::new(who);
        let host = TcpListener::bind("127.0.0.1:0").unwrap();
        let name = format!("dark-factory-test-alone-{}", who.uid());
        let _host = listen_by_name(&name);
        let port = host.local_addr().unwrap().port();
        let listen = "perl -MIO::Socket::INET -e \
            '$s = IO::Socket::INET->new(Listen => 1, LocalAddr => \"127.0.0.1:4455\") or die; open F, \">/tmp/up\"; sleep 100' &\n\
            while ! test -e /tmp/up; do sleep 0.05; done\n";

        let said = lab.output_of(&[
            "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '\n",
            &knock(port),
            &knock_by_name(&name),
            listen,
            &knock(4455),
            "bash -c 'exec 3<>/dev/tcp/localhost/4455' && echo by name\n",
        ].concat());

        let seen: Vec<&str> = said.lines().filter(|line| !line.contains("tunl")).collect();
        assert_eq!(seen.first(), Some(&"lo"), "{said}");
        let answers = &seen[seen.len() - 4..];
        assert_eq!(answers, ["refused", "refused", "reached", "by name"], "{said}");
    }

    fn the_machines_network_is_had_where_it_is_asked_for_but_for_sockets_without_a_path(who) {
        let mut lab = Lab::new(who);
        lab.config.network = Network::Host;
        let host = TcpListener::bind("127.0.0.1:0").unwrap();
        let name = format!("dark-factory-test-host-{}", who.uid());
        let _host = listen_by_name(&name);
        let port = host.local_addr().unwrap().port();

        let said = lab.output_of(&[knock(port), knock_by_name(&name)].concat());

        assert_eq!(said, "reached\nrefused\n");
    }
}
