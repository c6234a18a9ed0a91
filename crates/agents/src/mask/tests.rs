use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use dark_factory_types::{EventStream, PlanItem, PlanState, Usage};
use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::json::clip;

const SECRET: &str = "sk-a/b+\"c\\d é?>~&<xyz0123456789";

fn mask() -> Mask {
    Mask::new([SECRET])
}

fn is_hidden(text: &str) -> bool {
    let masked = mask().text(text).into_owned();
    masked.contains(MASK) && masked.len() < text.len()
}

#[test]
fn a_secret_is_hidden_in_every_usual_form() {
    let json = serde_json::to_string(SECRET).unwrap();
    for text in [
        format!("key={SECRET}."),
        json.clone(),
        serde_json::to_string(&json).unwrap(),
        json.replace('<', "\\u003c")
            .replace('>', "\\u003e")
            .replace('&', "\\u0026"),
        "sk-a%2Fb%2B%22c%5Cd%20%C3%A9%3F%3E~%26%3Cxyz0123456789".to_owned(),
        "sk-a%2fb%2b%22c%5cd%20%c3%a9%3f%3e~%26%3cxyz0123456789".to_owned(),
        "sk-a/b%2B%22c%5Cd%20%C3%A9%3F%3E~%26%3Cxyz0123456789".to_owned(),
        "sk-a%2Fb%2B%22c%5Cd+%C3%A9%3F%3E~%26%3Cxyz0123456789".to_owned(),
    ] {
        assert!(is_hidden(&text), "{text} → {}", mask().text(&text));
    }
    assert_eq!(mask().text(&format!("a {SECRET} b")), "a *** b");
}

#[test]
fn base64_is_found_at_every_alignment_and_with_and_without_padding() {
    for before in ["", "u", "u:", "us:", "user:"] {
        for behind in ["", "\n", "\n\n", "…"] {
            let plain = format!("{before}{SECRET}{behind}");
            for text in [
                STANDARD.encode(&plain),
                STANDARD_NO_PAD.encode(&plain),
                URL_SAFE.encode(&plain),
            ] {
                let masked = mask().text(&text).into_owned();

                let left = text.len() - SECRET.len() * 4 / 3;
                assert!(masked.contains(MASK), "{plain}: {text}");
                assert!(masked.len() <= left + MASK.len() + 2, "{plain}: {masked}");
            }
        }
    }
}

#[test]
fn values_that_tell_nothing_are_not_hidden() {
    let mask = Mask::new([
        "", "abc", "true", "1000", "200000", "Enabled", "xxxxxxxx", " \n ",
    ]);

    assert!(mask.is_empty());
    assert!(matches!(mask.text("true 1000 200000"), Cow::Borrowed(_)));
    assert!(!Mask::new(["0123456789"]).is_empty());
}

#[test]
fn secrets_that_overlap_leave_nothing_of_either() {
    let mask = Mask::new(["first-half", "half-second", "first-half-and-more"]);

    assert_eq!(mask.text("a first-half-second b"), "a *** b");
    assert_eq!(mask.text("first-half-and-more"), "***");
    assert_eq!(mask.text("first-halffirst-half"), "***");
}

#[test]
fn a_key_of_several_lines_is_hidden_as_a_whole_and_line_by_line() {
    let key =
        "-----BEGIN KEY-----\nQUJDREVGR0hJSktMTU5PUA\nUVJTVFVWV1hZWmFiY2RlZg\n-----END KEY-----\n";
    let mask = Mask::new([key]);

    assert_eq!(mask.text(&format!("{key}.")), "***\n.");
    for line in key.lines() {
        assert_eq!(mask.text(line) == MASK, !line.starts_with("-----"));
    }
}

#[test]
fn a_very_long_secret_is_hidden_as_a_whole() {
    let secret: String = (0..20_000).map(|number| format!("{number:x}")).collect();
    let mask = Mask::new([&secret]);

    assert_eq!(mask.text(&format!("<{secret}>")), "<***>");
    let json = serde_json::to_string(&secret).unwrap();
    assert_eq!(mask.text(&json), "\"***\"");
}

#[test]
fn a_secret_that_was_cut_in_the_middle_of_a_long_text_is_hidden() {
    let secret = "sk-ant-0123456789abcdefghijklmnop";
    let mask = Mask::new([secret]);
    for before in 0..200 {
        let text = format!("{}{secret}{}", "x".repeat(before), "y".repeat(400 - before));
        for max in [120, 160] {
            let clipped = clip(&text, max);

            let masked = mask.text(&clipped);

            for at in 0..=secret.len() - TELLING {
                let piece = &secret[at..at + TELLING];
                assert!(!masked.contains(piece), "{before} {max} {masked}");
            }
        }
    }
}

