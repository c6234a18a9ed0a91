//! The contract, kept by the Docker Engine of this machine.

use dark_factory_executor::engine::Recognized;

use crate::socket::Socket;

contract!(Socket {
    url: "unix:///var/run/docker.sock".to_owned(),
    recognized: Recognized::Yes,
});
