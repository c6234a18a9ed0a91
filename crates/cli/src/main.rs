//! The `dark-factory` command.

fn main() -> std::process::ExitCode {
    dark_factory::main()
}
