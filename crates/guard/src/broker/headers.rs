//! The headers of requests that go to a provider, and of its answers.
//!
//! Owns: where credentials stand, and what does not leave the run or come back to it.
//! Reads: nothing else.
//! Never: passes on a credential of the run.

use dark_factory_types::Provider;
use hyper::HeaderMap;
use hyper::header::{ACCEPT_ENCODING, AUTHORIZATION, HOST, HeaderName, HeaderValue, SET_COOKIE};

use crate::proxy::strip;

/// What Anthropic wants to be told with a token of a login.
const OAUTH_BETA: &str = "oauth-2025-04-20";
const BETA: HeaderName = HeaderName::from_static("anthropic-beta");
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const X_GOOG_API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");

/// Headers of the run that go no further: credentials, and what is about the way it came.
const DROPPED: [&str; 13] = [
    "authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "cookie",
    "cookie2",
    "forwarded",
    "via",
    "x-real-ip",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "expect",
];

/// What the provider is shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Shown {
    Key(String),
    /// A bearer token; whether it is one of a login.
    Bearer(String),
}

/// Returns the credentials that a request shows in its headers.
pub(crate) fn shown(headers: &HeaderMap) -> Vec<&str> {
    let text = |value: &'static str| {
        headers
            .get_all(value)
            .into_iter()
            .filter_map(|v| v.to_str().ok())
    };
    let bearer = text("authorization").filter_map(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("bearer")
            .then_some(token.trim())
    });
    bearer
        .chain(text("x-api-key"))
        .chain(text("x-goog-api-key"))
        .collect()
}

/// Returns whether two texts are the same, in a time that tells nothing of where they differ.
pub(crate) fn is_same(a: &str, b: &str) -> bool {
    let differ = a
        .bytes()
        .zip(b.bytes())
        .fold(0, |differ, (a, b)| std::hint::black_box(differ | (a ^ b)));
    a.len() == b.len() && !b.is_empty() && differ == 0
}

/// Makes a request's headers those that the provider gets.
///
/// # Errors
///
/// If the key cannot stand in a header.
pub(crate) fn prepare(
    headers: &mut HeaderMap,
    provider: Provider,
    shown: &Shown,
) -> Result<(), hyper::header::InvalidHeaderValue> {
    strip(headers);
    for name in DROPPED {
        headers.remove(name);
    }
    let forwarded: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-forwarded"))
        .cloned()
        .collect();
    for name in forwarded {
        headers.remove(name);
    }
    // The client sets it from the address.
    headers.remove(HOST);
    // What was used is read from the answer.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let secret = |text: &str| {
        let mut value = HeaderValue::from_str(text)?;
        value.set_sensitive(true);
        Ok(value)
    };
    match (provider, shown) {
        (Provider::Anthropic, Shown::Key(key)) => headers.insert(X_API_KEY, secret(key)?),
        (Provider::Gemini, Shown::Key(key)) => headers.insert(X_GOOG_API_KEY, secret(key)?),
        (_, Shown::Key(key) | Shown::Bearer(key)) => {
            headers.insert(AUTHORIZATION, secret(&format!("Bearer {key}"))?)
        }
    };
    if provider == Provider::Anthropic && matches!(shown, Shown::Bearer(_)) {
        let has = headers
            .get_all(BETA)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let is_there = has
            .flat_map(|value| value.split(','))
            .any(|beta| beta.trim() == OAUTH_BETA);
        if !is_there {
            headers.append(BETA, HeaderValue::from_static(OAUTH_BETA));
        }
    }
    Ok(())
}

/// Makes an answer's headers those that the run gets.
pub(crate) fn clean(headers: &mut HeaderMap) {
    strip(headers);
    headers.remove(SET_COOKIE);
    headers.remove("alt-svc");
}
