//! From the lines of a file to keys of this broker's configuration, with a verdict for each line.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use clap::ValueEnum;
use toml::{Table, Value};

use super::options::{self, Class};
use super::syntax::{Line, included};
use super::{access, bridge, limits, listener, process};
use crate::base::text_file;
use crate::config::{ConfigError, Configuration, Origin, keys};

/// The release of Mosquitto whose defaults are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Generation {
    /// Mosquitto 2.0.
    #[value(name = "2.0")]
    V2_0,
    /// Mosquitto 2.1.
    #[default]
    #[value(name = "2.1")]
    V2_1,
}

impl Generation {
    /// The origin of values that Mosquitto has by default.
    fn name(self) -> &'static str {
        match self {
            Self::V2_0 => "default of Mosquitto 2.0",
            Self::V2_1 => "default of Mosquitto 2.1",
        }
    }
}

/// What taking an option does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Keys have the meaning of the option.
    Taken,
    /// Keys have the meaning of the option, with a remark.
    Noted(String),
    /// Keys have the meaning of the option, with a remark that each start logs.
    Warned(String),
    /// The option has no effect, for this reason.
    Ignored(String),
}

/// What taking an option does, or the reason why the option is refused and what to do.
pub(super) type Outcome = Result<Effect, String>;

/// A line of the file and its verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The file.
    pub file: Arc<Path>,
    /// The number of the line, from 1.
    pub number: u32,
    /// The line without passwords.
    pub line: String,
    /// How the line is taken over.
    pub class: Class,
    /// The keys that have its meaning, a remark, or the reason.
    pub what: String,
    /// Whether each start logs it.
    pub is_notice: bool,
}

impl Judged {
    /// The place of the line.
    pub fn place(&self) -> String {
        format!("{}:{}", self.file.display(), self.number)
    }

    /// The verdict as an error of the configuration.
    fn error(&self) -> ConfigError {
        let what = format!("{}: {}", self.line, self.what);
        ConfigError::of_key(None, what).in_file(&self.file, Some(self.number))
    }
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The key, such as `limits.inflight_max`; of a listener, such as `tls.key`.
    pub key: String,
    /// The value.
    pub value: Value,
    /// The place among the lines of the line that has set the key; none for defaults of Mosquitto.
    pub by: Option<usize>,
}

impl Written {
    /// Key and value for reports, without passwords.
    fn shown(&self) -> String {
        let value = keys::without_secrets(&self.key, self.value.clone());
        format!("{} = {value}", self.key)
    }
}

/// A bridge with its keys.
#[derive(Clone, Debug, PartialEq)]
pub struct WrittenBridge {
    /// Its keys, such as `tls.ca`.
    pub keys: Vec<Written>,
    /// Its rules, in the order of the file.
    pub rules: Vec<WrittenRule>,
    /// The place of the line that begins its section.
    pub by: usize,
}

/// A rule of a bridge with its keys.
#[derive(Clone, Debug, PartialEq)]
pub struct WrittenRule {
    /// The table that the rule is in, `out` or `in`.
    pub table: &'static str,
    /// Its keys.
    pub keys: Vec<Written>,
}

impl WrittenRule {
    /// The rule for reports; none if another line has set it.
    fn shown(&self, place: usize) -> Option<String> {
        let keys: Vec<String> = self.keys.iter().map(Written::shown).collect();
        let is_own = self.keys.iter().any(|of| of.by == Some(place));
        is_own.then(|| format!("{} = {{ {} }}", self.table, keys.join(", ")))
    }
}

/// A translated file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Translation {
    /// Every line with an option, with its verdict.
    pub lines: Vec<Judged>,
    /// Keys outside of listeners, by name.
    pub keys: Vec<Written>,
    /// The keys of each listener.
    pub listeners: Vec<Vec<Written>>,
    /// The keys of each bridge.
    pub bridges: Vec<WrittenBridge>,
    generation: Generation,
}

impl Translation {
    /// Translates a file; without one, the broker serves clients on this machine as Mosquitto does. `ports` are those
    /// of the command line.
    pub fn read(
        file: Option<&Path>,
        ports: &[u16],
        generation: Generation,
    ) -> Result<Self, ConfigError> {
        let mut translator = Translator::new(generation);
        if let Some(file) = file {
            translator.read(file)?;
        }
        Ok(translator.finish(ports))
    }

    /// Whether no line is refused.
    pub fn is_whole(&self) -> bool {
        self.lines.iter().all(|line| line.class != Class::Refused)
    }

