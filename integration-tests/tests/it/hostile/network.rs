//! Every way to somewhere that is not on a run's list, and the list's own way turned against it.
//!
//! Owns: names that lead inside, in a hosts file that only the guard sees; a neighbour that asks meanwhile.
//! Reads: the logs of decoys; the guard's record in the attempt's folder.
//! Never: reaches the internet.

use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::Command;

use integration_tests::{claude_image, is_root};
use serde_json::Value;

use super::{Attempts, attack};
use crate::guard::{ASK, Decoy, bash, bridge_address, raw};
use crate::scene::{Place, Running, Scene};
use crate::support::{Ended, execute};

/// Returns the same command, for whose processes these names have these addresses.
fn with_hosts(scene: &Scene, hosts: &str, command: &Command) -> Command {
    assert!(is_root(), "this needs root, for a hosts file of its own");
    let file = scene.installation.folder().join("hosts");
    fs::write(&file, hosts).unwrap();
    // Its guard is its child, and so is in the same namespace.
    let mut wrapped = Command::new("unshare");
    wrapped.args(["--mount", "sh", "-c"]);
    wrapped.arg("mount --bind \"$0\" /etc/hosts && exec \"$@\"");
    wrapped.arg(file);
    execute(&mut wrapped, command);
    wrapped.current_dir(scene.project.path());
    wrapped
}

/// Returns the targets of a run that its guard refused, with its reasons.
fn denied(scene: &Scene) -> Vec<(String, String)> {
    let journal = fs::read_to_string(scene.folder().join("egress.jsonl")).unwrap();
    let entry = |line: &str| -> Value { serde_json::from_str(line).unwrap() };
    let entries = journal.lines().map(entry);
    let denied = entries.filter(|entry| entry["fate"]["kind"] == "denied");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    denied
        .map(|entry| (text(&entry["target"]), text(&entry["fate"]["why"])))
        .collect()
}

#[test]
fn there_is_no_way_to_what_is_not_on_the_list() {
    nothing_but_the_list_is_reached(Place::Container);
}

