//! The shim of a sandbox against the real kernel, as root and as an ordinary user.
//!
//! Has to be run by root, who can be both. The payload is the machine's own shell, so that what is tried is what an
//! agent could try.

#![cfg(all(feature = "sandbox", target_os = "linux"))]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

mod exec;
mod files;
mod lab;
mod life;
mod limits;
mod network;
mod privileges;

/// Makes two tests of one: of a sandbox that root started, and of one that an ordinary user did.
macro_rules! both {
    ($($(#[doc = $doc:expr])* fn $name:ident($who:ident) $body:block)*) => {$(
        mod $name {
            use super::*;

            $(#[doc = $doc])*
            fn check($who: $crate::lab::Who) $body

            #[test]
            fn by_root() {
                check($crate::lab::Who::Root);
            }

            #[test]
            fn by_a_user() {
                check($crate::lab::Who::User);
            }
        }
    )*};
}
use both;
