//! Calls between files. The function that a call means is found by the type of the receiver, as far as
//! the sources show it: types of parameters and fields, what functions return, and names that always
//! have the same type. A call for which several functions fit is left out.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::source::{Call, Callee, File, Value};

/// Methods that collections also have: without a type, a call does not reveal which one is meant.
const COMMON_NAMES: [&str; 42] = [
    "new", "default", "len", "is_empty", "get", "get_mut", "insert", "remove", "push", "pop",
    "iter", "iter_mut", "clear", "take", "drain", "next", "clone", "contains", "extend", "retain",
    "entry", "first", "last", "drop", "fmt", "from", "into", "as_ref", "as_mut", "write", "send",
    "set", "add", "hold", "advance", "end", "replace", "min", "filter", "expect", "map", "find",
];

/// Methods of holders of one value, such as `Option`: their result is the value.
const TRANSPARENT: [&str; 18] = [
    "as_ref",
    "as_mut",
    "as_deref",
    "as_deref_mut",
    "unwrap",
    "expect",
    "clone",
    "cloned",
    "copied",
    "take",
    "filter",
    "get_or_insert_with",
    "get_or_insert_default",
    "unwrap_or_default",
    "ok",
    "edit",
    "touch",
    "get_or_insert",
];

/// The calls between some files.
pub struct Calls {
    /// For each file, the functions of other files that it calls, with one of the callers.
    edges: Vec<BTreeMap<usize, BTreeSet<(String, String)>>>,
    /// Calls for which several functions fit.
    pub ambiguous: usize,
}

/// What is known of all files.
struct Known<'a> {
    files: Vec<&'a File>,
    /// Places of functions, by type and name.
    methods: HashMap<(&'a str, &'a str), BTreeSet<usize>>,
    /// Files with a function of this name.
    by_name: HashMap<&'a str, BTreeSet<usize>>,
    returns: HashMap<(&'a str, &'a str), &'a str>,
    fields: HashMap<(&'a str, &'a str), &'a str>,
    elements: HashMap<&'a str, &'a str>,
    /// Names of parameters and fields with the types that they have.
    named: HashMap<&'a str, BTreeSet<&'a str>>,
}

impl<'a> Known<'a> {
    fn of(files: &'a [File], others: &'a [File]) -> Self {
        let mut known = Self {
            files: files.iter().chain(others).collect(),
            methods: HashMap::new(),
            by_name: HashMap::new(),
            returns: HashMap::new(),
            fields: HashMap::new(),
            elements: HashMap::new(),
            named: HashMap::new(),
        };
        for (index, file) in known.files.iter().enumerate() {
            for function in &file.functions {
                let owner = function.owner.as_deref().unwrap_or_default();
                known.methods.entry((owner, &function.name)).or_default().insert(index);
                known.by_name.entry(&function.name).or_default().insert(index);
                if let Some(returns) = &function.returns {
                    known.returns.insert((owner, &function.name), returns);
                }
                for (name, type_) in &function.parameters {
                    known.named.entry(name).or_default().insert(type_);
                }
            }
            for type_ in &file.structs {
                for (name, of) in &type_.fields {
                    let Some(of) = of else { continue };
                    known.fields.insert((&type_.name, name), of);
                    known.named.entry(name).or_default().insert(of);
                }
            }
            for (type_, element) in &file.elements {
                known.elements.insert(type_, element);
            }
        }
        known
    }

    /// The type of a name that always has the same one.
    fn type_of_name(&self, name: &str) -> Option<&'a str> {
        let types = self.named.get(name)?;
        types.first().copied().filter(|_| types.len() == 1)
    }

    fn type_of(&self, value: &'a Value) -> Option<&'a str> {
        match value {
            Value::Unknown => None,
            Value::Of(type_) => Some(type_),
            Value::Named(name) => self.type_of_name(name),
            Value::Field(of, name) => match self.type_of(of) {
                Some(type_) => self.fields.get(&(type_, &**name)).copied(),
                None => self.type_of_name(name),
            },
            Value::Element(of) => self.elements.get(self.type_of(of)?).copied(),
            Value::Method(of, name) => {
                let type_ = self.type_of(of)?;
                match self.methods.contains_key(&(type_, &**name)) {
                    true => self.returns.get(&(type_, &**name)).copied(),
                    false => TRANSPARENT.contains(&&**name).then_some(type_),
                }
            }
            Value::Path(path, name) => {
                let owner = path.last().filter(|last| last.starts_with(char::is_uppercase));
                let owner = owner.map_or("", |owner| owner);
                self.returns.get(&(owner, &**name)).copied()
            }
        }
    }

    /// The files in which the called function may be.
    fn targets(&self, own: usize, call: &'a Call) -> BTreeSet<usize> {
        let none = BTreeSet::new;
        match &call.of {
            Callee::Method(value) => match self.type_of(value) {
                Some(type_) => self.methods.get(&(type_, &*call.name)).cloned().unwrap_or_default(),
                None if COMMON_NAMES.contains(&&*call.name) => none(),
                None => self.by_name.get(&*call.name).cloned().unwrap_or_default(),
            },
            Callee::Path(path) => match path.last() {
                Some(last) if last.starts_with(char::is_uppercase) => {
                    self.methods.get(&(&**last, &*call.name)).cloned().unwrap_or_default()
                }
                module => {
                    let free = self.methods.get(&("", &*call.name)).cloned().unwrap_or_default();
                    if module.is_none() && free.contains(&own) {
                        return BTreeSet::from([own]);
                    }
                    self.imported(own, module.map(String::as_str), &call.name, free)
                }
            },
        }
    }

    /// Those of the files that the caller's imports, or the path of the call, name.
    fn imported(
        &self,
        own: usize,
        module: Option<&str>,
        name: &str,
        files: BTreeSet<usize>,
    ) -> BTreeSet<usize> {
        let is_named = |file: &usize| {
            let of = &self.files[*file].module;
            match module {
                Some(module) => of.last().is_some_and(|last| last == module),
                None => self.files[own].paths.iter().any(|(_, path)| {
                    path.split_last().is_some_and(|(last, before)| last == name && before == of)
                }),
            }
        };
        let named: BTreeSet<usize> = files.iter().copied().filter(is_named).collect();
        // A variable, if nothing imports a function of its name.
        if named.is_empty() && module.is_none() { BTreeSet::new() } else { named }
    }
}

