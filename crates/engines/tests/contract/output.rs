//! Every byte that an agent prints, once and in order.

use std::fmt::Write;

use dark_factory_executor::spec::AttemptDir;
use dark_factory_executor::spool::SpoolReader;
use dark_factory_init::{long_line, spew};
use dark_factory_spool::{End, Kind};
use futures_util::future::join_all;

use crate::site::{Site, until};
use crate::spool::Spool;

pub(crate) async fn both_streams_are_byte_equal_for_20_mb(site: &Site) {
    const PIECE: usize = 16 << 10;
    let letters = String::from_utf8(spew(20 << 20, PIECE)).unwrap();
    let mut script = String::new();
    for line in letters.lines() {
        write!(script, "print {line}\nstderr {line}\n").unwrap();
    }
    site.write("script", script);
    let mut spec = site.spec("");
    spec.command = vec![site.lab.agent(), "/workspace/script".to_owned()];

    let (exit, spool) = site.run(&spec).await;

    assert_eq!(exit.code, 0);
    assert!(spool.is_complete());
    assert!(spool.stdout() == letters.as_bytes(), "the outputs differ");
    assert!(spool.stderr() == letters, "the errors differ");
}

pub(crate) async fn a_line_of_64_mib_is_byte_equal(site: &Site) {
    let (exit, spool) = site.run(&site.spec("line 64m")).await;

    assert_eq!(exit.code, 0);
    assert!(spool.is_complete());
    assert!(spool.stdout() == long_line(64 << 20), "the lines differ");
}

pub(crate) async fn the_first_and_the_last_byte_are_there(site: &Site) {
    let runs = join_all([1, 2, 3, 4].map(async |_| {
        let script = "bytes 00; spew 100k; stderr last; bytes fe; kill-self KILL";
        site.run(&site.spec(script)).await.1
    }))
    .await;

    let expected = [&[0][..], &spew(100 << 10, 80), &[0xfe]].concat();
    for spool in runs {
        assert!(spool.stdout() == expected, "the outputs differ");
        assert_eq!(spool.stderr(), "last\n");
        assert_eq!(spool.exit.as_ref().unwrap().end, End::Signal(9));
        assert!(spool.is_complete());
    }
}

pub(crate) async fn bytes_that_are_no_text_stay_as_they_are(site: &Site) {
    let all: Vec<u8> = (0..=255).rev().collect();
    let hex: String = all.iter().map(|byte| format!("{byte:02x}")).collect();
    let script = format!("bytes {hex}; bytes c3; bytes 28; bytes eda080; bytes 0d0a00");

    let (_, spool) = site.run(&site.spec(&script)).await;

    let rest = [0xc3, 0x28, 0xed, 0xa0, 0x80, 0x0d, 0x0a, 0x00];
    assert_eq!(spool.stdout(), [&all[..], &rest].concat());
    assert!(spool.is_complete());
}

pub(crate) async fn two_followers_see_the_same_bytes(site: &Site) {
    let script = "spew 3m; write begun; wait-file go; spew 3m; print end; exit 4";
    let (workload, dir) = site.begin(script).await;
    let other = site.lab.engine();
    let found = site.found(&*other, workload.handle()).await;

    let (first, second, ends, ()) = tokio::join!(
        follow(&dir),
        follow(&dir),
        async { tokio::join!(workload.wait(), found.wait()) },
        async { drop(site.write("go", "")) }
    );

    let expected = [spew(3 << 20, 80), spew(3 << 20, 80), b"end\n".to_vec()].concat();
    assert!(first == expected && second == expected);
    assert_eq!((ends.0.unwrap().code, ends.1.unwrap().code), (4, 4));
}

/// Reads a spool while it is written; returns its standard output.
async fn follow(dir: &AttemptDir) -> Vec<u8> {
    let mut reader = SpoolReader::open(dir, Some(dir.attempt())).unwrap();
    let mut output = Vec::new();
    until("the exit record is read", async || {
        while let Some(record) = reader.next_record().unwrap() {
            match record.header.kind {
                Kind::Data => output.extend(record.payload),
                Kind::Exit => return true,
                _ => {}
            }
        }
        false
    })
    .await;
    output
}

pub(crate) async fn the_prompt_is_on_the_standard_input_and_in_its_file(site: &Site) {
    let prompt = "Zeile 1\r\n\t\"$HOME\" `x` \\ ünï😀\n\n".repeat(30_000);
    let dir = site.attempt_with(&prompt, &[]);
    let mut spec = site.spec("prompt; read /.dark-factory/attempt/prompt.md");

    let (_, spool) = site.run_in(&spec, &dir).await;
    spec.command[2] = "prompt".to_owned();
    let empty = site.attempt_with("", &[]);
    let (exit, nothing) = site.run_in(&spec, &empty).await;

    assert!(spool.text() == prompt.repeat(2), "the prompts differ");
    assert_eq!((exit.code, nothing.stdout()), (0, &[][..]));
}

pub(crate) async fn what_outlives_the_agent_writes_nothing_more(site: &Site) {
    let script = "fork 'write child; sleep 1h; print late'; wait-file child; print done; exit 3";
    let (workload, dir) = site.start(&site.spec(script)).await;

    let exit = workload.wait().await.unwrap();

    let spool = Spool::read(&dir);
    assert_eq!((exit.code, spool.text().as_str()), (3, "done\n"));
    assert_eq!(spool.exit.as_ref().unwrap().leftovers, 1);
    assert!(spool.is_complete());
}