    /// The configuration that has the meaning of the file, over which `variables` of the environment take precedence;
    /// or the refused lines.
    pub fn configuration(
        &self,
        variables: impl IntoIterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
    ) -> Result<Configuration, Vec<ConfigError>> {
        let refused = self.lines.iter().filter(|line| line.class == Class::Refused);
        let errors: Vec<ConfigError> = refused.map(Judged::error).collect();
        if !errors.is_empty() {
            return Err(errors);
        }
        let (table, origins) = self.table();
        let mut configuration = Configuration::from_table(table, origins, variables)?;
        let ignored = self.lines.iter().filter(|line| line.is_notice);
        configuration.notices =
            ignored.map(|of| format!("{}: {}: {}", of.place(), of.line, of.what)).collect();
        Ok(configuration)
    }

    /// All keys as one table, with the place of each.
    fn table(&self) -> (Table, BTreeMap<String, Origin>) {
        let (mut table, mut origins) = (Table::new(), BTreeMap::new());
        for Written { key, value, by } in &self.keys {
            keys::insert(&mut table, key, value.clone());
            origins.insert(key.clone(), self.origin(*by));
        }
        let mut listeners = Vec::new();
        for (number, written) in self.listeners.iter().enumerate() {
            let mut listener = Table::new();
            written.iter().for_each(|of| keys::insert(&mut listener, &of.key, of.value.clone()));
            listeners.push(Value::Table(listener));
            let by = written.iter().find(|of| of.key == "bind").and_then(|of| of.by);
            origins.insert(keys::of_table(keys::LISTENERS, number), self.origin(by));
        }
        if !listeners.is_empty() {
            table.insert(keys::LISTENERS.to_owned(), Value::Array(listeners));
        }
        let mut bridges = Vec::new();
        for (number, bridge) in self.bridges.iter().enumerate() {
            bridges.push(Value::Table(bridge.table()));
            let origin = self.origin(Some(bridge.by));
            origins.insert(keys::of_table(keys::BRIDGES, number), origin);
        }
        if !bridges.is_empty() {
            table.insert(keys::BRIDGES.to_owned(), Value::Array(bridges));
        }
        (table, origins)
    }

    /// What the comment of a key says that no line has set.
    pub(super) fn default_name(&self) -> &'static str {
        self.generation.name()
    }

    fn origin(&self, by: Option<usize>) -> Origin {
        match by.map(|by| &self.lines[by]) {
            Some(line) => Origin::File { file: Arc::clone(&line.file), line: line.number },
            None => Origin::DefaultOf(self.generation.name()),
        }
    }
}

/// A listener while its section is read.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// Its options, with the place of each among the lines; later ones replace earlier ones.
    pub options: BTreeMap<String, usize>,
}

/// The section that a line belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Section {
    /// The number of the listener; 0 is the default one.
    pub listener: usize,
    /// The number of the bridge, once one has begun.
    pub bridge: Option<usize>,
    /// What the options of plugins are for.
    pub plugin: access::Plugin,
}

impl Section {
    const FIRST: Self = Self { listener: 0, bridge: None, plugin: access::Plugin::None };
}

/// Takes line by line.
pub(super) struct Translator {
    pub generation: Generation,
    /// The lines so far.
    pub lines: Vec<Line>,
    /// What taking each of them did.
    pub outcomes: Vec<Outcome>,
    /// The section of the line that is taken.
    pub section: Section,
    /// Listeners: first the default one.
    pub listeners: Vec<Draft>,
    /// Bridges.
    pub bridges: Vec<bridge::Draft>,
    /// Options that are of no listener.
    pub options: BTreeMap<String, usize>,
    keys: BTreeMap<String, (Value, Option<usize>)>,
}

impl Translator {
    fn new(generation: Generation) -> Self {
        Self {
            generation,
            lines: Vec::new(),
            outcomes: Vec::new(),
            section: Section::FIRST,
            listeners: vec![Draft::default()],
            bridges: Vec::new(),
            options: BTreeMap::new(),
            keys: BTreeMap::new(),
        }
    }

    fn read(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = text_file::read(path).map_err(|error| {
            let what = format!("cannot be read: {error}; name a readable file of Mosquitto");
            ConfigError::of_key(None, what).in_file(path, None)
        })?;
        let (file, is_main) = (path.into(), self.lines.is_empty());
        for line in Line::all(&file, &text) {
            let place = self.lines.len();
            self.lines.push(line.clone());
            // Included lines follow their `include_dir`, whose verdict is known by then.
            self.outcomes.push(Ok(Effect::Taken));
            self.outcomes[place] = match line.option.as_str() {
                "include_dir" if is_main => self.include(&line),
                "include_dir" => super::ignored("only the main file includes a folder"),
                _ => self.take(&line, place),
            };
        }
        Ok(())
    }

