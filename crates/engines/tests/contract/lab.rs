//! What the suite has to know of an engine besides the contract.
//!
//! Owns: the trait; each engine's file implements it.
//! Reads: the provisions of `cargo xtask test`.
//! Never: asks the engine under test about itself: what a lab says of a workload comes from elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use dark_factory_executor::engine::Engine;
use dark_factory_types::OwnerId;

/// Where an engine is met, and whoever else is there.
pub(crate) trait Lab: fmt::Debug + Send + Sync {
    /// Makes an engine object that knows nothing of what others have done, as another process has it.
    fn engine(&self) -> Arc<dyn Engine>;

    /// Returns what the documentation calls this engine, as it is met here.
    fn documented_as(&self) -> String {
        self.engine().name().to_owned()
    }

    /// Returns the reference of an image with the scripted agent.
    fn image(&self) -> String;

    /// Returns the path of the scripted agent in it.
    fn agent(&self) -> String {
        "/bin/agent".to_owned()
    }

    /// Returns the reference of an image that is nowhere.
    fn missing_image(&self) -> String {
        "dark-factory-test/no-such-image:1".to_owned()
    }

    /// Returns the user and the group that agents run as.
    fn user(&self) -> (u32, u32) {
        (1000, 1000)
    }

    /// Makes what somebody else would have on this engine: a workload of this name, with these labels, which does not
    /// run. Returns the engine's id of it.
    fn make_foreign(&self, name: &str, labels: &BTreeMap<String, String>) -> String;

    /// Removes what [`Lab::make_foreign`] made.
    fn remove_foreign(&self, name: &str);

    /// Returns all that is known of a workload, which differs once anybody has touched it; `None` if it is not there.
    fn describe(&self, name: &str) -> Option<String>;

    /// Returns the labels of a workload.
    fn labels(&self, name: &str) -> BTreeMap<String, String>;

    /// Returns whether the processes of a workload are frozen.
    fn is_frozen(&self, name: &str) -> bool;

    /// Kills a running workload, as somebody who does not know of us would.
    fn kill(&self, name: &str);

    /// Returns everything of an owner's that is left on the machine, by name.
    fn leftovers(&self, owner: &OwnerId) -> Vec<String>;

    /// Removes everything of an owner's, whatever it does; called also when a test has failed, so it does not panic.
    fn clear(&self, owner: &OwnerId);
}

/// Returns one of the provisions.
#[expect(
    clippy::disallowed_methods,
    reason = "a test is told by its environment what was provided"
)]
pub(crate) fn provision(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!(
            "{variable} is not set; run the tests with `cargo xtask test`, or see `cargo xtask env`"
        )
    })
}

/// Returns the path of the static helper.
pub(crate) fn helper() -> PathBuf {
    provision("DARK_FACTORY_TEST_HELPER").into()
}
