//! Counts that show how far the code is from its aims. Test code is not counted.

use std::collections::{BTreeMap, BTreeSet};

use super::floors;
use super::source::{self, File};

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 600;

/// Parameters that should be handles, such as `SessionId`.
const INDEX_NAMES: [&str; 7] =
    ["session", "connection", "slot", "index", "subscriber", "publisher", "member"];

/// Methods that collections also have: a call does not reveal which one is meant.
const COMMON_NAMES: [&str; 32] = [
    "new", "default", "len", "is_empty", "get", "get_mut", "insert", "remove", "push", "pop",
    "iter", "iter_mut", "clear", "take", "drain", "next", "clone", "contains", "extend", "retain",
    "entry", "first", "last", "drop", "fmt", "from", "into", "as_ref", "as_mut", "write", "send",
    "set",
];

/// A row of the table: what is counted, the count, the aim, and the items.
struct Count {
    what: &'static str,
    value: String,
    aim: &'static str,
    which: Vec<String>,
}

#[test]
fn counts() {
    let broker = floors::broker();
    let mut all = floors::broker();
    for root in ["shards/src/lib.rs", "tools/src/main.rs", "benches/instructions/main.rs"] {
        all.extend(source::read_crate(root));
    }
    let (engine, _): (Vec<File>, Vec<File>) =
        broker.into_iter().partition(|file| file.path.starts_with("src/engine/"));
    let counts = [
        largest_type(&all),
        methods_of_engine(&engine),
        upward(&floors::broker()),
        circles(&engine),
        long_functions(&all),
        long_files(&all),
        bare_indices(&all),
    ];
    println!("| count | now | aim |\n| --- | ---: | ---: |");
    for Count { what, value, aim, .. } in &counts {
        println!("| {what} | {value} | {aim} |");
    }
    for Count { what, which, .. } in &counts {
        if !which.is_empty() {
            println!("\n{what}:\n  {}", which.join("\n  "));
        }
    }
}

/// Fields and methods of the type with the most methods.
fn largest_type(files: &[File]) -> Count {
    let mut types: BTreeMap<(&str, &str), (usize, usize)> = BTreeMap::new();
    for file in files {
        for Owned { owner, .. } in file.functions.iter().filter_map(Owned::of) {
            types.entry((file.floor(), owner)).or_default().0 += 1;
        }
        for type_ in &file.structs {
            types.entry((file.floor(), &type_.name)).or_default().1 = type_.fields;
        }
    }
    let mut types: Vec<_> = types.into_iter().map(|(name, counts)| (counts, name)).collect();
    types.sort_by(|left, right| right.cmp(left));
    let line = |((methods, fields), (part, name)): &((usize, usize), (&str, &str))| {
        format!("{part}::{name}: {fields} fields, {methods} methods")
    };
    Count {
        what: "fields and methods of the largest type",
        value: line(&types[0]),
        aim: "",
        which: types[1..5].iter().map(line).collect(),
    }
}

/// A method and its type.
struct Owned<'a> {
    owner: &'a str,
}

impl<'a> Owned<'a> {
    fn of(function: &'a source::Function) -> Option<Self> {
        Some(Self { owner: function.owner.as_deref()? })
    }
}

/// Methods of `Engine` as a share of the functions in its folder.
fn methods_of_engine(engine: &[File]) -> Count {
    let mut by_file: Vec<(usize, &str)> = Vec::new();
    let (mut methods, mut functions) = (0, 0);
    for file in engine {
        let own =
            file.functions.iter().filter(|function| function.owner.as_deref() == Some("Engine"));
        let own = own.count();
        functions += file.functions.len();
        methods += own;
        if own > 0 {
            by_file.push((own, &file.path));
        }
    }
    by_file.sort_by(|left, right| right.cmp(left));
    Count {
        what: "methods of Engine among the functions in src/engine",
        value: format!("{methods} of {functions}, {}%", methods * 100 / functions.max(1)),
        aim: "25% at most",
        which: by_file.iter().map(|(own, path)| format!("{own:3} in {path}")).collect(),
    }
}

fn upward(files: &[File]) -> Count {
    let found = floors::upward(files);
    Count {
        what: "imports from a floor above",
        value: found.len().to_string(),
        aim: "0",
        which: found
            .iter()
            .map(|arrow| {
                format!(
                    "{}:{}: {} -> {}",
                    arrow.file.path,
                    arrow.line,
                    arrow.file.floor(),
                    arrow.to
                )
            })
            .collect(),
    }
}

