//! ARCHITECTURE.md, checked against the sources: the order of the parts, the files that it names, and the
//! functions and types in its walks.

use std::collections::BTreeSet;
use std::fs;

use syn::visit::{self, Visit};
use syn::{Attribute, Item};

use super::{floors, source};

fn document() -> String {
    fs::read_to_string(source::root().join("ARCHITECTURE.md")).expect("it is there")
}

/// The words between back quotes, in order, without code blocks.
fn quoted(text: &str) -> Vec<String> {
    let mut is_code = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            prose += line;
            prose.push('\n');
        }
    }
    let paragraphs = prose.split("\n\n");
    let quotations = paragraphs.flat_map(|paragraph| paragraph.split('`').skip(1).step_by(2));
    quotations.map(|quotation| quotation.replace('\n', " ")).collect()
}

/// The file or folder that a quotation names, as a path from the root or from `src/`.
fn path_of(quotation: &str) -> Option<String> {
    let is_path = quotation.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
        && (quotation.contains('/') || quotation.ends_with(".rs"));
    let first = quotation.split('/').next().unwrap_or(quotation);
    is_path.then(|| match source::root().join(first).exists() {
        true => quotation.to_owned(),
        false => format!("src/{quotation}"),
    })
}

#[test]
fn the_files_that_the_document_names_exist() {
    let text = document();
    let paths: BTreeSet<String> = quoted(&text).iter().filter_map(|words| path_of(words)).collect();
    let missing: Vec<_> = paths.iter().filter(|path| !source::root().join(path).exists()).collect();
    assert!(paths.len() > 50, "only {} paths were found", paths.len());
    assert!(missing.is_empty(), "ARCHITECTURE.md names files that do not exist: {missing:#?}");
}

#[test]
fn the_document_has_the_parts_in_the_order_of_the_floors() {
    let text = document();
    let (_, diagram) = text.split_once("```text\nbase ←").expect("the line of the parts");
    let (diagram, _) = diagram.split_once("```").expect("it ends");
    let parts: Vec<_> = ["base"].into_iter().chain(diagram.split('←').map(str::trim)).collect();
    let floors: Vec<_> = floors::names().filter(|part| source_exists(part)).collect();
    assert_eq!(parts, floors);
}

fn source_exists(part: &str) -> bool {
    let source = source::root().join("src");
    source.join(part).exists() || source.join(format!("{part}.rs")).exists()
}

/// What a file declares: `name`, `Type`, and `Type::name` for methods, variants and fields.
#[derive(Default)]
struct Declared {
    names: BTreeSet<String>,
    owner: Option<String>,
}

impl Declared {
    fn of(path: &str) -> Self {
        let text = fs::read_to_string(source::root().join(path))
            .unwrap_or_else(|error| panic!("{path}, which a walk names: {error}"));
        let mut declared = Self::default();
        declared.visit_file(&syn::parse_file(&text).expect("it compiles"));
        declared
    }

    fn add(&mut self, name: &syn::Ident) {
        if let Some(owner) = &self.owner {
            self.names.insert(format!("{owner}::{name}"));
        }
        self.names.insert(name.to_string());
    }

    fn within(&mut self, owner: String, visit: impl FnOnce(&mut Self)) {
        let before = self.owner.replace(owner);
        visit(self);
        self.owner = before;
    }
}

