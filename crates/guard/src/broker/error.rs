//! Answers of the broker itself, as the provider would give them.
//!
//! Owns: the shape of each provider's errors.
//! Reads: nothing.
//! Never: names a key.

use bytes::Bytes;
use dark_factory_types::Provider;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use crate::proxy::Body;

/// Why the broker does not pass a request on, or has no answer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The request is none that the provider could be asked.
    Malformed,
    /// The token is not this run's.
    Unauthenticated,
    /// The run has no such provider.
    NotGiven,
    /// The provider's API has no such path, as far as the broker passes on.
    NotFound,
    /// The run's budget does not allow it. Of a status that clients do not try again.
    Budget,
    /// The request is too long to be looked at first.
    TooLong,
    /// The client should come back without an upgrade of the protocol.
    NoUpgrade,
    /// The login with the provider has ended.
    LoggedOut,
    /// The provider did not answer, or not in time.
    Unreachable,
    /// It is to be asked again at once.
    Again,
    /// The guard cannot do its work.
    Internal,
}

impl Problem {
    fn status(self) -> StatusCode {
        match self {
            Self::Malformed | Self::Budget => StatusCode::BAD_REQUEST,
            Self::Unauthenticated | Self::LoggedOut => StatusCode::UNAUTHORIZED,
            Self::NotGiven => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoUpgrade => StatusCode::UPGRADE_REQUIRED,
            Self::Unreachable => StatusCode::BAD_GATEWAY,
            Self::Again => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn anthropic(self) -> &'static str {
        match self {
            Self::Malformed | Self::Budget | Self::NoUpgrade => "invalid_request_error",
            Self::Unauthenticated | Self::LoggedOut => "authentication_error",
            Self::NotGiven => "permission_error",
            Self::NotFound => "not_found_error",
            Self::TooLong => "request_too_large",
            Self::Unreachable | Self::Internal => "api_error",
            Self::Again => "overloaded_error",
        }
    }

    fn openai(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Malformed | Self::TooLong | Self::NoUpgrade | Self::NotFound => {
                ("invalid_request_error", None)
            }
            Self::Budget => ("insufficient_quota", Some("insufficient_quota")),
            Self::Unauthenticated | Self::LoggedOut => {
                ("invalid_request_error", Some("invalid_api_key"))
            }
            Self::NotGiven => ("invalid_request_error", Some("permission_denied")),
            Self::Unreachable | Self::Again | Self::Internal => ("server_error", None),
        }
    }

    fn gemini(self) -> &'static str {
        match self {
            Self::Malformed | Self::TooLong => "INVALID_ARGUMENT",
            Self::Budget | Self::NoUpgrade => "FAILED_PRECONDITION",
            Self::Unauthenticated | Self::LoggedOut => "UNAUTHENTICATED",
            Self::NotGiven => "PERMISSION_DENIED",
            Self::NotFound => "NOT_FOUND",
            Self::Unreachable | Self::Again => "UNAVAILABLE",
            Self::Internal => "INTERNAL",
        }
    }

    /// Makes the answer.
    pub(crate) fn response(self, provider: Provider, why: &str) -> Response<Body> {
        let status = self.status();
        let message = format!("dark-factory: {why}");
        let body: Value = match provider {
            Provider::Anthropic => {
                json!({"type": "error", "error": {"type": self.anthropic(), "message": message}})
            }
            Provider::Openai => {
                let (kind, code) = self.openai();
                json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
            }
            Provider::Gemini => {
                json!({"error": {"code": status.as_u16(), "message": message, "status": self.gemini()}})
            }
        };
        let body = Full::new(Bytes::from(body.to_string()));
        let mut response = Response::new(body.map_err(|never| match never {}).boxed());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self {
            Self::Again => {
                headers.insert("retry-after", HeaderValue::from_static("1"));
                headers.insert("x-should-retry", HeaderValue::from_static("true"));
            }
            Self::NoUpgrade => {
                headers.insert("upgrade", HeaderValue::from_static("HTTP/1.1"));
            }
            // The clients' libraries honour it: these do not change by themselves.
            Self::Budget | Self::NotGiven | Self::LoggedOut | Self::Unauthenticated => {
                headers.insert("x-should-retry", HeaderValue::from_static("false"));
            }
            _ => {}
        }
        response
    }
}
