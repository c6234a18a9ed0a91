//! The way out of a container: from the loopback to a socket.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::{Duration, Instant};

use dark_factory_spool::{EXIT_HELPER_FAILED, KILL_EVERYTHING_SIGNAL};

use crate::supervisor::{Launch, Running, script};

const PATIENCE: Duration = Duration::from_secs(60);

/// A helper with a way out, and what it leads to.
struct Way {
    port: u16,
    guard: Option<UnixListener>,
    running: Running,
}

impl Way {
    fn open() -> Self {
        // Free a moment ago, which is as much as can be known.
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let folder = tempfile::tempdir().unwrap().keep();
        let socket = folder.join("egress.sock");
        let guard = UnixListener::bind(&socket).unwrap();
        let port_text = port.to_string();
        let options = [
            "--egress",
            socket.to_str().unwrap(),
            "--egress-port",
            &port_text,
        ];
        let running = Launch::with_options(&options, &script("sleep 60")).start();
        Self {
            port,
            guard: Some(guard),
            running,
        }
    }

    fn connect(&self) -> TcpStream {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match TcpStream::connect(("127.0.0.1", self.port)) {
                Ok(stream) => return stream,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn close(self) {
        self.running.signal(KILL_EVERYTHING_SIGNAL);
        self.running.finish();
    }
}

#[test]
fn what_is_sent_to_the_loopback_is_answered_by_the_socket_byte_for_byte() {
    let way = Way::open();
    let guard = way.guard.as_ref().unwrap().try_clone().unwrap();
    let sent: Vec<u8> = (0..=255).cycle().take(3 << 20).collect();
    let echo = thread::spawn(move || {
        let (mut stream, _) = guard.accept().unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        stream.write_all(&heard).unwrap();
    });

    let mut stream = way.connect();
    let mut writer = stream.try_clone().unwrap();
    let bytes = sent.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&bytes).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();

    writing.join().unwrap();
    echo.join().unwrap();
    assert!(answer == sent);
    way.close();
}

#[test]
fn without_a_guard_the_client_is_told_so_and_with_one_again_it_is_served() {
    let mut way = Way::open();
    let socket = way.guard.take().unwrap().local_addr().unwrap();
    let path = socket.as_pathname().unwrap().to_owned();

    let mut refused = String::new();
    way.connect().read_to_string(&mut refused).unwrap();
    std::fs::remove_file(&path).unwrap();
    let guard = UnixListener::bind(&path).unwrap();
    let serving = thread::spawn(move || {
        guard.accept().unwrap().0.write_all(b"back").unwrap();
    });
    let mut served = String::new();
    way.connect().read_to_string(&mut served).unwrap();

    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.contains("the guard"), "{refused}");
    assert_eq!(served, "back");
    serving.join().unwrap();
    way.close();
}

#[test]
fn a_thousand_connections_at_once_are_served_one_after_the_other() {
    let way = Way::open();
    let guard = way.guard.as_ref().unwrap().try_clone().unwrap();
    let serving = thread::spawn(move || {
        for stream in guard.incoming().take(1000) {
            stream.unwrap().write_all(b"x").unwrap();
        }
    });

    let clients: Vec<TcpStream> = (0..1000).map(|_| way.connect()).collect();
    let served = clients.into_iter().filter(|mut stream| {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).is_ok() && answer == "x"
    });

    assert_eq!(served.count(), 1000);
    serving.join().unwrap();
    way.close();
}

#[test]
fn a_port_that_is_taken_starts_no_agent() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let options = ["--egress", "/nowhere", "--egress-port", &port];

    let recorded = Launch::with_options(&options, &script("print never"))
        .start_alone()
        .finish();

    assert_eq!(recorded.code, Some(EXIT_HELPER_FAILED));
    assert!(
        recorded.message.contains("cannot relay from the loopback"),
        "{}",
        recorded.message
    );
}
