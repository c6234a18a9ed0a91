//! The contract, kept by the Podman service of the tests.

use dark_factory_executor::engine::Recognized;

use crate::lab::provision;
use crate::socket::Socket;

contract!(Socket {
    url: provision("DARK_FACTORY_TEST_PODMAN"),
    // The service may be another process each time.
    recognized: Recognized::No,
});