pub(super) fn nothing_but_the_list_is_reached(place: Place) {
    let scene = Scene::in_place(place);
    let host = bridge_address(&scene);
    let (decoy, allowed) = (Decoy::open(), Decoy::open());
    let redirecting = Decoy::answering(&format!(
        "HTTP/1.1 302 Found\r\nLocation: http://{host}:{}/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        decoy.port
    ));
    let name = format!("hostile-{}-{place:?}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _abstract = UnixListener::bind_addr(&address).unwrap();
    // A neighbour with a way of its own, which is open all the time.
    let neighbour = Scene::in_place(place);
    let asks = format!(
        "{ASK} ask 'GET http://{host}:{}/ HTTP/1.1' | head -1; touch asked; until [ -e enough ]; do sleep 0.1; done",
        decoy.port
    );
    let rule = format!("allow:{host}:{}", decoy.port);
    let beside = Running::start(&mut bash(&neighbour, &rule, &asks));
    neighbour.wait_for_file("asked");
    let socket = neighbour.folder().join("mount/egress.sock");
    assert!(socket.exists());
    let guard = scene.installation.state_dir().join("guard.sock");
    let rules = format!(
        "allow:{host}:{},{host}:{},inside.example:{},metadata.example",
        allowed.port, redirecting.port, decoy.port
    );
    let arguments = [
        host.to_string(),
        decoy.port.to_string(),
        allowed.port.to_string(),
        redirecting.port.to_string(),
        socket.display().to_string(),
        guard.display().to_string(),
        name,
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let flags = ["--network", &rules];
    let command = attack(&scene, include_str!("network.pl"), &flags, &arguments);
    // A name is asked for with its last dot.
    let hosts = format!("{host} inside.example.\n169.254.169.254 metadata.example.\n");

    let run = Ended::of(&mut with_hosts(&scene, &hosts, &command));
    neighbour.project.write("enough", "");
    let beside = beside.ended();

    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    assert_eq!(beside.code, 0, "{}{}", beside.stdout, beside.stderr);
    assert!(raw(&neighbour).contains(" 200 "), "{}", raw(&neighbour));
    // The one visit is the neighbour's, who may.
    assert_eq!(
        (decoy.visits(), allowed.visits(), redirecting.visits()),
        (1, 2, 1)
    );
    let mut attempts = Attempts::of(&scene);
    sockets_of_others_are_not_there(&mut attempts);
    addresses_are_out_of_reach(&mut attempts);
    what_is_asked_for_is_refused(&mut attempts, &format!("{host}:{}", decoy.port));
    attempts.assert_no_more();
    let denied = denied(&scene);
    let target = format!("{host}:{}", decoy.port);
    assert!(
        denied.iter().any(|(denied, _)| *denied == target),
        "{denied:?}"
    );
    for target in [
        "127.0.0.1:2375",
        "169.254.169.254:80",
        "metadata.google.internal:80",
    ] {
        let reason = denied.iter().find(|(denied, _)| denied == target);
        assert!(
            reason.is_some_and(|(_, why)| why.contains("not on this run's list of allowed hosts")),
            "{target}: {denied:?}"
        );
    }
    for (target, leads) in [
        (
            format!("inside.example:{}", decoy.port),
            format!("the private address {host}"),
        ),
        (
            "metadata.example:80".to_owned(),
            "the link-local address 169.254.169.254".to_owned(),
        ),
    ] {
        let reason = denied.iter().find(|(denied, _)| *denied == target);
        assert!(
            reason.is_some_and(|(_, why)| why.contains(&leads)),
            "{denied:?}"
        );
    }
}

fn sockets_of_others_are_not_there(attempts: &mut Attempts) {
    let absent = ["No such file or directory"];
    let engine = [
        "/var/run/docker.sock",
        "/run/docker.sock",
        "/run/containerd/containerd.sock",
    ];
    for path in engine {
        attempts.assert_failed(&format!("engine {path}"), &absent);
    }
    let guards = [
        "another run's guard",
        "another run's guard by a link",
        "another run's guard beside ours",
        "the guard's control",
    ];
    attempts.assert_all_failed(&guards, &absent);
    attempts.assert_failed("an abstract socket of the host", &["Connection refused"]);
    attempts.assert_failed("a socket in place of ours", &["Read-only file system"]);
    attempts.assert_failed("our socket linked out", &["Invalid cross-device link"]);
}

fn addresses_are_out_of_reach(attempts: &mut Attempts) {
    let unreachable = ["Network is unreachable"];
    let outside = [
        "engine by tcp",
        "decoy directly",
        "allowed host directly",
        "internet",
        "metadata",
        "dns",
        "dns of the bridge",
        "dns over tcp",
        "multicast",
    ];
    attempts.assert_all_failed(&outside, &unreachable);
    // A kernel without IPv6 knows no such addresses.
    let no_ipv6 = [
        "Network is unreachable",
        "Cannot assign requested address",
        "Address family not supported",
    ];
    attempts.assert_all_failed(&["ipv6 internet", "ipv6 metadata", "ipv6 mapped"], &no_ipv6);
    let own = [
        "decoy on loopback",
        "decoy on every address",
        "dns of the engine",
    ];
    attempts.assert_all_failed(&own, &["Connection refused"]);
    let own = ["Connection refused", no_ipv6[1], no_ipv6[2]];
    attempts.assert_failed("ipv6 loopback", &own);
    attempts.assert_failed("resolver", &["no answer"]);
    let sockets = [
        "raw socket",
        "raw ipv6 socket",
        "packet socket",
        "a new interface",
    ];
    let refused = ["Operation not permitted", no_ipv6[2]];
    attempts.assert_all_failed(&sockets, &refused);
    attempts.assert_failed("interfaces", &["lo"]);
    attempts.assert_failed("routes", &["none"]);
}

fn what_is_asked_for_is_refused(attempts: &mut Attempts, decoy: &str) {
    let listed = format!("403 {decoy} is not on this run's list of allowed hosts");
    let decoys = [
        "ask for the decoy",
        "ask with a user",
        "ask with another host header",
        "ask for an address in ipv6",
        "follow an allowed host inside",
    ];
    attempts.assert_all_failed(&decoys, &[&listed]);
    let others = [
        "ask for the engine",
        "ask for a name of the host",
        "ask for loopback in ipv6",
        "ask for everywhere",
        "ask for metadata",
        "ask for metadata in ipv6",
        "ask for metadata by name",
    ];
    attempts.assert_all_failed(&others, &["403 "]);
    let odd = [
        "ask by number",
        "ask in hexadecimal",
        "ask in short",
        "ask for metadata by number",
        "ask for a file",
        "ask for a socket",
        "ask for nothing",
    ];
    attempts.assert_all_failed(&odd, &["400"]);
    let inside = [
        "a name that leads inside",
        "a name that leads inside, tunnelled",
    ];
    attempts.assert_all_failed(&inside, &["403 inside.example"]);
    let metadata = "403 metadata.example:80 leads to the link-local address 169.254.169.254";
    attempts.assert_failed("a name that leads to metadata", &[metadata]);
    attempts.assert_failed("ask behind an allowed one", &["200 403"]);
    attempts.assert_failed("a request in a body", &["not answered"]);
}

#[test]
fn ten_thousand_connections_of_one_run_take_no_place_of_another() {
    let scene = Scene::new();
    let allowed = Decoy::open();
    let at = format!("{}:{}", bridge_address(&scene), allowed.port);
    let rule = format!("allow:{at}");
    // Of the same installation, and so with the same guard.
    let beside = scene.project.write("beside.md", "Ask.\n");
    let asks = format!(
        "{ASK} for n in $(seq 20); do ask 'GET http://{at}/ HTTP/1.1' | head -1; done > answers; touch enough"
    );

    let flood = attack(
        &scene,
        include_str!("flood.pl"),
        &["--network", &rule],
        &[&at],
    );
    let flood = Running::start(&mut { flood });
    scene.wait_for_file("flooding");
    let mut neighbour = scene.dark_factory(&["run", "--agent", "command", "--network", &rule]);
    neighbour.args(["--image", &claude_image()]);
    neighbour.arg(&beside).args(["--", "bash", "-c", &asks]);
    let neighbour = Ended::of(&mut neighbour);
    let flood = flood.ended();

    assert_eq!(
        neighbour.code, 0,
        "{}{}",
        neighbour.stdout, neighbour.stderr
    );
    assert_eq!(flood.code, 0, "{}{}", flood.stdout, flood.stderr);
    let answers = scene.project.read("answers");
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 20, "{answers}");
    let runs = scene.runs();
    let is_flood = |run: &&Value| run["file"].as_str().unwrap().ends_with("prompt.md");
    let folder = runs.iter().find(is_flood).unwrap()["dir"].as_str().unwrap();
    let said = fs::read_to_string(format!("{folder}/raw.jsonl")).unwrap();
    // Its own way is as good as before once it has let go.
    assert_eq!(
        said,
        "tried: 10000\nheld: hundreds\nafterwards: SUCCEEDED\n"
    );
}
