//! `man`: the manual pages.
//!
//! Owns: the pages' files.
//! Reads: the command line's own description.
//! Never: says anything that `--help` does not.

use std::fs;
use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_mangen::Man;
use dark_factory_types::exit_code;

use crate::args::{Args, ManArgs};
use crate::error::CommandError;
use crate::terminal;

pub(super) fn man(args: &ManArgs) -> Result<u8, CommandError> {
    let command = Args::command();
    match &args.dir {
        None => {
            let page = page(command)
                .map_err(|error| CommandError::internal("write the manual page", error))?;
            terminal::print_bytes(&page);
        }
        Some(dir) => write(command, dir).map_err(|error| {
            CommandError::internal(&format!("write manual pages into {}", dir.display()), error)
                .hint("name a folder that you may write to")
        })?,
    }
    Ok(exit_code::SUCCEEDED)
}

fn page(command: clap::Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    Ok(page)
}

fn write(command: clap::Command, dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let name = command.get_name().to_owned();
    write_all(command, &name, dir)
}

/// Writes the page of a command and those of its own commands, each named by all of its words.
fn write_all(command: clap::Command, name: &str, dir: &Path) -> io::Result<()> {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let name = format!("{name}-{}", sub.get_name());
        write_all(sub.clone(), &name, dir)?;
    }
    let command = command.name(name.to_owned());
    fs::write(dir.join(format!("{name}.1")), page(command)?)
}