#[test]
fn a_secret_that_a_long_text_ends_within_is_hidden() {
    let text = format!("{}{}", "x".repeat(300), &SECRET[..12]);

    assert_eq!(mask().text(&text), format!("{}***", "x".repeat(300)));
    assert_eq!(mask().text(&SECRET[..12]), &SECRET[..12]);
}

fn event(kind: EventKind) -> Event {
    Event {
        seq: 1,
        at: Timestamp::UNIX_EPOCH,
        stream: EventStream::Stdout,
        offset: 2,
        len: 3,
        parent: Some(SECRET.to_owned()),
        kind,
    }
}

#[test]
fn no_text_of_any_event_keeps_a_secret() {
    let secret = || SECRET.to_owned();
    let input = serde_json::json!({ "command": SECRET, SECRET: [SECRET] }).to_string();
    for kind in [
        EventKind::Started {
            session_id: Some(secret()),
            model: Some(secret()),
            cwd: Some(secret()),
            tools: 1,
        },
        EventKind::Resumed,
        EventKind::Text { text: secret() },
        EventKind::Thinking { text: secret() },
        EventKind::ToolStart {
            id: secret(),
            name: secret(),
            class: Default::default(),
            input,
        },
        EventKind::ToolEnd {
            id: secret(),
            name: secret(),
            ok: true,
            exit_code: None,
            output: secret(),
            output_len: 1,
            duration_ms: None,
        },
        EventKind::FileChange {
            path: secret(),
            op: dark_factory_types::FileOp::Add,
        },
        EventKind::Plan {
            items: vec![PlanItem {
                text: secret(),
                state: PlanState::Pending,
            }],
        },
        EventKind::Retry {
            attempt: 1,
            max_attempts: 2,
            delay_ms: 3,
            http_status: Some(4),
            reason: secret(),
        },
        EventKind::RateLimit {
            status: secret(),
            window: secret(),
            utilization: Some(0.5),
            resets_at: Some(Timestamp::UNIX_EPOCH),
        },
        EventKind::Notice {
            level: dark_factory_types::NoticeLevel::Info,
            text: secret(),
        },
        EventKind::Denied {
            tool: secret(),
            message: secret(),
        },
        EventKind::TurnEnd {
            ok: true,
            class: None,
            reason: secret(),
            text: secret(),
            duration_ms: None,
            cost_usd: Some(0.1),
            usage: Usage::default(),
        },
        EventKind::Line { text: secret() },
        EventKind::Unparsed {
            why: dark_factory_types::UnparsedReason::UnknownType { name: secret() },
        },
    ] {
        let mut masked = event(kind.clone());

        mask().event(&mut masked);

        let json = serde_json::to_string(&masked).unwrap();
        assert!(!json.contains("xyz0123456789"), "{json}");
        assert_eq!(
            std::mem::discriminant(&masked.kind),
            std::mem::discriminant(&kind)
        );
        assert_eq!(masked.seq, 1);
        if let EventKind::ToolStart { input, .. } = &masked.kind {
            assert_eq!(input, r#"{"command":"***","***":["***"]}"#);
        }
    }
}

#[test]
fn the_input_of_a_call_stays_json() {
    let mut masked = event(EventKind::ToolStart {
        id: String::new(),
        name: String::new(),
        class: Default::default(),
        input: r#"{"pin":1234567890123}"#.to_owned(),
    });

    Mask::new(["1234567890123"]).event(&mut masked);

    let EventKind::ToolStart { input, .. } = masked.kind else {
        unreachable!()
    };
    assert_eq!(input, r#""{\"pin\":***}""#);
}

#[test]
fn nothing_of_a_secret_is_in_the_masks_own_words() {
    assert_eq!(format!("{:?}", mask()), "Mask");
}

proptest! {
    #[test]
    fn a_secret_is_never_left_in_a_text(secret in "[ -~]{6,40}", before in any::<String>(), behind in any::<String>()) {
        let mask = Mask::new([&secret]);
        prop_assume!(!mask.is_empty());
        let secret = secret.trim();
        prop_assume!(!MASK.contains(secret));

        let masked = mask.text(&format!("{before}{secret}{behind}")).into_owned();

        prop_assert!(!masked.contains(secret), "{masked:?}");
    }
}
