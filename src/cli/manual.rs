//! Help sorted by task, shell completions and manual pages.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Command, CommandFactory as _};

use super::Cli;

/// The commands, sorted by task.
const TASKS: [(&str, &[&str]); 5] = [
    ("Label", &["infer", "segment"]),
    ("Search", &["query", "objects", "view"]),
    ("Train", &["train", "select", "pretrain"]),
    ("Evaluate", &["eval", "ablation", "reproduce", "prepare", "synth"]),
    ("Tools", &["info", "encode", "purify", "weights", "devices", "completions", "man", "help"]),
];

/// Arguments of `completions`.
#[derive(clap::Args, Debug)]
pub(super) struct CompletionsArgs {
    /// Shell: bash, zsh, fish, powershell or elvish
    shell: clap_complete::Shell,
}

/// Arguments of `man`.
#[derive(clap::Args, Debug)]
pub(super) struct ManArgs {
    /// Folder for the pages; created if it does not exist
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// The program with its commands listed by task.
pub(super) fn by_task(command: Command) -> Command {
    let mut list = String::new();
    for (task, names) in TASKS {
        let lines: Vec<String> = names
            .iter()
            .filter_map(|name| {
                let about = match *name {
                    "help" => "Explain a command: geopurify help infer".to_owned(),
                    name => command.find_subcommand(name)?.get_about()?.to_string(),
                };
                Some(format!("  {name:<12} {about}\n"))
            })
            .collect();
        if !lines.is_empty() {
            list += &format!("{task}:\n{}\n", lines.concat());
        }
    }
    command.help_template(format!("{{about}}\n\n{{usage-heading}} {{usage}}\n\n{list}Options:\n{{options}}"))
}

/// Prints the completions of a shell. A reader that stops early, such as `head`, is no error.
pub(super) fn completions(args: &CompletionsArgs) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "geopurify", &mut text);
    match std::io::stdout().write_all(&text) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

/// Writes one manual page for the program and one for each command.
pub(super) fn pages(args: &ManArgs) -> Result<()> {
    let folder = &args.folder;
    std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot make this folder", folder.display()))?;
    clap_mangen::generate_to(Cli::command(), folder).with_context(|| folder.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_listed_under_one_task() {
        let listed: Vec<&str> = TASKS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        for command in Cli::command().get_subcommands() {
            let count = listed.iter().filter(|name| **name == command.get_name()).count();
            assert_eq!(count, 1, "{}", command.get_name());
        }
    }

    #[test]
    fn every_option_has_a_line_of_help() {
        let mut commands = vec![Cli::command()];
        while let Some(command) = commands.pop() {
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
            commands.extend(command.get_subcommands().cloned());
        }
    }
}
