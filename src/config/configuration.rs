//! Settings, and where each of them comes from.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::{Table, Value};

use super::environment::Environment;
use super::file::Files;
use super::{ConfigError, Settings, keys};

/// Where a setting comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere is it set.
    #[default]
    Default,
    /// A line of a file.
    File {
        /// The file.
        file: Arc<Path>,
        /// The line, from 1.
        line: u32,
    },
    /// Defaults of another broker, whose file is read.
    DefaultOf(&'static str),
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line } => write!(f, "{}:{line}", file.display()),
            Self::DefaultOf(name) => f.write_str(name),
            Self::Environment(variable) => f.write_str(variable),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// An effective setting.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key, such as `limits.sessions_max`.
    pub key: String,
    /// The value as in a file; secrets as `***`.
    pub value: Value,
    /// Where the value comes from.
    pub origin: Origin,
    /// Whether a reload changes the key; otherwise a restart does.
    pub is_live: bool,
}

/// Settings, and where each of them comes from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Configuration {
    /// The settings.
    pub settings: Settings,
    /// What the log says at a start about the files that were read.
    pub notices: Vec<String>,
    /// By key; keys that are absent have their defaults.
    origins: BTreeMap<String, Origin>,
}

impl Configuration {
    /// Reads the main file with the folder that it includes, and the environment, which takes precedence. All errors
    /// are returned.
    pub fn read(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Vec<ConfigError>> {
        let Environment { set, mut errors } = Environment::read(variables);
        let folder = set.iter().find(|(key, ..)| key == "include");
        let folder = folder.and_then(|(_, value, _)| value.as_str()).map(PathBuf::from);
        let files = Files::read(file, folder);
        errors.splice(0..0, files.errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        Self::of(files.table, files.places, set)
    }

    /// The configuration of a table of keys with the origin of each, and the environment, which takes precedence. All
    /// errors are returned.
    pub fn from_table(
        table: Table,
        origins: BTreeMap<String, Origin>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Vec<ConfigError>> {
        let Environment { set, errors } = Environment::read(variables);
        if !errors.is_empty() {
            return Err(errors);
        }
        Self::of(table, origins, set)
    }

    fn of(
        mut table: Table,
        mut origins: BTreeMap<String, Origin>,
        set: Vec<(String, Value, String)>,
    ) -> Result<Self, Vec<ConfigError>> {
        for (key, value, variable) in set {
            keys::insert(&mut table, &key, value);
            origins.insert(key, Origin::Environment(variable));
        }
        let (settings, tables) = Settings::from_table(&table).map_err(|error| vec![error])?;
        // A table stands for several listeners if its `bind` stands for several addresses.
        let of_tables: Vec<Origin> =
            (0..).map_while(|number| origins.remove(&keys::of_listener(number))).collect();
        for (listener, table) in tables.into_iter().enumerate() {
            let origin = of_tables.get(table).cloned().unwrap_or_default();
            origins.insert(keys::of_listener(listener), origin);
        }
        Ok(Self { settings, notices: Vec::new(), origins })
    }

    /// Notes that a flag has set a key.
    pub fn set_by_flag(&mut self, key: &str, flag: &'static str) {
        self.origins.insert(key.to_owned(), Origin::Flag(flag));
    }

    /// Where the value of a key comes from: of the key itself, of the nearest table around it, or of a key in it.
    pub fn origin(&self, key: &str) -> Origin {
        let mut above = Some(key);
        while let Some(key) = above {
            if let Some(origin) = self.origins.get(key) {
                return origin.clone();
            }
            above = key.rsplit_once('.').map(|(above, _)| above);
        }
        let below = format!("{key}.");
        let within = self.origins.range(below.clone()..).next();
        within
            .filter(|(key, _)| key.starts_with(&below))
            .map(|(_, of)| of.clone())
            .unwrap_or_default()
    }

    /// Every setting with its value and its origin, by key.
    pub fn entries(&self) -> Vec<Entry> {
        let entry = |(key, value): (String, Value)| Entry {
            value: keys::without_secrets(&key, value),
            origin: self.origin(&key),
            is_live: keys::is_live(&key),
            key,
        };
        keys::of(&self.settings).into_iter().map(entry).collect()
    }

    /// Checks conditions that involve several keys, or keys and flags. The error has the place of its key.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.settings.check().map_err(|error| self.locate(error))
    }

    /// This configuration, with the values of `wanted` and their origins for the keys that are live.
    pub fn take_over(
        &self,
        wanted: &Self,
        is_live: &impl Fn(&str) -> bool,
    ) -> Result<Self, ConfigError> {
        let mut settings = keys::take_over(&self.settings, &wanted.settings, is_live)?;
        settings.number_listeners(&self.settings)?;
        let mut origins = self.origins.clone();
        origins.retain(|key, _| !is_live(key));
        let live = wanted.origins.iter().filter(|(key, _)| is_live(key));
        origins.extend(live.map(|(key, origin)| (key.clone(), origin.clone())));
        Ok(Self { settings, notices: self.notices.clone(), origins })
    }

    /// Adds to an error of a key the place where the key is set.
    pub fn locate(&self, error: ConfigError) -> ConfigError {
        match error.key().map(|key| self.origin(key)) {
            Some(Origin::File { file, line }) if error.file().is_none() => {
                error.in_file(&file, Some(line))
            }
            _ => error,
        }
    }
}

impl From<Settings> for Configuration {
    fn from(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of files, removed at the end of the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("ringmq-{name}-{}", std::process::id()));
            std::fs::create_dir_all(folder.join("conf.d")).expect("a folder");
            Self(folder)
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, text).expect("written");
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).expect("removed");
        }
    }

    fn variables(of: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        of.iter().map(|&(name, value)| (name.into(), value.into())).collect()
    }

    #[test]
    fn each_value_knows_the_file_and_line_the_variable_or_the_flag_that_set_it() {
        let folder = Folder::new("origins");
        let main = folder.write(
            "broker.toml",
            "include = \"conf.d\"\n[limits]\nsessions_max = 5\nconnect_timeout_s = 3\n",
        );
        let first = folder.write(
            "conf.d/10.toml",
            "[limits]\nreceive_maximum = 7\n[[listeners]]\nbind = \"127.0.0.1:1\"\n",
        );
        folder.write("conf.d/20.toml", "\n[[listeners]]\nbind = \":2\"\n");
        folder.write("conf.d/.hidden.toml", "nonsense");
        folder.write("conf.d/README", "nonsense");
        let environment = variables(&[("RINGMQ_LIMITS__CONNECT_TIMEOUT_S", "4")]);
        let mut read = Configuration::read(Some(&main), environment).expect("valid");
        read.set_by_flag("cores", "--cores");
        let settings = &read.settings;
        assert_eq!((settings.limits.sessions_max, settings.limits.receive_maximum), (5, 7));
        assert_eq!(settings.limits.connect_timeout_s, 4);
        assert!(settings.listen.is_empty(), "only the listeners of the files");
        let binds: Vec<_> = settings.listeners.iter().map(|of| of.bind.to_string()).collect();
        assert_eq!(binds, ["127.0.0.1:1", "0.0.0.0:2", "[::]:2"]);
        let at = |file: &Path, line| Origin::File { file: file.into(), line };
        assert_eq!(read.origin("limits.sessions_max"), at(&main, 3));
        assert_eq!(read.origin("limits.receive_maximum"), at(&first, 2));
        let variable = "RINGMQ_LIMITS__CONNECT_TIMEOUT_S".to_owned();
        assert_eq!(read.origin("limits.connect_timeout_s"), Origin::Environment(variable));
        assert_eq!(read.origin("cores"), Origin::Flag("--cores"));
        assert_eq!(read.origin("limits.inflight_max"), Origin::Default);
        assert_eq!(read.origin("listeners[0].bind"), at(&first, 3));
        let second = folder.0.join("conf.d/20.toml");
        assert_eq!(
            read.origin("listeners[2].transport"),
            at(&second, 2),
            "one table, two listeners"
        );
        let entries = read.entries();
        assert!(
            entries.iter().any(|of| of.key == "listeners[1].bind" && of.origin == at(&second, 2))
        );
    }

    #[test]
    fn a_key_in_two_files_is_an_error_that_names_both_places() {
        let folder = Folder::new("twice");
        let main = folder
            .write("broker.toml", "include = \"conf.d\"\ncores = 1\n[limits]\nsessions_max = 5\n");
        folder.write("conf.d/1.toml", "[limits]\n\nsessions_max = 6\n");
        folder.write("conf.d/2.toml", "cores = 2\ninclude = \"x\"\n");
        folder.write("conf.d/3.toml", "[limits]\nsession_max = 6\n");
        let errors = Configuration::read(Some(&main), variables(&[("RINGMQ_CORE", "1")]));
        let errors = errors.expect_err("they are wrong");
        let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let [twice, also, nested, unknown, variable] = &said[..] else { panic!("{said:?}") };
        assert!(twice.contains("1.toml:3: limits.sessions_max is set at "), "{twice}");
        assert!(twice.contains("broker.toml:4 too"), "{twice}");
        assert!(also.contains("2.toml:1: cores is set at "), "{also}");
        assert!(nested.contains("2.toml:2: include"), "{nested}");
        assert!(unknown.contains("3.toml") && unknown.contains("line 2, column 1"), "{unknown}");
        assert!(variable.contains("RINGMQ_CORES"), "{variable}");
        assert_eq!(errors[3].key(), Some("limits.session_max"));
        assert_eq!((errors[3].line(), errors[0].line()), (Some(2), Some(3)));
    }

    #[test]
    fn an_error_of_several_keys_has_the_place_of_one_of_them() {
        let folder = Folder::new("several");
        let main = folder.write("broker.toml", "\n[mqtt]\nredirect = \"permanent\"\n");
        let error = Configuration::read(Some(&main), []).expect("it parses").check();
        let error = error.expect_err("no server_reference").to_string();
        assert!(error.contains("broker.toml:3: mqtt.redirect"), "{error}");
        let absent = folder.write("broker.toml", "include = \"no.d\"\n");
        let errors = Configuration::read(Some(&absent), []).expect_err("no such folder");
        assert!(errors[0].to_string().contains("no.d cannot be read"), "{errors:?}");
    }
}