fn attributes_of(item: &Item) -> &[Attribute] {
    match item {
        Item::Fn(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        _ => &[],
    }
}

impl<'a> Visit<'a> for Declared {
    fn visit_item(&mut self, item: &'a Item) {
        if !source::is_test(attributes_of(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        self.add(&item.sig.ident);
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        self.add(&item.sig.ident);
    }

    fn visit_trait_item_fn(&mut self, item: &'a syn::TraitItemFn) {
        self.add(&item.sig.ident);
    }

    fn visit_item_struct(&mut self, item: &'a syn::ItemStruct) {
        self.add(&item.ident);
        self.within(item.ident.to_string(), |declared| visit::visit_item_struct(declared, item));
    }

    fn visit_field(&mut self, field: &'a syn::Field) {
        field.ident.iter().for_each(|name| self.add(name));
    }

    fn visit_item_enum(&mut self, item: &'a syn::ItemEnum) {
        self.add(&item.ident);
        self.within(item.ident.to_string(), |declared| visit::visit_item_enum(declared, item));
    }

    fn visit_variant(&mut self, variant: &'a syn::Variant) {
        self.add(&variant.ident);
    }

    fn visit_item_trait(&mut self, item: &'a syn::ItemTrait) {
        self.add(&item.ident);
        self.within(item.ident.to_string(), |declared| visit::visit_item_trait(declared, item));
    }

    fn visit_item_impl(&mut self, item: &'a syn::ItemImpl) {
        let syn::Type::Path(path) = &*item.self_ty else { return };
        let Some(last) = path.path.segments.last() else { return };
        self.within(last.ident.to_string(), |declared| visit::visit_item_impl(declared, item));
    }
}

#[test]
fn what_the_document_places_in_a_file_is_declared_there() {
    let text = document();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let is_name = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || "_:".contains(c));
    let mut missing = Vec::new();
    let mut checked = 0;
    // `Name` (`path.rs`)
    for (place, _) in text.match_indices("` (`") {
        let name = text[..place].rsplit('`').next().unwrap_or_default();
        let path = text[place + 4..].split('`').next().unwrap_or_default();
        if is_name(name) && path.ends_with(".rs") {
            let path = path_of(path).expect("a path");
            checked += 1;
            if !Declared::of(&path).names.contains(name) {
                missing.push(format!("{path} has no {name}"));
            }
        }
    }
    assert!(checked > 10, "only {checked} names were found");
    assert!(missing.is_empty(), "ARCHITECTURE.md: {missing:#?}");
}

/// A walk: its title, and the quotations of each numbered step.
fn walks(text: &str) -> Vec<(&str, Vec<Vec<String>>)> {
    let (_, walks) = text.split_once("\n## Walks").expect("the section");
    let (walks, _) = walks.split_once("\n## ").expect("another follows");
    let mut found = Vec::new();
    for walk in walks.split("\n### ").skip(1) {
        let (title, body) = walk.split_once('\n').expect("a body");
        let is_next = |number: usize| format!("\n{number}. ");
        let mut steps = Vec::new();
        let mut rest = body.split_once(&is_next(1)).expect("a first step").1;
        loop {
            let next = rest.split_once(&is_next(steps.len() + 2));
            steps.push(quoted(next.map_or(rest, |(step, _)| step)));
            match next {
                Some((_, after)) => rest = after,
                None => break,
            }
        }
        found.push((title, steps));
    }
    found
}

#[test]
fn the_functions_and_types_in_the_walks_exist_in_the_named_files() {
    let text = document();
    let walks = walks(&text);
    let titles: Vec<_> = walks.iter().map(|(title, _)| *title).collect();
    assert_eq!(
        titles,
        ["PUBLISH", "CONNECT", "SUBSCRIBE", "A shared subscription's member leaves"]
    );
    let mut missing = Vec::new();
    for (title, steps) in &walks {
        assert_eq!(steps.len(), 6, "steps of {title}");
        for (number, step) in steps.iter().enumerate() {
            let mut file: Option<(String, Declared)> = None;
            let mut names = 0;
            for quotation in step {
                if let Some(path) = path_of(quotation) {
                    file = Some((path.clone(), Declared::of(&path)));
                    continue;
                }
                let (path, declared) = file.as_ref().expect("a step begins with a file");
                names += 1;
                if !declared.names.contains(quotation) {
                    missing
                        .push(format!("{title}, step {}: {path} has no {quotation}", number + 1));
                }
            }
            assert!(names > 0, "{title}, step {}, names no function", number + 1);
        }
    }
    assert!(missing.is_empty(), "ARCHITECTURE.md, walks:\n{}", missing.join("\n"));
}
