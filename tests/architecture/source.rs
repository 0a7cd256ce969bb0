//! The sources as seen by the architecture tests: files, found through their `mod` declarations,
//! with their paths, functions, types and calls. Code under `#[cfg(test)]` is excluded.

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, FnArg, Item, ItemMod, Pat, Type, UseTree};

/// The repository's root.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().find(|folder| folder.join("Cargo.lock").exists()).expect("a root").to_owned()
}

/// One file of a crate.
#[derive(Debug)]
pub struct File {
    /// Path relative to the repository's root.
    pub path: String,
    pub lines: usize,
    /// Paths into the crate, such as `["engine", "packets", "connect"]`, with their lines.
    pub paths: Vec<(usize, Vec<String>)>,
    pub functions: Vec<Function>,
    pub structs: Vec<Struct>,
    pub calls: Vec<Call>,
}

/// A function or a method.
#[derive(Debug)]
pub struct Function {
    pub name: String,
    /// The type of the enclosing `impl` block, or the trait that declares it.
    pub owner: Option<String>,
    pub line: usize,
    /// Lines from `fn` to the closing brace.
    pub length: usize,
    /// Names of parameters and of their types.
    pub parameters: Vec<(String, String)>,
}

/// A type with named fields.
#[derive(Debug)]
pub struct Struct {
    pub name: String,
    pub fields: usize,
}

/// A call of a function or a method.
#[derive(Debug)]
pub struct Call {
    pub name: String,
    /// The type that the call names: `Type::name(…)`, or `self.name(…)` in its `impl` block.
    pub owner: Option<String>,
}

impl File {
    /// The part of the sources that the file belongs to: `engine` for `src/engine/packets/job.rs`,
    /// `message` for `src/message.rs`.
    pub fn floor(&self) -> &str {
        let path = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let first = path.split('/').next().unwrap_or(path);
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// The folder of the file.
    pub fn folder(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }
}

/// All files of the crate with this root file, in the order of their declarations.
pub fn read_crate(root_file: &str) -> Vec<File> {
    let mut files = Vec::new();
    let folder = Path::new(root_file).parent().expect("a folder").to_owned();
    read(Path::new(root_file), &folder, Vec::new(), &mut files);
    files
}

/// Reads a file and its modules, which are in this folder.
fn read(path: &Path, folder: &Path, module: Vec<String>, files: &mut Vec<File>) {
    let text = fs::read_to_string(root().join(path))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let tree = syn::parse_file(&text).unwrap_or_else(|error| {
        panic!("{}:{}: {error}", path.display(), error.span().start().line);
    });
    let mut reader = Reader {
        module: module.clone(),
        owner: None,
        file: File {
            path: path.display().to_string(),
            lines: text.lines().count(),
            paths: Vec::new(),
            functions: Vec::new(),
            structs: Vec::new(),
            calls: Vec::new(),
        },
    };
    reader.visit_file(&tree);
    files.push(reader.file);
    for item in &tree.items {
        if let Item::Mod(declared) = item
            && declared.content.is_none()
            && !is_test(&declared.attrs)
        {
            let name = declared.ident.to_string();
            let (path, below) = locate(path, folder, declared, &name);
            read(&path, &below, [&module[..], &[name]].concat(), files);
        }
    }
}

/// The path of a declared module, and the folder of its own modules.
fn locate(parent: &Path, folder: &Path, declared: &ItemMod, name: &str) -> (PathBuf, PathBuf) {
    if let Some(given) = declared.attrs.iter().find_map(path_attribute) {
        let path = parent.parent().expect("a folder").join(given);
        return (path, folder.join(name));
    }
    let file = folder.join(format!("{name}.rs"));
    let below = folder.join(name);
    if root().join(&file).exists() { (file, below) } else { (below.join("mod.rs"), below) }
}

/// The file named by `#[path = "…"]`.
fn path_attribute(attribute: &Attribute) -> Option<String> {
    let syn::Meta::NameValue(pair) = &attribute.meta else { return None };
    let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) = &pair.value else {
        return None;
    };
    attribute.path().is_ident("path").then(|| text.value())
}

/// Whether the item is compiled only in tests.
pub fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && attribute.meta.require_list().is_ok_and(|list| requires_test(&list.tokens))
    })
}

/// Whether a `cfg` predicate contains `test` outside `not(…)`.
fn requires_test(predicate: &TokenStream) -> bool {
    let mut is_negated = false;
    for token in predicate.clone() {
        match token {
            TokenTree::Ident(word) if word == "test" => return true,
            TokenTree::Ident(word) => is_negated = word == "not",
            TokenTree::Group(group) if !is_negated && requires_test(&group.stream()) => {
                return true;
            }
            _ => {}
        }
    }
    false
}

/// Collects the contents of a file.
struct Reader {
    module: Vec<String>,
    owner: Option<String>,
    file: File,
}

impl Reader {
    /// Records a path if it leads into the crate.
    fn add_path(&mut self, line: usize, segments: &[String]) {
        let supers = segments.iter().take_while(|segment| *segment == "super").count();
        let path = match segments.first().map(String::as_str) {
            // The command refers to the library by its name.
            Some("crate" | "ringmq") if segments.len() > 1 => segments[1..].to_vec(),
            Some("super") => {
                let above = self.module.len().saturating_sub(supers);
                [&self.module[..above], &segments[supers..]].concat()
            }
            _ => return,
        };
        if !path.is_empty() {
            self.file.paths.push((line, path));
        }
    }

