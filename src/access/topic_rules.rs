//! Which rules apply to the clients of each listener, and the files that they are read from.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::access::acl::Rules;
use crate::access::{AccessError, Asked, configured, not_combined};
use crate::config::{self, AclFormat};

/// The rules of the broker, and those of listeners that have their own.
#[derive(Clone, Debug, Default)]
pub(super) struct TopicRules {
    /// Those of all other listeners; none: their clients may do everything.
    general: Option<Arc<Rules>>,
    /// Those of listeners, by number.
    of_listeners: Arc<[Option<Arc<Rules>>]>,
    has_any: bool,
}

impl TopicRules {
    pub fn new(general: Option<Arc<Rules>>, of_listeners: Arc<[Option<Arc<Rules>>]>) -> Self {
        let has_any = general.is_some() || of_listeners.iter().any(Option::is_some);
        Self { general, of_listeners, has_any }
    }

    /// Whether there are any rules at all.
    #[inline]
    pub fn has_any(&self) -> bool {
        self.has_any
    }

    /// Whether any rules filter subscriptions.
    pub fn are_filtering(&self) -> bool {
        let own = self.of_listeners.iter().flatten();
        own.chain(&self.general).any(|rules| rules.is_filtering())
    }

    /// The rules for clients of a listener with this number; none: they may do everything.
    #[inline]
    pub fn of(&self, listener: u16) -> Option<&Arc<Rules>> {
        let own = self.of_listeners.get(usize::from(listener));
        own.and_then(Option::as_ref).or(self.general.as_ref())
    }

    /// Whether the rules for clients of a listener with this number filter subscriptions.
    pub fn are_filtering_for(&self, listener: u16) -> bool {
        self.of(listener).is_some_and(|rules| rules.is_filtering())
    }

    /// The rules of the broker.
    #[cfg(feature = "admin")]
    pub fn general(&self) -> Option<&Arc<Rules>> {
        self.general.as_ref()
    }
}

/// The clients of a listener that is gone keep its rules for as long as the broker runs: without them they might do more
/// than before.
pub(super) fn keep_rules_of_gone(
    rules: &mut Arc<[Option<Arc<Rules>>]>,
    asked: &Asked,
    before: &[Option<Arc<Rules>>],
) {
    let is_gone = |number: usize| asked.listeners.get(number).is_some_and(|of| !of.is_open);
    let kept = rules.iter().enumerate().map(|(number, rules)| {
        let before = before.get(number).filter(|_| is_gone(number));
        rules.clone().or_else(|| before.cloned().flatten())
    });
    *rules = kept.collect();
}

/// Reads a file of access rules, which a key names, as the settings say.
pub(super) fn read_rules_for(
    key: &str,
    path: &Path,
    access: &config::Access,
) -> Result<Arc<Rules>, AccessError> {
    let mut rules = read_rules(key, path, access.acl_format)?;
    if access.authorization.after_rules {
        rules.decide_whole();
    }
    Ok(Arc::new(rules))
}

/// Reads the rules of listeners that have their own, each file once.
pub(super) fn read_rules_of_listeners(
    asked: &Asked,
) -> Result<Vec<Option<Arc<Rules>>>, AccessError> {
    const KEY: &str = "[[listeners]] acl_file";
    let mut read: HashMap<&Path, Arc<Rules>> = HashMap::new();
    let mut all = Vec::new();
    for listener in &asked.listeners {
        let Some(path) = configured(&listener.acl_file) else {
            all.push(None);
            continue;
        };
        if asked.access.has_dynamic_security() {
            return Err(not_combined(KEY, "access.dynamic_security"));
        }
        let rules = match read.get(path) {
            Some(rules) => Arc::clone(rules),
            None => read_rules_for(KEY, path, &asked.access)?,
        };
        read.insert(path, Arc::clone(&rules));
        all.push(Some(rules));
    }
    Ok(all)
}

/// Reads a file of access rules, which a key names.
pub fn read_rules(key: &str, path: &Path, format: AclFormat) -> Result<Rules, AccessError> {
    let text = crate::base::text_file::read(path)
        .map_err(|error| AccessError(format!("{key}: {}: {error}", path.display())))?;
    let file = path.display().to_string();
    let rules = match format {
        AclFormat::Ringmq => Rules::parse(&text, &file),
        AclFormat::Mosquitto => Rules::parse_mosquitto(&text, &file),
    };
    rules.map_err(|error| AccessError(error.to_string()))
}
