//! What kind of tool a name stands for.
//!
//! Owns: the names of the tools of all agents.
//! Reads: nothing.
//! Never: guesses by a part of a name.

use dark_factory_types::ToolClass;

/// Returns what kind of tool an agent's name for it means.
pub(crate) fn tool_class(name: &str) -> ToolClass {
    match name {
        "Bash" | "BashOutput" | "KillShell" | "shell" | "run_shell_command" => ToolClass::Shell,
        "Read" | "NotebookRead" | "read_file" | "read_many_files" => ToolClass::Read,
        "Write" | "write_file" => ToolClass::Write,
        "Edit" | "MultiEdit" | "NotebookEdit" | "file_change" | "replace" => ToolClass::Edit,
        "Grep"
        | "Glob"
        | "LS"
        | "glob"
        | "grep_search"
        | "search_file_content"
        | "list_directory" => ToolClass::Search,
        "WebFetch" | "WebSearch" | "web_search" | "web_fetch" | "google_web_search" => {
            ToolClass::Web
        }
        "TodoWrite" | "TaskCreate" | "TaskUpdate" | "write_todos" => ToolClass::Plan,
        "Task" | "Agent" | "spawn_agent" | "send_input" | "invoke_agent" => ToolClass::Agent,
        _ => ToolClass::Other,
    }
}
