//! A run whose network is a list of hosts: what it reaches, what it does not, and what is told of it.
//!
//! Owns: a decoy on this machine that no run may reach.
//! Reads: reports, and the guard's record in the attempt's folder.
//! Never: reaches the internet.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use integration_tests::{MockModel, claude_image, codex_image};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::scene::{Running, Scene, eventually, report};
use crate::support::Ended;

/// An address of this machine that containers on the bridge could reach too.
pub(crate) fn bridge_address(scene: &Scene) -> Ipv4Addr {
    let address = scene.docker(&[
        "network",
        "inspect",
        "bridge",
        "--format",
        "{{with index .IPAM.Config 0}}{{.Subnet}}{{end}}",
    ]);
    let subnet: Ipv4Addr = address.trim().split('/').next().unwrap().parse().unwrap();
    // The bridge has the first address of its subnet.
    Ipv4Addr::from(u32::from(subnet) | 1)
}

/// A server on every address of this machine; it counts its visitors, and gives each the same answer.
pub(crate) struct Decoy {
    pub(crate) port: u16,
    visits: Arc<AtomicUsize>,
}

impl Decoy {
    pub(crate) fn open() -> Self {
        Self::answering("HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n")
    }

    /// Opens one that gives this answer.
    pub(crate) fn answering(answer: &str) -> Self {
        let answer = answer.to_owned();
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let visits = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&visits);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let mut buffer = [0; 4096];
                // A visitor that leaves early has been counted.
                let _read = stream.read(&mut buffer);
                let _written = stream.write_all(answer.as_bytes());
            }
        });
        Self { port, visits }
    }

    pub(crate) fn visits(&self) -> usize {
        self.visits.load(Ordering::SeqCst)
    }

    /// Waits for one more visit than there were.
    fn wait_for_a_visit(&self) {
        let before = self.visits();
        eventually("a visit", || (self.visits() > before).then_some(()));
    }
}

/// A run of a bash script in an image that has bash.
pub(crate) fn bash(scene: &Scene, allow: &str, script: &str) -> Command {
    let image = scene.tools_image();
    let mut run = scene.dark_factory(&["run", "--agent", "command", "--image", &image]);
    run.args(["--network", allow]).arg(&scene.prompt);
    run.args(["--", "bash", "-c", script]);
    run
}

/// A shell function that asks the proxy for one thing and prints the answer.
pub(crate) const ASK: &str = r#"ask() { exec 3<>/dev/tcp/127.0.0.1/3128 && printf "$1\r\nConnection: close\r\n\r\n" >&3 && cat <&3; exec 3>&-; }; "#;

/// Runs a real agent whose model is all that it may reach; returns the run and where the model is.
fn with_model_in_reach(
    scene: &Scene,
    agent: &str,
    image: &str,
    variables: [&str; 2],
) -> (Ended, String) {
    let model = MockModel::start("success");
    let at = format!("{}:{}", bridge_address(scene), model.port());
    let text = format!("---\nagent: {agent}\n---\nCreate hello.txt.\n");
    let mut run = scene.dark_factory(&["run", "--image", image]);
    run.args(["--network", &format!("allow:{at}")]);
    for variable in variables {
        run.args(["--env", &variable.replace("MODEL", &at)]);
    }
    run.arg(scene.project.write("tasks/hello.md", &text));
    (Ended::of(&mut run), at)
}

#[test]
fn the_real_claude_code_works_with_nothing_but_its_model_in_reach() {
    let scene = Scene::new();
    let variables = ["ANTHROPIC_API_KEY=test", "ANTHROPIC_BASE_URL=http://MODEL"];

    let (run, at) = with_model_in_reach(&scene, "claude", &claude_image(), variables);

    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    assert!(run.stderr.contains(&format!("only {at}")), "{}", run.stderr);
    assert_eq!(
        scene.project.read("hello.txt"),
        "Hello, world!\nline 2 (edited)\n"
    );
    let report = report(&scene.folder());
    let reached = &report["egress"]["reached"];
    assert_eq!(reached[0]["target"], at.as_str(), "{report}");
    assert!(reached[0]["received"].as_u64() > Some(0), "{report}");
}

#[test]
fn the_real_codex_works_with_nothing_but_its_model_in_reach() {
    let scene = Scene::new();
    let variables = ["OPENAI_API_KEY=test", "OPENAI_BASE_URL=http://MODEL/v1"];

    let (run, at) = with_model_in_reach(&scene, "codex", &codex_image(), variables);

    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    let report = report(&scene.folder());
    assert_eq!(report["egress"]["reached"][0]["target"], at.as_str());
}

#[test]
fn what_is_not_on_the_list_is_refused_and_told_and_never_reached() {
    let scene = Scene::new();
    let (decoy, allowed) = (Decoy::open(), Decoy::open());
    let host = bridge_address(&scene);
    let script = format!(
        "{ASK} ask 'GET http://{host}:{} HTTP/1.1'; ask 'CONNECT {host}:{port} HTTP/1.1'; \
         ask 'GET http://127.0.0.1:{port}/ HTTP/1.1'; ask 'CONNECT 169.254.169.254:80 HTTP/1.1'",
        allowed.port,
        port = decoy.port
    );

    let run = Ended::of(&mut bash(
        &scene,
        &format!("allow:{host}:{}", allowed.port),
        &script,
    ));

    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    let raw = raw(&scene);
    assert_eq!(raw.matches("HTTP/1.1 200").count(), 1, "{raw}");
    assert_eq!(raw.matches("HTTP/1.1 403").count(), 3, "{raw}");
    assert!(
        raw.contains("not on this run's list of allowed hosts"),
        "{raw}"
    );
    assert_eq!((allowed.visits(), decoy.visits()), (1, 0));
    let report = report(&scene.folder());
    let denied = report["egress"]["denied"].as_array().unwrap();
    assert_eq!(denied.len(), 3, "{report}");
    assert!(
        run.stdout
            .contains("the agent asked for hosts that `network: allow` does not name"),
        "{}",
        run.stdout
    );
}

