//! Stub.
#![allow(missing_docs)]
use std::collections::BTreeMap;
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TopicError {
    Empty,
    NullCharacter,
    TooLong,
    TooManyLevels,
    WildcardInTopicName,
    MisplacedWildcard,
    ShareName,
}
pub fn levels(t: &str) -> usize {
    t.bytes().filter(|b| *b == b'/').count() + 1
}
pub fn check_topic_name(t: &str, max: usize) -> Result<(), TopicError> {
    if t.is_empty() {
        Err(TopicError::Empty)
    } else if t.contains(['+', '#']) {
        Err(TopicError::WildcardInTopicName)
    } else if levels(t) > max {
        Err(TopicError::TooManyLevels)
    } else {
        Ok(())
    }
}
#[derive(Clone, Copy)]
pub struct TopicFilter<'a> {
    text: &'a str,
    share: Option<&'a str>,
    filter: &'a str,
}
impl<'a> TopicFilter<'a> {
    pub fn parse(text: &'a str, max: usize) -> Result<Self, TopicError> {
        let (share, filter) = match text.strip_prefix("$share/") {
            Some(r) => {
                let (s, f) = r.split_once('/').ok_or(TopicError::ShareName)?;
                if s.is_empty() || f.is_empty() || s.contains(['+', '#']) {
                    return Err(TopicError::ShareName);
                }
                (Some(s), f)
            }
            None => (None, text),
        };
        if filter.is_empty() {
            return Err(TopicError::Empty);
        }
        let ls: Vec<&str> = filter.split('/').collect();
        if ls.len() > max {
            return Err(TopicError::TooManyLevels);
        }
        for (i, l) in ls.iter().enumerate() {
            if l.contains('#') && (*l != "#" || i + 1 != ls.len()) || l.contains('+') && *l != "+" {
                return Err(TopicError::MisplacedWildcard);
            }
        }
        Ok(Self { text, share, filter })
    }
    pub fn text(&self) -> &'a str {
        self.text
    }
    pub fn filter(&self) -> &'a str {
        self.filter
    }
    pub fn share_name(&self) -> Option<&'a str> {
        self.share
    }
    pub fn has_wildcard(&self) -> bool {
        self.filter.contains(['+', '#'])
    }
    pub fn matches(&self, topic: &str) -> bool {
        matches(self.filter, topic)
    }
}
fn matches(f: &str, t: &str) -> bool {
    if t.starts_with('$') && f.starts_with(['+', '#']) {
        return false;
    }
    let mut ts = t.split('/');
    let mut fs = f.split('/');
    loop {
        match (fs.next(), ts.next()) {
            (Some("#"), _) => return true,
            (Some("+"), Some(_)) => {}
            (Some(a), Some(b)) if a == b => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriberId(pub u32);
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FilterId(pub u32);
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscriptionOptions(u8);
impl SubscriptionOptions {
    pub fn new(q: u8, n: bool, r: bool) -> Self {
        Self(q | (n as u8) << 2 | (r as u8) << 3)
    }
    pub fn qos(&self) -> u8 {
        self.0 & 3
    }
    pub fn no_local(&self) -> bool {
        self.0 & 4 != 0
    }
    pub fn retain_as_published(&self) -> bool {
        self.0 & 8 != 0
    }
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription {
    pub subscriber: SubscriberId,
    pub options: SubscriptionOptions,
    pub identifier: u32,
}
pub struct Subscribed {
    pub filter: FilterId,
    pub replaced: Option<Subscription>,
    pub first: bool,
}
pub struct Unsubscribed {
    pub subscription: Subscription,
    pub last: bool,
}
#[derive(Debug, Default, Clone)]
pub struct Matches {
    pub subscriptions: Vec<Subscription>,
    pub shared: Vec<FilterId>,
}
#[derive(Debug)]
pub struct SubscriptionIndex {
    filters: Vec<(String, Vec<Subscription>)>,
    epoch: u64,
}
impl SubscriptionIndex {
    pub fn new(_: u64) -> Self {
        Self { filters: vec![], epoch: 0 }
    }
    pub fn find(&self, t: &str) -> Option<FilterId> {
        self.filters.iter().position(|f| f.0 == t).map(|i| FilterId(i as u32))
    }
    pub fn subscribe(&mut self, f: &TopicFilter<'_>, s: Subscription) -> Subscribed {
        self.epoch += 1;
        let i = match self.find(f.text()) {
            Some(i) => i.0 as usize,
            None => {
                self.filters.push((f.text().into(), vec![]));
                self.filters.len() - 1
            }
        };
        let v = &mut self.filters[i].1;
        let mut replaced = None;
        if let Some(o) = v.iter_mut().find(|o| o.subscriber == s.subscriber) {
            replaced = Some(*o);
            *o = s;
        } else {
            v.push(s)
        }
        Subscribed { filter: FilterId(i as u32), replaced, first: v.len() == 1 }
    }
    pub fn unsubscribe(&mut self, f: FilterId, s: SubscriberId) -> Option<Unsubscribed> {
        self.epoch += 1;
        let v = &mut self.filters[f.0 as usize].1;
        let p = v.iter().position(|o| o.subscriber == s)?;
        let subscription = v.remove(p);
        Some(Unsubscribed { subscription, last: v.is_empty() })
    }
    pub fn get(&self, f: FilterId, s: SubscriberId) -> Option<Subscription> {
        self.filters[f.0 as usize].1.iter().find(|o| o.subscriber == s).copied()
    }
    pub fn members(&self, f: FilterId) -> &[Subscription] {
        &self.filters[f.0 as usize].1
    }
    pub fn matches(&self, topic: &str, out: &mut Matches) {
        out.subscriptions.clear();
        out.shared.clear();
        for (i, (t, v)) in self.filters.iter().enumerate() {
            let f = TopicFilter::parse(t, 1000).unwrap();
            if !v.is_empty() && f.matches(topic) {
                if f.share.is_some() {
                    out.shared.push(FilterId(i as u32))
                } else {
                    out.subscriptions.extend(v)
                }
            }
        }
    }
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
    pub fn len(&self) -> usize {
        self.filters.iter().map(|f| f.1.len()).sum()
    }
}
#[derive(Debug)]
pub struct RetainedIndex<T>(BTreeMap<String, T>);
#[derive(Debug, Default)]
pub struct Cursor(Option<String>);
#[derive(Debug, PartialEq)]
pub enum ScanStep {
    Next,
    StopBefore,
}
#[derive(Debug, PartialEq)]
pub enum ScanState {
    More,
    Done,
}
impl<T> RetainedIndex<T> {
    pub fn new(_: u64) -> Self {
        Self(BTreeMap::new())
    }
    pub fn insert(&mut self, k: &str, t: T) -> Option<T> {
        self.0.insert(k.into(), t)
    }
    pub fn remove(&mut self, k: &str) -> Option<T> {
        self.0.remove(k)
    }
    pub fn get(&self, k: &str) -> Option<&T> {
        self.0.get(k)
    }
    pub fn len(&self) -> usize {
        self.0.len()
    }
    pub fn scan(
        &self,
        f: &str,
        c: &mut Cursor,
        _: usize,
        v: &mut dyn FnMut(&str, &T) -> ScanStep,
    ) -> ScanState {
        for (k, t) in &self.0 {
            if c.0.as_ref().is_some_and(|c| k <= c) || !matches(f, k) {
                continue;
            }
            if v(k, t) == ScanStep::StopBefore {
                return ScanState::More;
            }
            c.0 = Some(k.clone());
        }
        ScanState::Done
    }
}
