//! A question to the engine, read as little of as is needed.
//!
//! Owns: one connection for each question, to the last byte of its answer.
//! Reads: the answer's status, and the parts of its JSON that the caller names.
//! Never: changes anything: it only gets. The client does the same with three times the work, which counts in what is asked
//! for each run and each look.

use std::io;

use bollard::errors::Error as ClientError;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::endpoint::Address;

/// More than any answer to a question about one thing.
const MAX_ANSWER: u64 = 64 << 20;
/// Room for most answers.
const USUAL_ANSWER: usize = 16 << 10;

/// An error as the engine writes it.
#[derive(Debug, Deserialize)]
struct Refusal {
    message: String,
}

/// Gets what is at a path of the engine's API.
pub(super) async fn get<T: DeserializeOwned>(
    address: &Address,
    path: &str,
) -> Result<T, ClientError> {
    let io = |err| ClientError::IOError { err };
    let answer = match address {
        Address::Unix(socket) => {
            let stream = UnixStream::connect(socket).await.map_err(io)?;
            ask(stream, path).await
        }
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address).await.map_err(io)?;
            ask(stream, path).await
        }
    };
    read(&answer.map_err(io)?)
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> io::Result<Vec<u8>> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(USUAL_ANSWER);
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// Reads a whole answer.
fn read<T: DeserializeOwned>(answer: &[u8]) -> Result<T, ClientError> {
    let (status, body) = parts(answer).map_err(|err| ClientError::IOError { err })?;
    if status == 200 {
        return serde_json::from_slice(&body).map_err(|err| ClientError::JsonSerdeError { err });
    }
    let message = serde_json::from_slice::<Refusal>(&body).map_or_else(
        |_| String::from_utf8_lossy(&body).trim().to_owned(),
        |refusal| refusal.message,
    );
    Err(ClientError::DockerResponseServerError {
        status_code: status,
        message,
    })
}

/// Returns an answer's status and body; one that was cut is an error.
fn parts(answer: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    let (head, body) = split(answer, b"\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1."))
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .ok_or(io::ErrorKind::InvalidData)?;
    let value = |name: &str| {
        lines.clone().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    if value("transfer-encoding").is_some_and(|how| how.eq_ignore_ascii_case("chunked")) {
        return Ok((status, joined(body)?));
    }
    match value("content-length").map(str::parse::<usize>) {
        Some(Ok(length)) if body.len() == length => Ok((status, body.to_vec())),
        Some(Ok(_)) => Err(io::ErrorKind::UnexpectedEof.into()),
        // Without it a whole body and a cut one look the same.
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Joins the chunks of a body, up to the empty one that ends it.
fn joined(mut rest: &[u8]) -> io::Result<Vec<u8>> {
    let mut body = Vec::with_capacity(rest.len());
    loop {
        let (size, chunk) = split(rest, b"\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let size = str::from_utf8(size)
            .ok()
            .and_then(|size| usize::from_str_radix(size.split(';').next()?.trim(), 16).ok())
            .ok_or(io::ErrorKind::InvalidData)?;
        if size == 0 {
            return Ok(body);
        }
        let end = size.checked_add(2).ok_or(io::ErrorKind::InvalidData)?;
        let chunk_and_end = chunk.get(..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        body.extend_from_slice(&chunk_and_end[..size]);
        rest = &chunk[end..];
    }
}

/// Returns a text as it is written into the value of a query.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.extend(['%', hex(byte >> 4), hex(byte & 15)]);
        }
    }
    encoded
}

fn hex(digit: u8) -> char {
    char::from(b"0123456789ABCDEF"[usize::from(digit)])
}

/// Splits bytes at the first place where a mark is, which is dropped.
fn split<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes
        .windows(mark.len())
        .position(|window| window == mark)?;
    Some((&bytes[..at], &bytes[at + mark.len()..]))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n{\"a\":[\r\n3\r\n1]}\r\n0\r\n\r\n";
    const COUNTED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\"a\":[1]}";

    #[test]
    fn an_answer_is_read_however_its_length_is_told() {
        for answer in [CHUNKED, COUNTED] {
            let read: Value = read(answer.as_bytes()).unwrap();

            assert_eq!(read, json!({ "a": [1] }));
        }
    }

    #[test]
    fn whatever_has_a_meaning_in_a_query_is_written_otherwise() {
        assert_eq!(
            encoded(r#"{"a":["b=ü&"]}"#),
            "%7B%22a%22%3A%5B%22b%3D%C3%BC%26%22%5D%7D"
        );
        assert_eq!(encoded("a-B_0.~"), "a-B_0.~");
    }

    #[test]
    fn an_answer_that_was_cut_anywhere_is_no_answer() {
        let ends = [CHUNKED.find("0\r\n\r\n").unwrap(), COUNTED.len() - 1];
        for (answer, end) in [CHUNKED, COUNTED].into_iter().zip(ends) {
            for length in 0..=end {
                let cut = read::<Value>(&answer.as_bytes()[..length]);

                assert!(
                    matches!(cut, Err(ClientError::IOError { .. })),
                    "{length} {cut:?}"
                );
            }
        }
    }

    #[test]
    fn a_refusal_is_the_engines_words() {
        let refused = read::<Value>(
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 18\r\n\r\n{\"message\":\"gone\"}",
        );

        assert!(
            matches!(
                &refused,
                Err(ClientError::DockerResponseServerError { status_code: 404, message }) if message == "gone"
            ),
            "{refused:?}"
        );
        for answer in ["SSH-2.0-x\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n{}"] {
            assert!(read::<Value>(answer.as_bytes()).is_err());
        }
    }
}
