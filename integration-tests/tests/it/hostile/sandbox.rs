//! The attacks in the embedded sandbox, of root and of an ordinary user.
//!
//! Owns: which attacks are made there: those whose walls are the engine's.
//! Reads: nothing.
//! Never: knows an attack, or repeats what does not depend on the engine: what people read, and how the guard and the
//! helper take floods.

use super::{bombs, git, kernel, network, secrets, workspace};
use crate::scene::{Place, Scene};

fn of_root() -> Scene {
    Scene::in_place(Place::Sandbox)
}

fn of_a_user() -> Scene {
    Scene::in_place(Place::UsersSandbox)
}

#[test]
fn the_kernel_gives_an_agent_nothing_in_a_sandbox_of_roots() {
    kernel::the_kernel_gives_nothing(&of_root());
}

#[test]
fn the_kernel_gives_an_agent_nothing_in_a_users_sandbox() {
    kernel::the_kernel_gives_nothing(&of_a_user());
}

#[test]
fn an_agent_that_lets_pid_1_trace_it_ends_as_it_ends_in_sandboxes() {
    kernel::a_traced_agent_ends_as_it_ends(&of_root());
    kernel::a_traced_agent_ends_as_it_ends(&of_a_user());
}

#[test]
fn nothing_of_the_host_is_to_be_found_in_a_sandbox_of_roots() {
    secrets::nothing_of_the_host_is_found(&of_root());
}

#[test]
fn nothing_of_the_host_is_to_be_found_in_a_users_sandbox() {
    secrets::nothing_of_the_host_is_found(&of_a_user());
}

#[test]
fn there_is_no_way_out_of_a_sandbox_of_roots_but_to_the_list() {
    network::nothing_but_the_list_is_reached(Place::Sandbox);
}

#[test]
fn there_is_no_way_out_of_a_users_sandbox_but_to_the_list() {
    network::nothing_but_the_list_is_reached(Place::UsersSandbox);
}

#[test]
fn bombs_go_off_in_the_sandbox_and_the_agent_outlives_them() {
    bombs::bombs_go_off_inside(&of_root());
}

#[test]
fn no_command_of_ours_executes_what_an_agent_left_in_git_from_a_sandbox() {
    git::nothing_left_in_git_is_executed(&of_root());
}

#[test]
fn what_an_agent_leaves_in_its_workspace_leads_the_host_nowhere_from_sandboxes() {
    workspace::what_is_left_leads_nowhere(&of_root());
    workspace::what_is_left_leads_nowhere(&of_a_user());
}
