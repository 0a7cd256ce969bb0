//! Counts that show how far the code is from its aims. Test code is not counted.

use std::collections::BTreeMap;

use super::calls::Calls;
use super::floors;
use super::source::{self, File};

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 600;

/// Parameters that should be handles, such as `SessionId`.
const INDEX_NAMES: [&str; 7] =
    ["session", "connection", "slot", "index", "subscriber", "publisher", "member"];

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
    for root in [
        "shards/src/lib.rs",
        "src/cli/ctl/lib.rs",
        "tools/src/main.rs",
        "benches/instructions/main.rs",
    ] {
        all.extend(source::read_crate(root));
    }
    let (engine, others): (Vec<File>, Vec<File>) =
        broker.into_iter().partition(|file| file.path.starts_with("src/engine/"));
    let counts = [
        largest_type(&all),
        methods_of_engine(&engine),
        upward(&floors::broker()),
        circles(&engine, &others),
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
            types.entry((file.floor(), &type_.name)).or_default().1 = type_.fields.len();
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

#[test]
fn no_circle_of_calls_spans_folders_of_the_engine() {
    let (engine, others): (Vec<File>, Vec<File>) =
        floors::broker().into_iter().partition(|file| file.path.starts_with("src/engine/"));
    let calls = Calls::between(&engine, &others);
    let circles = calls.circles(&engine);
    let lines: Vec<String> =
        circles.iter().flat_map(|circle| calls.upward_within(circle, &engine)).collect();
    assert!(
        circles.is_empty(),
        "files of several folders of src/engine reach each other by calls; move one of these functions \
         to the file where it belongs, or leave the work in a queue that the turn takes it from:\n{}",
        lines.join("\n")
    );
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

/// Groups of files of several folders that reach each other by calls.
fn circles(files: &[File], all: &[File]) -> Count {
    let calls = Calls::between(files, all);
    let circles = calls.circles(files);
    let mut which = Vec::new();
    for circle in &circles {
        let names: Vec<&str> = circle.iter().map(|&file| &files[file].path[11..]).collect();
        which.push(format!("{} files: {}", circle.len(), names.join(" ")));
        which.extend(calls.upward_within(circle, files));
    }
    which.push("Calls from folder to folder:".to_owned());
    which.extend(calls.between_folders(files));
    which.push(format!("{} calls are left out: several functions fit", calls.ambiguous));
    Count {
        what: "circles of files by calls that span folders of src/engine",
        value: circles.len().to_string(),
        aim: "0",
        which,
    }
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
