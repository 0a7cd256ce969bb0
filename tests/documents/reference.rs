//! The references in `docs`, made from the explained keys of the configuration and the definition of the command line.

use std::fmt::Write as _;

use clap::{Arg, Command};
use ringmq::config::{keys, variable_of};

use crate::explained::{Text, configuration};

const CONFIGURATION_HEAD: &str = "\
# Configuration reference

Every key with its default, made from [`deploy/broker.toml`](../deploy/broker.toml) by `WRITE_REFERENCES=1 cargo test
--test documents`. [Configuration](configuration.md) explains where keys are set, and [reload](configuration.md#reload)
how they change.
";

/// `docs/configuration-reference.md`.
pub fn configuration_page() -> String {
    let mut page = CONFIGURATION_HEAD.to_owned();
    for section in configuration() {
        match section.title.as_str() {
            "" => page.push_str("\n## Top level\n"),
            title => _ = write!(page, "\n## `{title}`\n"),
        }
        if let Some((texts, lines)) = &section.example {
            push_texts(&mut page, texts);
            _ = write!(page, "\n```toml\n{}\n```\n", lines.join("\n"));
        }
        for group in &section.groups {
            let names: Vec<_> = group.keys.iter().map(|(key, _)| format!("`{key}`")).collect();
            _ = write!(page, "\n### {}\n", names.join(", "));
            push_texts(&mut page, &group.texts);
            page.push('\n');
            for (key, default) in &group.keys {
                let when = if keys::is_live(key) { "a reload" } else { "a restart" };
                _ = writeln!(
                    page,
                    "* `{key} = {default}` changes with {when}; environment variable `{}`",
                    variable_of(key)
                );
            }
        }
    }
    page
}

fn push_texts(page: &mut String, texts: &[Text]) {
    let mut is_list = false;
    for text in texts {
        let (mark, text) = match text {
            Text::Paragraph(text) => ("", text),
            Text::Item(text) => ("* ", text),
        };
        if mark.is_empty() || !is_list {
            page.push('\n');
        }
        is_list = !mark.is_empty();
        // What a browser would take as a tag, or Markdown as emphasis.
        _ = writeln!(page, "{mark}{}", text.replace('<', "&lt;").replace('*', "\\*"));
    }
}

const COMMAND_HEAD: &str = "\
# Command reference

Every command with its flags, made from the definition of the command line by `WRITE_REFERENCES=1 cargo test --test
documents`. [Command line](command-line.md) has an overview, exit codes, signals and environment variables.
";

/// `docs/command-reference.md`.
pub fn command_page(command: Command) -> String {
    let mut command = command.name("broker").bin_name("broker");
    command.build();
    let mut page = COMMAND_HEAD.to_owned();
    push_command(&mut page, &mut command, true);
    page
}

fn push_command(page: &mut String, command: &mut Command, is_first: bool) {
    let name = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string);
    let usage = command.render_usage().to_string();
    _ = write!(
        page,
        "\n## `{name}`\n\n{}\n\n```text\n{}\n```\n",
        sentence(&about.unwrap_or_default()),
        usage.trim_start_matches("Usage: ")
    );
    let is_shown = |arg: &&Arg| {
        let is_common = arg.is_global_set() || ["help", "version"].contains(&arg.get_id().as_str());
        !arg.is_hide_set() && (is_first || !is_common)
    };
    let arguments: Vec<_> = command.get_arguments().filter(is_shown).collect();
    if !arguments.is_empty() {
        page.push_str("\n| argument | |\n| --- | --- |\n");
        arguments.iter().for_each(|argument| push_argument(page, argument));
    }
    for inner in command.get_subcommands_mut() {
        if inner.get_name() != "help" && !inner.is_hide_set() {
            push_command(page, inner, false);
        }
    }
}

fn push_argument(page: &mut String, argument: &Arg) {
    let help = argument.get_long_help().or(argument.get_help()).map(ToString::to_string);
    let help = help.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    let mut help = sentence(&help);
    let values: Vec<_> = argument.get_possible_values();
    let takes_value = argument.get_action().takes_values();
    if takes_value && !values.is_empty() {
        let names: Vec<_> = values.iter().map(|value| format!("`{}`", value.get_name())).collect();
        _ = write!(help, " One of {}.", names.join(", "));
    }
    let defaults = argument.get_default_values();
    if takes_value && !defaults.is_empty() {
        let defaults: Vec<_> = defaults.iter().map(|value| value.to_string_lossy()).collect();
        _ = write!(help, " The default is `{}`.", defaults.join(" "));
    }
    let form = argument.to_string();
    let form = match argument.get_short() {
        Some(short) if argument.get_long().is_some() => format!("-{short}, {form}"),
        _ => form,
    };
    let cell = |text: &str| text.replace('|', "\\|");
    _ = writeln!(page, "| `{}` | {} |", cell(&form), cell(&help).replace('<', "&lt;"));
}

/// The text with a full stop, which clap takes off its end.
fn sentence(text: &str) -> String {
    if text.ends_with('.') { text.to_owned() } else { format!("{text}.") }
}
