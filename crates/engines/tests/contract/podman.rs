//! The contract, kept by a Podman service that `cargo xtask test` starts.

use dark_factory_executor::engine::Recognized;

use crate::lab::provision;
use crate::socket::Socket;

contract!(Socket {
    url: provision("DARK_FACTORY_TEST_PODMAN"),
    // Its service may be another process for each question.
    recognized: Recognized::No,
});
