//! The manual pages of the configuration and of the program, in the language of man(7).

use std::fmt::Write as _;
use std::io;

use clap::Command;

use crate::explained::{self, Text};

/// Sections of ringmq(1) that no definition of flags has.
const SECTIONS: &str = include_str!("../../../deploy/man/sections.1");

/// ringmq(1), with the date of the source that packages set.
pub fn program(command: Command) -> io::Result<Vec<u8>> {
    let page = clap_mangen::Man::new(command).manual("User Commands").section("1");
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    page.render_subcommands_section(&mut text)?;
    text.extend_from_slice(SECTIONS.as_bytes());
    Ok(text)
}

const HEAD: &str = r#".TH ringmq.toml 5 "" "ringmq" "File Formats"
.SH NAME
ringmq.toml \- configuration of the MQTT broker ringmq
.SH SYNOPSIS
.I /etc/ringmq/broker.toml
.SH DESCRIPTION
A file in the format TOML, which
.B ringmq \-\-config
.I FILE
reads. A file needs only the keys that differ from the defaults below. An unknown key, or a value of the wrong type or out
of range, is an error that names the line.
.PP
Environment variables take precedence over the file, and flags over both. The variable of a key is
.BR RINGMQ_ ,
then the key in capital letters with two underscores for each dot, as
.B RINGMQ_LIMITS__SESSIONS_MAX
for
.BR limits.sessions_max .
.PP
.B ringmq \-\-check\-config
reports every error in a file,
.B ringmq \-\-print\-config
prints every key with its value and where the value comes from. SIGHUP reloads the file; keys marked with
.I restart
change when the broker is started again.
"#;

const FOOT: &str = r#".SH FILES
.TP
.I /etc/ringmq/broker.toml
The file that the service of the Debian package reads.
.TP
.I /usr/share/doc/ringmq/docs/configuration.md
Explanations with examples.
.SH EXAMPLES
Clients of the local network, with passwords and rules:
.PP
.EX
listen = ["0.0.0.0:1883"]
[access]
password_file = "/etc/ringmq/passwords"
acl_file = "/etc/ringmq/acl.txt"
.EE
.SH SEE ALSO
.BR ringmq (1),
.BR ringmq\-acl (5)
"#;

/// ringmq.toml(5).
pub fn configuration() -> String {
    let mut page = HEAD.to_owned();
    for section in explained::configuration() {
        let title = if section.title.is_empty() { "TOP LEVEL" } else { &section.title };
        _ = writeln!(page, ".SH \"{}\"", escaped(title));
        if let Some((texts, lines)) = &section.example {
            push_texts(&mut page, texts);
            page.push_str(".PP\n.EX\n");
            lines.iter().for_each(|line| _ = writeln!(page, "{}", escaped(line)));
            page.push_str(".EE\n");
        }
        for group in &section.groups {
            for (number, (key, default)) in group.keys.iter().enumerate() {
                let restart = if ringmq::config::keys::is_live(key) { "" } else { " (restart)" };
                let next = if number == 0 { ".TP" } else { ".TQ" };
                let line = escaped(&format!("{key} = {default}"));
                _ = writeln!(page, "{next}\n\\fB{line}\\fR{restart}");
            }
            push_texts(&mut page, &group.texts);
        }
    }
    page.push_str(FOOT);
    page
}

fn push_texts(page: &mut String, texts: &[Text]) {
    for (number, text) in texts.iter().enumerate() {
        match text {
            Text::Paragraph(text) if number == 0 => _ = writeln!(page, "{}", escaped(text)),
            Text::Paragraph(text) => _ = writeln!(page, ".br\n{}", escaped(text)),
            Text::Item(text) => _ = writeln!(page, ".br\n\\(bu {}", escaped(text)),
        }
    }
}

/// Text in which nothing is a request or an escape.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('"', "\\(dq");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}
