//! The options of Mosquitto 2.0 and 2.1, each with the class of its translation.

/// The table: name, release, class, and what this broker does.
const TABLE: &str = include_str!("options.tsv");

/// How an option is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A key of this broker has the same meaning.
    Same,
    /// A key with another name or other values has the meaning.
    Translated,
    /// The option has no effect here, which a notice explains.
    Ignored,
    /// The option cannot be honoured, and the broker does not start.
    Refused,
}

impl Class {
    /// Name in the table and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Translated => "translated",
            Self::Ignored => "ignored",
            Self::Refused => "refused",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Same, Self::Translated, Self::Ignored, Self::Refused];
        all.into_iter().find(|class| class.name() == name)
    }
}

/// An option of Mosquitto.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MosquittoOption {
    /// The name; one that ends with `*` stands for all names with this beginning.
    pub name: &'static str,
    /// How the option is taken over.
    pub class: Class,
    /// What this broker does, in a few words.
    pub what: &'static str,
}

/// All options, in the order of the table.
pub fn all() -> impl Iterator<Item = MosquittoOption> {
    TABLE.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let mut columns = line.split('\t');
        let mut next = || columns.next().expect("a test reads every row");
        let (name, _release, class, what) = (next(), next(), next(), next());
        let class = Class::from_name(class).expect("a test reads every row");
        MosquittoOption { name, class, what }
    })
}

/// The option with this name.
pub fn find(name: &str) -> Option<MosquittoOption> {
    all().find(|option| match option.name.strip_suffix('*') {
        Some(beginning) => name.len() > beginning.len() && name.starts_with(beginning),
        None => name == option.name,
    })
}

/// The option whose name is nearest to one that does not exist.
pub fn nearest(name: &str) -> &'static str {
    let nearest = all().min_by_key(|option| strsim::levenshtein(option.name, name));
    nearest.map_or("", |option| option.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_table_has_every_option_of_mosquitto_once_with_a_class() {
        let names: BTreeSet<&str> = all().map(|option| option.name).collect();
        assert_eq!((all().count(), names.len()), (142, 142));
        let of = |class| all().filter(|option| option.class == class).count();
        let counts = [Class::Same, Class::Translated, Class::Ignored, Class::Refused].map(of);
        assert_eq!(counts, [68, 50, 14, 10]);
    }

    #[test]
    fn an_option_is_found_by_its_name_or_by_the_beginning_that_the_table_has() {
        assert_eq!(find("psk_file").map(|option| option.class), Some(Class::Refused));
        assert_eq!(find("auth_opt_backends").map(|option| option.name), Some("auth_opt_*"));
        assert_eq!(find("auth_opt_"), None, "the name of the plugin's option is missing");
        assert_eq!((find("listner"), nearest("listner")), (None, "listener"));
    }
}