impl Calls {
    /// The calls between `files`; `others` are the other files that these use.
    pub fn between(files: &[File], others: &[File]) -> Self {
        let known = Known::of(files, others);
        let mut calls = Self { edges: vec![BTreeMap::new(); files.len()], ambiguous: 0 };
        for (own, file) in files.iter().enumerate() {
            for call in &file.calls {
                let targets = known.targets(own, call);
                let is_known = targets.len() == 1;
                for &target in targets.iter().filter(|&&target| target < files.len()) {
                    if !is_known {
                        calls.ambiguous += 1;
                        break;
                    }
                    if target != own {
                        let caller = file.functions[call.caller].name.clone();
                        let of_target = calls.edges[own].entry(target).or_default();
                        of_target.insert((caller, call.name.clone()));
                    }
                }
            }
        }
        calls
    }

    /// The groups of files of several folders in which each file reaches all others.
    pub fn circles(&self, files: &[File]) -> Vec<Vec<usize>> {
        let reached: Vec<BTreeSet<usize>> = (0..files.len())
            .map(|start| {
                let (mut seen, mut left) = (BTreeSet::new(), vec![start]);
                while let Some(file) = left.pop() {
                    left.extend(self.edges[file].keys().filter(|&&next| seen.insert(next)));
                }
                seen
            })
            .collect();
        let mut circles = Vec::new();
        let mut known: BTreeSet<usize> = BTreeSet::new();
        for start in 0..files.len() {
            if known.contains(&start) || !reached[start].contains(&start) {
                continue;
            }
            let in_circle = |&file: &usize| reached[file].contains(&start);
            let circle: Vec<usize> = reached[start].iter().copied().filter(in_circle).collect();
            known.extend(&circle);
            let folders: BTreeSet<&str> = circle.iter().map(|&file| files[file].folder()).collect();
            if folders.len() > 1 {
                circles.push(circle);
            }
        }
        circles
    }

    /// Files of a circle from bottom to top, in an order in which few calls go up, and the calls that do.
    pub fn upward_within(&self, circle: &[usize], files: &[File]) -> Vec<String> {
        let order = self.order(circle);
        let rank: HashMap<usize, usize> =
            order.iter().enumerate().map(|(rank, &file)| (file, rank)).collect();
        let mut lines = Vec::new();
        for &from in &order {
            for (to, calls) in &self.edges[from] {
                if rank.get(to).is_some_and(|to| *to > rank[&from]) {
                    lines.push(self.line(&files[from].path[11..], &files[*to].path[11..], calls));
                }
            }
        }
        lines.insert(0, format!("{} of its calls from file to file go up:", lines.len()));
        lines
    }

    fn line(&self, from: &str, to: &str, calls: &BTreeSet<(String, String)>) -> String {
        let calls = calls.iter().map(|(caller, called)| format!("{caller}>{called}"));
        format!("  {from} -> {to}: {}", calls.collect::<Vec<_>>().join(" "))
    }

    /// Files from bottom to top: at each step the file with the fewest calls to files that are left, and
    /// the most calls from them (Eades, Lin and Smyth, 1993).
    fn order(&self, circle: &[usize]) -> Vec<usize> {
        let mut left: BTreeSet<usize> = circle.iter().copied().collect();
        let mut order = Vec::new();
        while !left.is_empty() {
            let weight = |from: usize, to: usize| {
                self.edges[from].get(&to).map_or(0, |calls| calls.len() as i64)
            };
            let best = left.iter().copied().min_by_key(|&file| {
                let others = || left.iter().filter(|&&other| other != file);
                let down: i64 = others().map(|&other| weight(file, other)).sum();
                let up: i64 = others().map(|&other| weight(other, file)).sum();
                if down == 0 { i64::MIN } else { down - up }
            });
            let best = best.expect("some are left");
            left.remove(&best);
            order.push(best);
        }
        order
    }

    /// Numbers of calls from folder to folder.
    pub fn between_folders(&self, files: &[File]) -> Vec<String> {
        let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for (from, edges) in self.edges.iter().enumerate() {
            for (&to, calls) in edges {
                let (from, to) = (files[from].folder(), files[to].folder());
                if from != to {
                    *counts.entry((from, to)).or_default() += calls.len();
                }
            }
        }
        let short = |folder: &str| folder.rsplit('/').next().unwrap_or_default().to_owned();
        let lines = counts.iter().map(|((from, to), count)| {
            let back = counts.get(&(*to, *from)).copied().unwrap_or(0);
            format!("  {} -> {}: {count}, back {back}", short(from), short(to))
        });
        lines.collect()
    }
}
