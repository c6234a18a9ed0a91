//! A request whose answer is a raw stream in both directions.
//!
//! Owns: one connection, from the request to the first byte behind the answer's header.
//! Reads: the answer's status, and its text if it is an error.
//! Never: splits or decodes what comes through the stream: the client's own decoder takes some bytes of a terminal for
//! headers.

use std::io;

use bollard::errors::Error as ClientError;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::endpoint::Address;

/// More than the header of any answer, and the text of any error.
const MAX_ANSWER: usize = 64 * 1024;

/// A stream in both directions.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// An error as the engine writes it.
#[derive(Debug, Deserialize)]
struct Refusal {
    message: String,
}

/// Posts a JSON body, and returns the connection once the engine has agreed to talk raw.
pub(super) async fn post(
    address: &Address,
    path: &str,
    body: &str,
) -> Result<Box<dyn Duplex>, ClientError> {
    let io = |err| ClientError::IOError { err };
    let stream: Box<dyn Duplex> = match address {
        Address::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(io)?),
        Address::Tcp(address) => Box::new(TcpStream::connect(address).await.map_err(io)?),
    };
    upgrade(stream, path, body).await
}

async fn upgrade(
    mut stream: Box<dyn Duplex>,
    path: &str,
    body: &str,
) -> Result<Box<dyn Duplex>, ClientError> {
    let io = |err| ClientError::IOError { err };
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.map_err(io)?;
    let head = head(&mut stream).await.map_err(io)?;
    match status(&head) {
        Some(101 | 200) => Ok(stream),
        Some(status_code) => {
            let text = text(&mut stream, &head).await.map_err(io)?;
            let message = serde_json::from_slice::<Refusal>(&text).map_or_else(
                |_| String::from_utf8_lossy(&text).trim().to_owned(),
                |refusal| refusal.message,
            );
            Err(ClientError::DockerResponseServerError {
                status_code,
                message,
            })
        }
        None => Err(io(io::ErrorKind::InvalidData.into())),
    }
}

/// Reads the answer's header, and not a byte more.
async fn head(stream: &mut Box<dyn Duplex>) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > MAX_ANSWER {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn status(head: &str) -> Option<u16> {
    let (protocol, rest) = head.lines().next()?.split_once(' ')?;
    let status = rest.split(' ').next()?;
    protocol
        .starts_with("HTTP/1.")
        .then_some(status)?
        .parse()
        .ok()
}

/// Reads the text of an error.
async fn text(stream: &mut Box<dyn Duplex>, head: &str) -> io::Result<Vec<u8>> {
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    let mut text = vec![0; length.unwrap_or_default().min(MAX_ANSWER)];
    stream.read_exact(&mut text).await?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets an engine answer this; returns what came of it.
    async fn answered(answer: &[u8]) -> Result<Box<dyn Duplex>, ClientError> {
        let (ours, mut engines) = tokio::io::duplex(1024);
        engines.write_all(answer).await.unwrap();
        let upgraded = upgrade(Box::new(ours), "/x", "{}").await;
        engines.shutdown().await.unwrap();
        upgraded
    }

    #[tokio::test]
    async fn what_follows_the_header_is_the_stream_whatever_it_is() {
        let answer = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\n\r\n\x01\x00\r\n\r\nrest";

        let mut stream = answered(answer).await.unwrap();

        let mut bytes = [0; 10];
        stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"\x01\x00\r\n\r\nrest");
    }

    #[tokio::test]
    async fn a_refusal_is_the_engines_words() {
        let answer =
            b"HTTP/1.1 409 Conflict\r\nContent-Length: 22\r\n\r\n{\"message\":\"it ended\"}";

        let refused = answered(answer).await.err();

        assert!(
            matches!(
                &refused,
                Some(ClientError::DockerResponseServerError { status_code: 409, message }) if message == "it ended"
            ),
            "{refused:?}"
        );
        assert!(answered(b"SSH-2.0-x\r\n\r\n").await.is_err());
    }
}