#[test]
fn there_is_no_other_way_out() {
    let scene = Scene::new();
    let decoy = Decoy::open();
    let host = bridge_address(&scene);
    let script = format!(
        "for to in {host}/{port} 127.0.0.1/{port} 1.1.1.1/53; do \
           (exec 3<>/dev/tcp/$to) 2>/dev/null && echo \"reached $to\"; done; \
         (exec 3<>/dev/udp/1.1.1.1/53 && echo x >&3) 2>/dev/null && echo 'sent udp'; \
         cat /proc/net/dev | tail -n +3 | cut -d: -f1 | tr -d ' '; getent hosts example.com; echo end",
        port = decoy.port
    );

    let run = Ended::of(&mut bash(&scene, "allow:example.com", &script));

    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    assert_eq!(raw(&scene), "lo\nend\n");
    assert_eq!(decoy.visits(), 0);
}

#[test]
fn runs_have_ways_of_their_own() {
    let scene = Scene::new();
    let (one, other) = (Decoy::open(), Decoy::open());
    let host = bridge_address(&scene);
    let script = format!(
        "{ASK} ask 'GET http://{host}:{}/ HTTP/1.1' | head -1; ask 'GET http://{host}:{}/ HTTP/1.1' | head -1",
        one.port, other.port
    );

    let first = bash(&scene, &format!("allow:{host}:{}", one.port), &script);
    let first = Running::start(&mut { first });
    let second = Scene::new();
    let second_run = Ended::of(&mut bash(
        &second,
        &format!("allow:{host}:{}", other.port),
        &script,
    ));
    let first_run = first.ended();

    assert_eq!(
        (first_run.code, second_run.code),
        (0, 0),
        "{}{}",
        first_run.stderr,
        second_run.stderr
    );
    let statuses = |scene: &Scene| -> Vec<String> {
        let raw = raw(scene);
        raw.lines()
            .map(|line| line.split(' ').nth(1).unwrap_or("").to_owned())
            .collect()
    };
    assert_eq!(statuses(&scene), ["200", "403"]);
    assert_eq!(statuses(&second), ["403", "200"]);
}

/// Starts a run that asks for the one host that it may reach, again and again until `done` is there.
fn asking(scene: &Scene, allowed: &Decoy) -> Running {
    let at = format!("{}:{}", bridge_address(scene), allowed.port);
    let script = format!(
        "{ASK} while [ ! -e done ]; do ask 'GET http://{at}/ HTTP/1.1' | head -1; touch asked; sleep 0.1; done"
    );
    let run = Running::start(&mut bash(scene, &format!("allow:{at}"), &script));
    scene.wait_for_file("asked");
    run
}

#[test]
fn a_killed_guard_shuts_the_way_and_the_next_one_opens_it_again() {
    let scene = Scene::new();
    let allowed = Decoy::open();
    let run = asking(&scene, &allowed);
    let pid = guard_pid(&scene);

    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let next = eventually("another guard", || {
        find_guard(&scene).filter(|next| *next != pid)
    });
    allowed.wait_for_a_visit();
    scene.project.write("done", "");
    let run = run.ended();

    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    assert_ne!(next, pid);
    let answers = raw(&scene);
    let fine =
        |line: &str| line.contains(" 200 ") || line.contains(" 503 ") || line.contains(" 502 ");
    assert!(answers.lines().all(fine), "{answers}");
}

#[test]
fn a_run_that_its_supervisor_left_keeps_its_way() {
    let scene = Scene::new();
    let allowed = Decoy::open();
    let run = asking(&scene, &allowed);

    run.crash();
    allowed.wait_for_a_visit();
    scene.project.write("done", "");
    scene.assert_recovers("succeeded");

    assert!(!raw(&scene).contains(" 503 "), "{}", raw(&scene));
}

#[test]
fn without_a_guard_the_agent_is_not_started() {
    let scene = Scene::new();
    // The guard's lock is a folder: none can start.
    let state = scene.installation.state_dir();
    std::fs::create_dir_all(state.join("guard.lock")).unwrap();

    let run = Ended::of(&mut bash(&scene, "allow:example.com", "touch started"));

    assert_ne!(run.code, 0);
    assert!(
        run.stdout.contains("the guard does not open its way out"),
        "{}{}",
        run.stdout,
        run.stderr
    );
    assert!(!scene.project.path().join("started").exists());
}

/// Returns what the scene's one run has printed.
pub(crate) fn raw(scene: &Scene) -> String {
    std::fs::read_to_string(scene.folder().join("raw.jsonl")).unwrap()
}

/// Returns the process of the scene's guard.
fn guard_pid(scene: &Scene) -> i32 {
    eventually("a guard", || find_guard(scene))
}

pub(crate) fn find_guard(scene: &Scene) -> Option<i32> {
    let state = scene.installation.state_dir();
    let words = |pid: &str| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .find_map(|entry| {
            let pid = entry.file_name().into_string().ok()?;
            let number = pid.parse().ok()?;
            let line = String::from_utf8_lossy(&words(&pid)).into_owned();
            let is_guard = line.ends_with("\0guard\0") && line.contains(&*state.to_string_lossy());
            is_guard.then_some(number)
        })
}