    /// Reads the files of a folder, each of which begins with the default listener.
    fn include(&mut self, line: &Line) -> Outcome {
        let files = included(line.path()?)?;
        let section = self.section;
        for file in &files {
            self.section = Section::FIRST;
            self.read(file).map_err(|error| error.to_string())?;
        }
        self.section = section;
        Ok(Effect::Noted(format!("{} files read", files.len())))
    }

    fn take(&mut self, line: &Line, place: usize) -> Outcome {
        let Some(option) = options::find(&line.option) else {
            let nearest = options::nearest(&line.option);
            return Err(format!(
                "unknown option; the nearest one is {nearest}; correct the name, or remove the line"
            ));
        };
        bridge::take(self, line, place)
            .or_else(|| listener::take(self, line, place))
            .or_else(|| access::take(self, line, place))
            .or_else(|| limits::take(self, line, place))
            .or_else(|| process::take(self, line, place))
            .unwrap_or_else(|| Err(format!("not supported by this version; {}", option.what)))
    }

    /// Sets a key, for the option at this place; none: a default of Mosquitto.
    pub fn set(&mut self, key: &str, value: impl Into<Value>, by: Option<usize>) {
        self.keys.insert(key.to_owned(), (value.into(), by));
    }

    /// Notes an option that is evaluated at the end. Mosquitto refuses a text that is set twice, and so does this.
    pub fn note(&mut self, place: usize) -> Outcome {
        let option = self.lines[place].option.clone();
        match self.options.insert(option, place) {
            Some(earlier) => Err(format!("{}; remove one of them", self.set_at(earlier))),
            None => Ok(Effect::Taken),
        }
    }

    /// Where an option has been set before.
    pub fn set_at(&self, place: usize) -> String {
        let line = &self.lines[place];
        format!("also set at {}:{}", line.file.display(), line.number)
    }

    /// The line of an option that is of no listener, with its place.
    pub fn option(&self, name: &str) -> Option<(usize, &Line)> {
        self.options.get(name).map(|&place| (place, &self.lines[place]))
    }

    /// The line of an option of a listener, with its place.
    pub fn of_listener(&self, listener: usize, name: &str) -> Option<(usize, &Line)> {
        self.listeners[listener].options.get(name).map(|&place| (place, &self.lines[place]))
    }

    fn finish(mut self, ports: &[u16]) -> Translation {
        limits::defaults(&mut self);
        process::finish(&mut self);
        let listeners = listener::finish(&mut self, ports);
        let bridges = bridge::finish(&mut self);
        access::finish(&mut self);
        let mut written: Vec<Written> = Vec::new();
        for (key, (value, by)) in std::mem::take(&mut self.keys) {
            written.push(Written { key, value, by });
        }
        let all = || {
            let of_bridges = bridges.iter().flat_map(|bridge| &bridge.keys);
            written.iter().chain(listeners.iter().flatten()).chain(of_bridges)
        };
        let rules = || bridges.iter().flat_map(|bridge| &bridge.rules);
        let judge = |(place, (line, outcome)): (usize, (&Line, Outcome))| {
            let own = all().filter(|of| of.by == Some(place));
            let mut own = own.map(Written::shown).collect::<Vec<_>>();
            own.dedup();
            own.extend(rules().filter_map(|rule| rule.shown(place)));
            let class = options::find(&line.option).map(|option| option.class);
            let is_warning = matches!(outcome, Ok(Effect::Warned(_)));
            let (class, what) = match outcome {
                Err(reason) => (Class::Refused, reason),
                Ok(Effect::Ignored(reason)) => (Class::Ignored, reason),
                Ok(Effect::Taken) => (class.unwrap_or(Class::Same), own.join(", ")),
                Ok(Effect::Noted(remark) | Effect::Warned(remark)) => {
                    own.push(remark);
                    (class.unwrap_or(Class::Same), own.join("; "))
                }
            };
            // An option that this broker has to ignore or refuse has nothing to take if its value asks for nothing.
            let is_taken = matches!(class, Class::Ignored | Class::Refused) && what.is_empty();
            let class = if is_taken { Class::Same } else { class };
            Judged {
                file: Arc::clone(&line.file),
                number: line.number,
                line: line.shown(),
                class,
                what,
                is_notice: is_warning || class == Class::Ignored,
            }
        };
        let outcomes = std::mem::take(&mut self.outcomes);
        let lines = self.lines.iter().zip(outcomes).enumerate().map(judge).collect();
        Translation { lines, keys: written, listeners, bridges, generation: self.generation }
    }
}
