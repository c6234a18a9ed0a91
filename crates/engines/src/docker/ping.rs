//! Asks an engine which version of the API it speaks.
//!
//! Owns: one short exchange, before there is a client.
//! Reads: the header of a ping's answer.
//! Never: asks for `/version`, which the client would: an engine runs its runtimes for that answer (78 ms on 20.10,
//! against less than 1 ms for a ping).

use std::io;

use bollard::ClientVersion;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::dialect::Dialect;
use super::endpoint::Address;

const REQUEST: &[u8] = b"HEAD /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n";
const API_VERSION: &str = "api-version";
/// More than the header of any answer.
const MAX_ANSWER: u64 = 64 * 1024;

/// What a ping tells.
#[derive(Debug)]
pub(super) struct Ping {
    /// The newest API version of the engine; `None` if it does not say.
    pub(super) version: Option<ClientVersion>,
    /// Which engine it is.
    pub(super) dialect: Dialect,
    /// The process that listens on the engine's socket, where that can be seen.
    pub(super) listener: Option<u32>,
}

/// Pings the engine at `address`.
pub(super) async fn ping(address: &Address) -> io::Result<Ping> {
    let (answer, listener) = match address {
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).await?;
            let process = stream.peer_cred().ok().and_then(|peer| peer.pid());
            (ask(stream).await?, process)
        }
        Address::Tcp(address) => (ask(TcpStream::connect(address).await?).await?, None),
    };
    Ok(Ping {
        version: find_version(&answer),
        dialect: Dialect::of_header(&answer),
        listener: listener.and_then(|process| u32::try_from(process).ok()),
    })
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<String> {
    stream.write_all(REQUEST).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn find_version(answer: &str) -> Option<ClientVersion> {
    let value = answer.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case(API_VERSION)
            .then_some(value.trim())
    })?;
    let (major, minor) = value.split_once('.')?;
    Some(ClientVersion {
        major_version: major.parse().ok()?,
        minor_version: minor.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_header() {
        let answer =
            "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nServer: Docker/20.10.24 (linux)\r\n\r\n";

        let version = find_version(answer).map(|version| version.to_string());

        assert_eq!(version.as_deref(), Some("1.41"));
    }

    #[test]
    fn an_answer_that_is_not_an_engines_has_no_version() {
        for answer in [
            "HTTP/1.1 404 Not Found\r\n\r\n",
            "SSH-2.0-x",
            "api-version: new\r\n",
        ] {
            assert!(find_version(answer).is_none(), "{answer}");
        }
    }
}
