//! What came of a run's requests, added up.
//!
//! Owns: the adding up.
//! Reads: a run's journal.
//! Never: fails over a line that it cannot read.

use std::collections::BTreeMap;
use std::io::{self, BufRead};

use dark_factory_types::{BrokeredUse, EgressCount, EgressSummary, Provider, Usage};

use crate::journal::{Entry, Fate};

/// Targets of one kind, and models, that are told apart.
const TARGETS: usize = 100;

/// Adds up the entries of a journal, one JSON object a line.
///
/// # Errors
///
/// The reader's.
pub fn summarise(journal: impl BufRead) -> io::Result<EgressSummary> {
    let mut counts = [(); 3].map(|()| BTreeMap::<String, EgressCount>::new());
    let mut used = BTreeMap::<(Provider, String), BrokeredUse>::new();
    let mut omitted = false;
    for line in journal.split(b'\n') {
        let Ok(entry) = serde_json::from_slice::<Entry>(&line?) else {
            continue;
        };
        let (kind, why, bytes) = match entry.fate {
            Fate::Reached { sent, received, .. } => (0, None, [sent, received]),
            Fate::Denied { why } => (1, Some(why), [0, 0]),
            Fate::Failed { why } => (2, Some(why), [0, 0]),
            Fate::Brokered {
                provider,
                model,
                status,
                usage,
                ..
            } => {
                let Some(used) = used_of(&mut used, provider, model) else {
                    omitted = true;
                    continue;
                };
                match is_success(status) {
                    true => used.requests += 1,
                    false => used.failed += 1,
                }
                if let Some(usage) = usage {
                    used.usage.add(&usage);
                }
                continue;
            }
            Fate::BrokerRefused {
                provider, model, ..
            } => {
                match used_of(&mut used, provider, model) {
                    Some(used) => used.failed += 1,
                    None => omitted = true,
                }
                continue;
            }
            // Its end is told by another entry.
            Fate::Asked { .. } => continue,
            Fate::Omitted => {
                omitted = true;
                continue;
            }
        };
        let counts = &mut counts[kind];
        if counts.len() == TARGETS && !counts.contains_key(&entry.target) {
            omitted = true;
            continue;
        }
        let count = counts
            .entry(entry.target.clone())
            .or_insert_with(|| EgressCount {
                target: entry.target,
                requests: 0,
                sent: 0,
                received: 0,
                why: None,
            });
        count.requests += 1;
        count.sent = count.sent.saturating_add(bytes[0]);
        count.received = count.received.saturating_add(bytes[1]);
        count.why = why.or(count.why.take());
    }
    let [reached, denied, failed] = counts.map(|counts| counts.into_values().collect());
    Ok(EgressSummary {
        reached,
        denied,
        failed,
        brokered: used.into_values().collect(),
        omitted,
    })
}

/// Returns whether an answer's status is a success.
pub(crate) fn is_success(status: Option<u16>) -> bool {
    status.is_some_and(|status| (200..300).contains(&status))
}

/// Returns what was used of a model, if there is a place for it.
fn used_of(
    used: &mut BTreeMap<(Provider, String), BrokeredUse>,
    provider: Provider,
    model: Option<String>,
) -> Option<&mut BrokeredUse> {
    let key = (provider, model.unwrap_or_default());
    if used.len() == TARGETS && !used.contains_key(&key) {
        return None;
    }
    Some(used.entry(key.clone()).or_insert_with(|| BrokeredUse {
        provider,
        model: key.1,
        requests: 0,
        failed: 0,
        usage: Usage::default(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_added_up_by_what_came_of_them_and_target() {
        let journal = r#"{"at":"1970-01-01T00:00:00Z","target":"a.example:443","fate":{"kind":"reached","address":"9.9.9.9:443","sent":1,"received":2,"duration_ms":3}}
{"at":"1970-01-01T00:00:00Z","target":"a.example:443","fate":{"kind":"reached","address":"9.9.9.9:443","sent":10,"received":20,"duration_ms":3}}
{"at":"1970-01-01T00:00:00Z","target":"b.example:443","fate":{"kind":"denied","why":"no"}}
{"at":"1970-01-01T00:00:00Z","target":"a.example:443","fate":{"kind":"failed","why":"down"}}
half a line"#;

        let summary = summarise(journal.as_bytes()).unwrap();

        let [reached] = summary.reached.as_slice() else {
            panic!("{summary:?}")
        };
        assert_eq!(
            (reached.requests, reached.sent, reached.received),
            (2, 11, 22)
        );
        assert_eq!(summary.denied[0].why.as_deref(), Some("no"));
        assert_eq!(summary.failed[0].target, "a.example:443");
        assert!(!summary.omitted);
    }
}
