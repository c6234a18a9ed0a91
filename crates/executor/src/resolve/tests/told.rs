//! What an agent is told of its limits, and which are told at all.

use super::*;
use crate::resolve::told::prompt_with;
use crate::settings::parse_memory;

fn told(fixture: &Fixture, front_matter: &str) -> Option<String> {
    limits_section(&fixture.spec(front_matter))
}

#[test]
fn the_defaults_are_told_in_words() {
    let fixture = Fixture::new();
    let front_matter = "agent: claude\nimage: i";

    let resolved = fixture
        .resolve_file("prompts/p.md", front_matter)
        .expect("it can be launched");

    assert_eq!(resolved.prompt_text, "do it\n");
    let section = limits_section(&resolved.spec).expect("claude is told");
    assert_eq!(
        prompt_with(&resolved.prompt_text, &section),
        "do it

## Limits of this run

You work unattended in a container that dark-factory made; nobody answers questions. These are its limits.

- Memory: 2 GiB, swap included. What needs more is killed, and with it perhaps the run.
- CPUs: 2.
- Processes and threads: 512 at the same time.
- Open files: 65536 in each process.
- One file: 16 GiB at most.
- Output of yours, standard output and standard error together: 1 GiB. Beyond it the run is ended.
- Files: the root file system is read-only. You may write to `/workspace` (the project), `/tmp` and the home \
`/home/agent`. The last two are in memory, and count against its limit, and are gone at the end.
- Network: only the API of anthropic (at the address in the environment) can be reached, with HTTP and HTTPS through the proxy that the environment names. \
A request for anything else gets a 403 whose text begins with `dark-factory:` and names the rule: do not look for a way \
around it, but tell the user what you needed and what the text says.
"
    );
}

#[test]
fn whatever_is_set_is_told_as_it_is_set() {
    let mut fixture = Fixture::new();
    fixture.flags.memory = Some(Sourced::flag("--memory", parse_memory("512m").unwrap()));
    let front_matter = "agent: claude\nimage: i\nmemory: 8g\ncpus: 0.5\npids: 64\nopen-files: 1024\n\
                        file-size: 1g\ntimeout: 90m\nidle-timeout: 15m\nlog-limit: none\nworkspace: /src\nmount: [../data:/cache, docs:/docs:ro]\n\
                        network: {allow: [crates.io, '*.example.com:8080']}\nmax-tokens: 100000\nmax-requests: 50\n\
                        max-cost: 2.5";

    let spec = fixture
        .resolve_file("prompts/p.md", front_matter)
        .expect("it can be launched")
        .spec;

    assert_eq!(
        limits_section(&spec).expect("claude is told"),
        "## Limits of this run

You work unattended in a container that dark-factory made; nobody answers questions. These are its limits.

- Memory: 512 MiB, swap included. What needs more is killed, and with it perhaps the run.
- CPUs: 0.5.
- Processes and threads: 64 at the same time.
- Open files: 1024 in each process.
- One file: 1 GiB at most.
- Wall time: 1h30m from the start. Then the run is ended.
- Time without any output: 15m. Then the run is ended.
- Files: the root file system is read-only. You may write to `/src` (the project), `/cache`, `/tmp` and the home \
`/home/agent`. The last two are in memory, and count against its limit, and are gone at the end.
- Network: only the API of anthropic (at the address in the environment), `crates.io`, `*.example.com:8080` can be reached, with HTTP and HTTPS through the \
proxy that the environment names. A request for anything else gets a 403 whose text begins with `dark-factory:` and \
names the rule: do not look for a way around it, but tell the user what you needed and what the text says.
- Budget: 100000 tokens, 50 requests to a model, $2.50 by our table of list prices. Once it is used up the run is ended.
"
    );
}

#[test]
fn a_network_is_told_in_words() {
    let fixture = Fixture::new();
    for (network, expected) in [
        (
            "open",
            "- Network: open. The internet can be reached as far as this machine reaches it.",
        ),
        (
            "none",
            "- Network: none. Nothing but the container's own loopback can be reached, so nothing can be downloaded.",
        ),
        (
            "{allow: []}",
            "- Network: none. Nothing but the container's own loopback can be reached, so nothing can be downloaded.",
        ),
    ] {
        let section = told(&fixture, &format!("tell-limits: true\nnetwork: {network}"));

        let section = section.expect("it is to be told");
        assert_eq!(section.lines().last(), Some(expected), "{network}");
    }
}

#[test]
fn a_container_with_a_writable_root_is_told_as_one() {
    let fixture = Fixture::new();

    let section = told(&fixture, "profile: seed\ntell-limits: true").expect("it is to be told");

    assert!(
        section.contains(
            "- Files: what you write is gone at the end, except in `/workspace` (the project).\n"
        ),
        "{section}"
    );
    assert!(!section.contains("Memory"), "{section}");
}

#[test]
fn who_reads_prose_is_told_unless_it_is_said_otherwise() {
    let mut fixture = Fixture::new();
    for key in ["OPENAI_API_KEY", "GEMINI_API_KEY"] {
        fixture.host.env.insert(key.to_owned(), "k".to_owned());
    }
    for (front_matter, is_told) in [
        ("agent: claude", true),
        ("agent: codex", true),
        ("agent: gemini", true),
        ("agent: command", false),
        ("agent: claude\ntell-limits: false", false),
        ("agent: command\ntell-limits: true", true),
        ("agent: command\nprofile: seed", false),
        ("agent: command\nprofile: seed\ntell_limits: true", true),
    ] {
        let resolved = fixture.resolve_file("prompts/p.md", &format!("image: i\n{front_matter}"));

        let spec = resolved.expect("it can be launched").spec;
        assert_eq!(limits_section(&spec).is_some(), is_told, "{front_matter}");
    }
}
