//! The contract, kept by the Podman service of the tests.

use crate::lab::provision;
use crate::socket::Socket;

contract!(Socket {
    url: provision("DARK_FACTORY_TEST_PODMAN"),
});