    fn add_use(&mut self, tree: &UseTree, before: &mut Vec<String>) {
        let (name, rest) = match tree {
            UseTree::Path(path) => (&path.ident, Some(&*path.tree)),
            UseTree::Name(name) => (&name.ident, None),
            UseTree::Rename(rename) => (&rename.ident, None),
            UseTree::Glob(glob) => {
                let line = glob.star_token.spans[0].start().line;
                return self.add_path(line, &[&before[..], &["*".to_owned()]].concat());
            }
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.add_use(tree, before));
            }
        };
        before.push(name.to_string());
        match rest {
            Some(rest) => self.add_use(rest, before),
            None => self.add_path(line_of(name), before),
        }
        before.pop();
    }

    /// Finds paths and method calls in the arguments of a macro, which are unparsed tokens.
    fn add_tokens(&mut self, tokens: &TokenStream) {
        let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
        for (index, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Group(group) => self.add_tokens(&group.stream()),
                TokenTree::Ident(first) if first == "crate" || first == "super" => {
                    let segments = path_at(&tokens[index..]);
                    self.add_path(line_of(first), &segments);
                }
                TokenTree::Punct(dot) if dot.as_char() == '.' => {
                    if let [TokenTree::Ident(name), TokenTree::Group(group), ..] =
                        &tokens[index + 1..]
                        && group.delimiter() == Delimiter::Parenthesis
                    {
                        self.file.calls.push(Call { name: name.to_string(), owner: None });
                    }
                }
                _ => {}
            }
        }
    }

    fn add_function(&mut self, signature: &syn::Signature, end: Option<usize>) {
        let line = signature.fn_token.span.start().line;
        let parameters = signature.inputs.iter().filter_map(|input| match input {
            FnArg::Typed(typed) => Some((pattern_name(&typed.pat)?, type_name(&typed.ty)?)),
            FnArg::Receiver(_) => None,
        });
        self.file.functions.push(Function {
            name: signature.ident.to_string(),
            owner: self.owner.clone(),
            line,
            length: end.unwrap_or(line) + 1 - line,
            parameters: parameters.collect(),
        });
    }

    /// Visits the items of a type or a trait.
    fn within(&mut self, owner: Option<String>, visit: impl FnOnce(&mut Self)) {
        let outer = std::mem::replace(&mut self.owner, owner);
        visit(self);
        self.owner = outer;
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Const(item) => &item.attrs,
            Item::Enum(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            Item::Static(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            Item::Trait(item) => &item.attrs,
            Item::Type(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Macro(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_use(&item.tree, &mut Vec::new());
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        let name = item.ident.to_string();
        let fields = item.fields.iter().filter(|field| !is_test(&field.attrs)).count();
        self.file.structs.push(Struct { name, fields });
        visit::visit_item_struct(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.within(type_name(&item.self_ty), |reader| visit::visit_item_impl(reader, item));
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        let name = item.ident.to_string();
        self.within(Some(name), |reader| visit::visit_item_trait(reader, item));
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.within(None, |reader| {
            reader.add_function(&item.sig, Some(end_of(&item.block)));
            visit::visit_item_fn(reader, item);
        });
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test(&item.attrs) {
            self.add_function(&item.sig, Some(end_of(&item.block)));
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.add_function(&item.sig, item.default.as_ref().map(end_of));
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> =
            path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.add_path(line_of(&path.segments[0].ident), &segments);
        visit::visit_path(self, path);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let is_own = matches!(&*call.receiver, syn::Expr::Path(path) if path.path.is_ident("self"));
        let owner = self.owner.clone().filter(|_| is_own);
        self.file.calls.push(Call { name: call.method.to_string(), owner });
        visit::visit_expr_method_call(self, call);
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let syn::Expr::Path(path) = &*call.func {
            let segments: Vec<String> =
                path.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            let [.., name] = &segments[..] else { return };
            let owner = segments.len().checked_sub(2).map(|index| segments[index].clone());
            let owner = owner.filter(|owner| owner.starts_with(char::is_uppercase));
            let owner = if owner.as_deref() == Some("Self") { self.owner.clone() } else { owner };
            self.file.calls.push(Call { name: name.clone(), owner });
        }
        visit::visit_expr_call(self, call);
    }

    fn visit_macro(&mut self, macro_: &'ast syn::Macro) {
        self.add_tokens(&macro_.tokens);
    }

    fn visit_attribute(&mut self, _: &'ast Attribute) {}
}

fn line_of(word: &Ident) -> usize {
    word.span().start().line
}

fn end_of(block: &syn::Block) -> usize {
    block.brace_token.span.close().end().line
}

/// The path at the start of these tokens.
fn path_at(tokens: &[TokenTree]) -> Vec<String> {
    let mut segments = Vec::new();
    for token in tokens {
        match token {
            TokenTree::Ident(word) => segments.push(word.to_string()),
            TokenTree::Punct(punct) if punct.as_char() == ':' => {}
            _ => break,
        }
    }
    segments
}

fn pattern_name(pattern: &Pat) -> Option<String> {
    match pattern {
        Pat::Ident(name) => Some(name.ident.to_string()),
        _ => None,
    }
}

/// The last segment of a type's path; for a reference, that of its target.
fn type_name(type_: &Type) -> Option<String> {
    match type_ {
        Type::Path(path) => Some(path.path.segments.last()?.ident.to_string()),
        Type::Reference(reference) => type_name(&reference.elem),
        _ => None,
    }
}
