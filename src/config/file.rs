//! Files of the configuration: a main file, and those of the folder that it includes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Table;

use super::deserializer::{self, ValueError};
use super::document::Document;
use super::error::line_at;
use super::keys;
use super::{Addresses, Bind, ConfigError, Listener, Origin, Settings};

/// Files of an include folder at most.
const INCLUDED_MAX: usize = 256;

/// The content of all files: one table, and the place of each key.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// The keys of all files.
    pub table: Table,
    /// The place of each key.
    pub places: BTreeMap<String, Origin>,
    /// Errors of all files.
    pub errors: Vec<ConfigError>,
    /// Tables of each list so far.
    tables: BTreeMap<String, usize>,
}

impl Files {
    /// Reads the main file, if there is one, and the folder that it includes, unless `folder` names another.
    pub fn read(main: Option<&Path>, folder: Option<PathBuf>) -> Self {
        let mut files = Self::default();
        if let Some(main) = main {
            files.add(main, false);
        }
        let included = files.table.get("include").and_then(toml::Value::as_str);
        let included = included.filter(|folder| !folder.is_empty()).map(|folder| {
            let beside = main.and_then(Path::parent).unwrap_or(Path::new(""));
            beside.join(folder)
        });
        let Some(folder) = folder.or(included) else { return files };
        match list(&folder) {
            Ok(paths) => paths.iter().for_each(|path| files.add(path, true)),
            Err(what) => files.errors.push(ConfigError::at("include", what)),
        }
        files
    }

    /// Adds the keys of a file, each of which no earlier file may have.
    fn add(&mut self, path: &Path, is_included: bool) {
        let text = match crate::base::text_file::read(path) {
            Ok(text) => text,
            Err(error) => {
                let what = format!("cannot be read: {error}; name a readable TOML file");
                self.errors.push(ConfigError::new(what).in_file(path, None));
                return;
            }
        };
        if let Err(error) = self.add_text(path, &text, is_included) {
            self.errors.push(error.in_file(path, None));
        }
    }

    fn add_text(&mut self, path: &Path, text: &str, is_included: bool) -> Result<(), ConfigError> {
        let document = Document::parse(text)?;
        read(&document)?;
        let file: Arc<Path> = path.into();
        let mut places = Vec::new();
        document.each_key(&mut |key, start| {
            let origin = Origin::File { file: Arc::clone(&file), line: line_at(text, start) };
            places.push((key, origin));
        });
        for (key, origin) in places {
            if keys::LISTS.contains(&key.as_str()) {
                let count = self.tables.entry(key.clone()).or_default();
                self.places.insert(keys::of_table(&key, *count), origin);
                *count += 1;
                continue;
            }
            let Origin::File { line, .. } = origin else { continue };
            if is_included && key == "include" {
                let what =
                    "include: an included file includes no other; name the folder in the main file";
                self.errors.push(ConfigError::at(&key, what).in_file(path, Some(line)));
                continue;
            }
            match self.places.get(&key) {
                Some(earlier) => {
                    let what = format!("{key} is set at {earlier} too; set it in one of the files");
                    self.errors.push(ConfigError::at(&key, what).in_file(path, Some(line)));
                }
                None => drop(self.places.insert(key, origin)),
            }
        }
        merge(&mut self.table, document.table);
        Ok(())
    }
}

/// The TOML files of a folder in the order of their names. Hidden files are skipped.
fn list(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let about = |error: std::io::Error| {
        format!(
            "include: the folder {} cannot be read: {error}; name a readable folder",
            folder.display()
        )
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(about)? {
        let path = entry.map_err(about)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".toml") && !name.starts_with('.') {
            paths.push(path);
        }
    }
    if paths.len() > INCLUDED_MAX {
        let count = paths.len();
        return Err(format!(
            "include: the folder {} has {count} TOML files, more than {INCLUDED_MAX}",
            folder.display()
        ));
    }
    paths.sort();
    Ok(paths)
}

/// Adds the keys of `more` to a table. Lists of tables are joined.
fn merge(table: &mut Table, more: Table) {
    use toml::Value;
    for (name, value) in more {
        match (table.get_mut(&name), value) {
            (Some(Value::Table(table)), Value::Table(more)) => merge(table, more),
            (Some(Value::Array(list)), Value::Array(more))
                if keys::LISTS.contains(&name.as_str()) =>
            {
                list.extend(more);
            }
            (_, value) => drop(table.insert(name, value)),
        }
    }
}

/// The settings in a text. Errors name line, column, key and the accepted values.
fn read(document: &Document<'_>) -> Result<Settings, ConfigError> {
    let settings = document.settings()?;
    spread(&settings.listeners, &document.table)?;
    Ok(settings)
}

impl Settings {
    /// Reads the text of a TOML file over the defaults; errors name line, column, key and the accepted values.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        let complete = |document: Document<'_>| {
            let mut settings = read(&document)?;
            settings.complete(&document.table)?;
            Ok(settings)
        };
        Document::parse(text).and_then(complete).map_err(|error: ConfigError| error.to_string())
    }

    /// The settings of a table over the defaults, and for each listener the number of its table.
    pub(super) fn from_table(table: &Table) -> Result<(Self, Vec<usize>), ConfigError> {
        let mut settings: Self = deserializer::from_table(table)
            .map_err(|error: ValueError| ConfigError::new(error.what()))?;
        let tables = settings.complete(table)?;
        Ok((settings, tables))
    }

    /// Makes a listener of each address that a `bind` stands for. Without `listen` only these listeners are opened.
    fn complete(&mut self, table: &Table) -> Result<Vec<usize>, ConfigError> {
        if !self.listeners.is_empty() && !table.contains_key("listen") {
            self.listen.clear();
        }
        let (listeners, tables) = spread(&self.listeners, table)?.into_iter().unzip();
        self.listeners = listeners;
        Ok(tables)
    }
}

/// A listener for each address that a `bind` stands for, with the number of its table. Tables that the listener's
/// transport does not use are refused, even if their values are the defaults.
fn spread(listeners: &[Listener], table: &Table) -> Result<Vec<(Listener, usize)>, ConfigError> {
    let Some(tables) = table.get(keys::LISTENERS).and_then(toml::Value::as_array) else {
        return Ok(Vec::new());
    };
    let mut all = Vec::new();
    for (number, (listener, table)) in listeners.iter().zip(tables).enumerate() {
        let wrong = |what| ConfigError::at(&keys::of_listener(number), what);
        for name in ["tls", "websocket", "unix"] {
            if table.get(name).is_some() {
                listener.check_table(name).map_err(wrong)?;
            }
        }
        let bind = table.get("bind").and_then(toml::Value::as_str).unwrap_or_default();
        match &listener.bind {
            Bind::Path(_) => all.push((listener.clone(), number)),
            Bind::Address(_) => {
                let of = |address| Listener { bind: Bind::Address(address), ..listener.clone() };
                let addresses = bind.parse::<Addresses>().map_err(wrong)?.0;
                all.extend(addresses.into_iter().map(|address| (of(address), number)));
            }
        }
    }
    Ok(all)
}
