//! Which provider a request is for, and what of its API it asks for.
//!
//! Owns: the paths that are passed on.
//! Reads: a request's method and address.
//! Never: passes on a path that it does not know: a key opens more than models.

use dark_factory_spool::EGRESS_PORT;
use dark_factory_types::Provider;
use hyper::{Method, Uri};

/// What a request asks of a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    /// An answer of a model. Its name, if that is part of the path.
    Model(Option<String>),
    /// Something that uses no tokens.
    Free,
}

/// Splits the address of a request to the broker; `None` if it is for somebody else.
///
/// Returns the provider and the path behind its name, which begins with `/` or is empty.
pub(crate) fn route(uri: &Uri) -> Option<(Provider, &str)> {
    // Some programs send their base address as to a proxy.
    if let Some(authority) = uri.authority() {
        let is_relay = matches!(authority.host(), "127.0.0.1" | "localhost" | "[::1]")
            && authority.port_u16() == Some(EGRESS_PORT)
            && uri.scheme_str() == Some("http");
        if !is_relay {
            return None;
        }
    }
    let path = uri.path().strip_prefix('/')?;
    Provider::ALL.into_iter().find_map(|provider| {
        let rest = path.strip_prefix(provider.name())?;
        (rest.is_empty() || rest.starts_with('/')).then_some((provider, rest))
    })
}

/// Returns what a request asks for; `None` if it is nothing that is passed on.
pub(crate) fn call(provider: Provider, method: &Method, path: &str) -> Option<Call> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:@/".contains(&byte);
    if !path.bytes().all(is_plain) {
        return None;
    }
    let mut parts: Vec<&str> = path.split('/').skip(1).collect();
    if parts.iter().any(|part| matches!(*part, "." | "..")) {
        return None;
    }
    if matches!(parts.first(), Some(&("v1" | "v1beta" | "v1alpha"))) {
        parts.remove(0);
    }
    let is_look = matches!(*method, Method::GET | Method::HEAD);
    match parts.as_slice() {
        // Whether there is anybody.
        [] | [""] if is_look => return Some(Call::Free),
        ["models"] if is_look => return Some(Call::Free),
        ["models", name] if is_look && !name.is_empty() => return Some(Call::Free),
        _ if *method != Method::POST => return None,
        _ => {}
    }
    match (provider, parts.as_slice()) {
        (Provider::Anthropic, ["messages"])
        | (
            Provider::Openai,
            ["responses" | "completions" | "embeddings"]
            | ["responses", "compact"]
            | ["chat", "completions"],
        ) => Some(Call::Model(None)),
        (Provider::Anthropic, ["messages", "count_tokens"]) => Some(Call::Free),
        (Provider::Gemini, ["models", call]) => match call.split_once(':')? {
            ("", _) => None,
            (model, "generateContent" | "streamGenerateContent") => {
                Some(Call::Model(Some(model.to_owned())))
            }
            (_, "countTokens") => Some(Call::Free),
            _ => None,
        },
        _ => None,
    }
}

/// Splits the parameters of a request into the keys among them and all the others, as they are written.
pub(crate) fn without_keys(query: &str) -> (Vec<String>, String) {
    let mut keys = Vec::new();
    let mut rest = String::new();
    for part in query.split('&') {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        if matches!(
            decoded(name).to_ascii_lowercase().as_str(),
            "key" | "api_key" | "access_token" | "oauth_token"
        ) {
            keys.push(decoded(value));
            continue;
        }
        if !rest.is_empty() {
            rest.push('&');
        }
        rest.push_str(part);
    }
    (keys, rest)
}

/// Returns a text of a query without its percent signs; one that stands for nothing stays.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(uri: &str) -> Option<(Provider, String)> {
        let uri = uri.parse().unwrap();
        route(&uri).map(|(provider, path)| (provider, path.to_owned()))
    }

    #[test]
    fn what_is_for_the_broker_is_told_by_path_and_by_the_relays_own_address() {
        let expected = Some((Provider::Anthropic, "/v1/messages".to_owned()));

        assert_eq!(routed("/anthropic/v1/messages?beta=true"), expected);
        assert_eq!(
            routed("http://127.0.0.1:3128/anthropic/v1/messages"),
            expected
        );
        assert_eq!(
            routed("http://localhost:3128/anthropic/v1/messages"),
            expected
        );
        assert_eq!(routed("/gemini"), Some((Provider::Gemini, String::new())));
        for other in [
            "/anthropics/v1/messages",
            "/v1/messages",
            "/",
            "http://127.0.0.1:80/anthropic/v1/messages",
            "http://api.example:3128/anthropic/v1/messages",
            "https://127.0.0.1:3128/anthropic/v1/messages",
        ] {
            assert_eq!(routed(other), None, "{other}");
        }
    }

    #[test]
    fn only_known_calls_are_passed_on() {
        let post = |provider, path: &str| call(provider, &Method::POST, path);
        let model = Some(Call::Model(None));

        assert_eq!(post(Provider::Anthropic, "/v1/messages"), model);
        assert_eq!(
            post(Provider::Anthropic, "/v1/messages/count_tokens"),
            Some(Call::Free)
        );
        assert_eq!(post(Provider::Openai, "/responses"), model);
        assert_eq!(post(Provider::Openai, "/v1/chat/completions"), model);
        assert_eq!(
            post(
                Provider::Gemini,
                "/v1beta/models/gemini-3-pro:streamGenerateContent"
            ),
            Some(Call::Model(Some("gemini-3-pro".to_owned())))
        );
        assert_eq!(
            call(Provider::Openai, &Method::GET, "/v1/models"),
            Some(Call::Free)
        );
        for path in [
            "/v1/files",
            "/v1/messages/batches",
            "/v1/organizations/api_keys",
            "/v1/../v1/messages",
            "/v1/./messages",
            "/v1//messages",
            "/v1/%6dessages",
            "/v1/messages/",
            "/v1/messages;x",
        ] {
            assert_eq!(post(Provider::Anthropic, path), None, "{path}");
        }
        assert_eq!(
            call(Provider::Anthropic, &Method::GET, "/v1/messages"),
            None
        );
        assert_eq!(
            call(Provider::Anthropic, &Method::DELETE, "/v1/models/x"),
            None
        );
    }

    #[test]
    fn keys_are_found_among_parameters_in_any_spelling() {
        assert_eq!(
            without_keys("alt=sse&key=a%2Bb&%6Bey=c&KEY=d&x=%zz"),
            (
                vec!["a+b".to_owned(), "c".to_owned(), "d".to_owned()],
                "alt=sse&x=%zz".to_owned()
            )
        );
        assert_eq!(without_keys("beta=true").1, "beta=true");
    }
}