/// Groups of files that reach each other by calls. An approximation: the called file is found by
/// the type if the call names one (`Type::name`, `self.name`), and otherwise by the name of the
/// function, if a single file defines it.
fn circles(files: &[File]) -> Count {
    let calls = calls_between(files);
    let mut spanning = Vec::new();
    for circle in circles_of(&calls) {
        let folders: BTreeSet<&str> = circle.iter().map(|&file| files[file].folder()).collect();
        if folders.len() > 1 {
            let names: Vec<&str> = circle.iter().map(|&file| &files[file].path[11..]).collect();
            spanning.push((circle.len(), folders.len(), names.join(" ")));
        }
    }
    Count {
        what: "circles of files by calls that span folders of src/engine (approximate)",
        value: spanning.len().to_string(),
        aim: "0",
        which: spanning
            .iter()
            .map(|(files, folders, names)| format!("{files} files of {folders} folders: {names}"))
            .collect(),
    }
}

/// For each file, the other files whose functions it calls.
fn calls_between(files: &[File]) -> Vec<BTreeSet<usize>> {
    let mut by_name: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    let mut by_type: BTreeMap<(&str, &str), BTreeSet<usize>> = BTreeMap::new();
    for (index, file) in files.iter().enumerate() {
        for function in &file.functions {
            by_name.entry(&function.name).or_default().insert(index);
            if let Some(owner) = &function.owner {
                by_type.entry((owner, &function.name)).or_default().insert(index);
            }
        }
    }
    let target = |call: &source::Call| -> Option<usize> {
        let files = match &call.owner {
            Some(owner) => by_type.get(&(&**owner, &*call.name))?,
            None if COMMON_NAMES.contains(&&*call.name) => return None,
            None => by_name.get(&*call.name)?,
        };
        files.first().copied().filter(|_| files.len() == 1)
    };
    let others = |(index, file): (usize, &File)| {
        file.calls.iter().filter_map(target).filter(|&other| other != index).collect()
    };
    files.iter().enumerate().map(others).collect()
}

/// The groups of more than one file in which each file reaches all others.
fn circles_of(calls: &[BTreeSet<usize>]) -> Vec<Vec<usize>> {
    let reached: Vec<BTreeSet<usize>> = (0..calls.len())
        .map(|start| {
            let (mut seen, mut left) = (BTreeSet::new(), vec![start]);
            while let Some(file) = left.pop() {
                left.extend(calls[file].iter().filter(|&&next| seen.insert(next)));
            }
            seen
        })
        .collect();
    let mut circles = Vec::new();
    let mut known: BTreeSet<usize> = BTreeSet::new();
    for start in 0..calls.len() {
        if known.contains(&start) || !reached[start].contains(&start) {
            continue;
        }
        let circle: Vec<usize> =
            reached[start].iter().copied().filter(|&file| reached[file].contains(&start)).collect();
        known.extend(&circle);
        circles.push(circle);
    }
    circles
}

fn long_functions(files: &[File]) -> Count {
    let mut long: Vec<(usize, String)> = Vec::new();
    for file in files {
        for function in &file.functions {
            if function.length > FUNCTION_LINES_MAX {
                long.push((
                    function.length,
                    format!("{}:{}: {}", file.path, function.line, function.name),
                ));
            }
        }
    }
    long.sort_by(|left, right| right.cmp(left));
    Count {
        what: "functions of more than 70 lines",
        value: long.len().to_string(),
        aim: "0",
        which: long.iter().map(|(lines, place)| format!("{lines} lines: {place}")).collect(),
    }
}

fn long_files(files: &[File]) -> Count {
    let mut long: Vec<_> = files.iter().filter(|file| file.lines > FILE_LINES_MAX).collect();
    long.sort_by_key(|file| std::cmp::Reverse(file.lines));
    Count {
        what: "files of more than 600 lines",
        value: long.len().to_string(),
        aim: "0",
        which: long.iter().map(|file| format!("{} lines: {}", file.lines, file.path)).collect(),
    }
}

/// Parameters that are a bare record number instead of a handle. Constructors of handles need one:
/// methods of types whose names end in `Id` are not counted.
fn bare_indices(files: &[File]) -> Count {
    let mut bare = Vec::new();
    for file in files {
        if !["engine", "session"].contains(&file.floor()) {
            continue;
        }
        for function in &file.functions {
            if function.owner.as_deref().is_some_and(|owner| owner.ends_with("Id")) {
                continue;
            }
            for (name, type_) in &function.parameters {
                if INDEX_NAMES.contains(&&**name) && type_ == "u32" {
                    let (path, line) = (&file.path, function.line);
                    bare.push(format!("{path}:{line}: {}({name}: u32)", function.name));
                }
            }
        }
    }
    Count {
        what: "bare index parameters in src/engine and src/session",
        value: bare.len().to_string(),
        aim: "0",
        which: bare,
    }
}
