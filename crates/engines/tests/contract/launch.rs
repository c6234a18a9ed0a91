//! What the agent finds when it starts: arguments, environment, clock, user, network, secrets.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use dark_factory_executor::clock::{Clock, SystemClock};
use dark_factory_executor::spec::{
    GitVisibility, LABEL_ATTEMPT, LABEL_OWNER, LABEL_PROJECT, LABEL_PROMPT,
};

use crate::site::Site;

pub(crate) async fn environment_values_are_exact(site: &Site) {
    let values = BTreeMap::from(
        [
            ("EMPTY", String::new()),
            ("EQUALS", "=a=b==".to_owned()),
            ("LARGE", "0123456789".repeat(10_000)),
            ("LINES", "\none\n\ntwo\r\n".to_owned()),
            ("QUOTES", "  'a' \"b\" $HOME ${X} `c` \\n %s #".to_owned()),
            ("UNICODE", "grüße 😀 \u{202e}x".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    let script: Vec<String> = values.keys().map(|name| format!("env {name}")).collect();
    let mut spec = site.spec(&script.join("; "));
    spec.env = values.clone();

    let (_, spool) = site.run(&spec).await;

    let expected: String = values.values().map(|value| format!("{value}\n")).collect();
    assert!(spool.text() == expected, "{:.2000}", spool.text());
}

pub(crate) async fn arguments_are_exact(site: &Site) {
    let script = "read /proc/self/cmdline\n#  two  blanks\ttab \"a\" 'b' $HOME `c` \\ ünï😀 * ~ --\n\n# end ";
    let spec = site.spec(script);

    let (_, spool) = site.run(&spec).await;

    let given: Vec<&str> = spec.command.iter().map(String::as_str).collect();
    assert_eq!(spool.text(), given.join("\0") + "\0");
}

pub(crate) async fn labels_are_ours_and_the_specs(site: &Site) {
    let dir = site.attempt();
    let mut spec = site.spec("");
    spec.labels = [("team", "grün = gut"), ("empty", "")]
        .map(|(label, value)| (label.to_owned(), value.to_owned()))
        .into();

    let handle = site.create(&spec, &dir).await;

    let labels = site.lab.labels(&handle.container);
    let attempt = dir.attempt().to_string();
    for (label, value) in [
        ("team", "grün = gut"),
        ("empty", ""),
        (LABEL_PROJECT, "contract"),
        (LABEL_PROMPT, "001"),
        (LABEL_OWNER, &site.owner.0),
        (LABEL_ATTEMPT, &attempt),
    ] {
        assert_eq!(
            labels.get(label).map(String::as_str),
            Some(value),
            "{label}"
        );
    }
}

pub(crate) async fn the_clock_is_the_machines(site: &Site) {
    let uptime = |text: &str| text.split('.').next().unwrap().parse::<u64>().unwrap();
    let here = || uptime(&fs::read_to_string("/proc/uptime").unwrap());
    let (before, up_before) = (SystemClock.now().as_second(), here());

    let (_, spool) = site.run(&site.spec("write out; read /proc/uptime")).await;

    let written = fs::metadata(site.file("out")).unwrap().mtime();
    assert!((before..=SystemClock.now().as_second()).contains(&written));
    let up = uptime(&spool.text());
    assert!((up_before..=here()).contains(&up), "{up} {up_before}");
}

pub(crate) async fn the_time_zone_is_what_the_environment_says(site: &Site) {
    let mut spec = site.spec("env TZ");

    let (_, unset) = site.run(&spec).await;
    spec.env = [("TZ".to_owned(), "Asia/Kathmandu".to_owned())].into();
    let (_, set) = site.run(&spec).await;

    assert_eq!(unset.text(), "TZ is not set\n");
    assert_eq!(set.text(), "Asia/Kathmandu\n");
}

pub(crate) async fn what_is_written_belongs_to_the_agents_user(site: &Site) {
    let (uid, gid) = site.lab.user();

    let (exit, spool) = site.run(&site.spec("write out done; id; pwd")).await;

    let written = fs::metadata(site.file("out")).unwrap();
    assert_eq!((exit.code, written.uid(), written.gid()), (0, uid, gid));
    assert_eq!(fs::read_to_string(site.file("out")).unwrap(), "done");
    assert_eq!(
        spool.text(),
        format!("uid={uid} gid={gid} cap_eff=0000000000000000 no_new_privs=1\n/workspace\n")
    );
}

pub(crate) async fn the_agent_writes_to_workspace_home_and_tmp_alone(site: &Site) {
    let allowed = "write /workspace/a x; write /tmp/a x; write /home/agent/a x";
    let refused = [
        "/a",
        "/bin/a",
        "/usr/a",
        "/etc/a",
        "/.dark-factory/a",
        "/.dark-factory/attempt/a",
        "/proc/sys/kernel/hostname",
    ];
    let script: Vec<String> = refused.map(|path| format!("write {path} x")).into();

    let (exit, spool) = site.run(&site.spec(allowed)).await;
    let (_, nowhere) = site.run(&site.spec(&script.join("; "))).await;

    assert_eq!((exit.code, spool.stderr().as_str()), (0, ""));
    let said = nowhere.stderr();
    let expected = refused.map(|path| format!("cannot write {path}: "));
    assert_eq!(said.lines().count(), refused.len(), "{said}");
    for (line, expected) in said.lines().zip(expected) {
        assert!(line.starts_with(&expected), "{line}");
    }
}

pub(crate) async fn home_and_tmp_hold_programs_but_no_devices_and_no_set_user_id(site: &Site) {
    let (_, spool) = site.run(&site.spec("read /proc/self/mounts")).await;

    let mounts = spool.text();
    for path in ["/tmp", "/home/agent"] {
        let mount = mounts
            .lines()
            .rfind(|line| line.split(' ').nth(1) == Some(path));
        let options = mount.unwrap().split(' ').nth(3).unwrap();
        let has = |option| options.split(',').any(|it| it == option);
        assert!(has("nosuid") && has("nodev") && !has("noexec"), "{options}");
    }
}

pub(crate) async fn secrets_are_files_and_nowhere_else(site: &Site) {
    let secret = ("token".to_owned(), "s3cret-value".to_owned());
    let dir = site.attempt_with("p", &[secret]);
    let mut spec =
        site.spec("read /run/secrets/token; ls /run/secrets; write /run/secrets/token x");
    spec.secrets = vec!["token".to_owned()];

    let handle = site.create(&spec, &dir).await;
    let known = site.lab.describe(&handle.container).unwrap();
    let (exit, spool) = site.run_in(&spec, &dir).await;

    assert_eq!(spool.text(), "s3cret-valuetoken\n");
    assert_eq!(exit.code, 1);
    assert!(!known.contains("s3cret-value"));
}

pub(crate) async fn a_hidden_git_is_empty_inside_and_untouched_outside(site: &Site) {
    let git = site.file(".git");
    let mut spec = site.spec("ls .git; print end");
    fs::create_dir(&git).unwrap();
    fs::write(git.join("HEAD"), "ref").unwrap();

    let (_, visible) = site.run(&spec).await;
    spec.workspace.git = GitVisibility::Hidden;
    let (_, folder) = site.run(&spec).await;
    let outside = fs::read_to_string(git.join("HEAD")).unwrap();
    fs::remove_dir_all(&git).unwrap();
    fs::write(&git, "gitdir: /elsewhere").unwrap();
    spec.command[2] = "read .git; print end".to_owned();
    spec.workspace.git_is_file = true;
    let (_, file) = site.run(&spec).await;

    assert_eq!(visible.text(), "HEAD\nend\n");
    assert_eq!(folder.text(), "end\n");
    assert_eq!(file.text(), "end\n");
    assert_eq!(outside, "ref");
}

pub(crate) async fn without_a_network_there_is_only_loopback(site: &Site) {
    let script = "read /proc/net/dev; connect 127.0.0.1:1; connect 192.0.2.1:80";

    let (_, spool) = site.run(&site.spec(script)).await;

    let said = spool.text();
    let interfaces: Vec<&str> = said
        .lines()
        .skip(2)
        .filter_map(|line| Some(line.split_once(':')?.0.trim()))
        .filter(|name| !name.contains(' '))
        .collect();
    assert_eq!(interfaces, ["lo"], "{said}");
    assert!(
        said.contains("connect 127.0.0.1:1 refused: Connection refused"),
        "{said}"
    );
    assert!(
        said.contains("connect 192.0.2.1:80 refused: Network"),
        "{said}"
    );
}
