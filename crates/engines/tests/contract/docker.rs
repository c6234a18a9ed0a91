//! The contract, kept by the Docker Engine of this machine.

use crate::socket::Socket;

contract!(Socket {
    url: "unix:///var/run/docker.sock".to_owned(),
});
