//! The sources as seen by the architecture tests: files, found through their `mod` declarations,
//! with their paths, functions, types and calls. Code under `#[cfg(test)]` is excluded.

use std::collections::HashMap;
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
    /// Path of its module, such as `["engine", "packets"]`.
    pub module: Vec<String>,
    pub lines: usize,
    /// Paths into the crate, such as `["engine", "packets", "connect"]`, with their lines.
    pub paths: Vec<(usize, Vec<String>)>,
    pub functions: Vec<Function>,
    pub structs: Vec<Struct>,
    /// Types that an index returns, by the type that is indexed.
    pub elements: Vec<(String, String)>,
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
    /// The type that it returns, without `Option`, `Result` and pointers.
    pub returns: Option<String>,
}

/// A type with fields.
#[derive(Debug)]
pub struct Struct {
    pub name: String,
    /// Names of the fields, and their types without `Option` and pointers.
    pub fields: Vec<(String, Option<String>)>,
}

/// A call of a function or a method.
#[derive(Debug)]
pub struct Call {
    pub name: String,
    /// The function that contains the call, as an index of [`File::functions`].
    pub caller: usize,
    pub of: Callee,
}

/// How a call names its function.
#[derive(Debug)]
pub enum Callee {
    /// `value.name(…)`
    Method(Value),
    /// `path::name(…)`, or the path of a function as a value: the segments before the name.
    Path(Vec<String>),
}

/// An expression, as far as it says of which type it is.
#[derive(Clone, Debug)]
pub enum Value {
    Unknown,
    Of(String),
    /// A variable without a visible type.
    Named(String),
    Field(Box<Value>, String),
    Element(Box<Value>),
    /// The result of a call.
    Method(Box<Value>, String),
    Path(Vec<String>, String),
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
        function: None,
        variables: HashMap::new(),
        file: File {
            path: path.display().to_string(),
            module: module.clone(),
            lines: text.lines().count(),
            paths: Vec::new(),
            functions: Vec::new(),
            structs: Vec::new(),
            elements: Vec::new(),
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
    /// The function that is being read.
    function: Option<usize>,
    /// The variables in scope.
    variables: HashMap<String, Value>,
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
                        self.add_call(name.to_string(), Callee::Method(Value::Unknown));
                    }
                }
                _ => {}
            }
        }
    }

    fn add_call(&mut self, name: String, of: Callee) {
        if let Some(caller) = self.function {
            self.file.calls.push(Call { name, caller, of });
        }
    }

    /// Records a function, and visits what it contains.
    fn function(
        &mut self,
        signature: &syn::Signature,
        end: Option<usize>,
        visit: impl FnOnce(&mut Self),
    ) {
        let line = signature.fn_token.span.start().line;
        let typed = || {
            signature.inputs.iter().filter_map(|input| match input {
                FnArg::Typed(typed) => Some(typed),
                FnArg::Receiver(_) => None,
            })
        };
        let parameters = typed()
            .filter_map(|typed| Some((pattern_name(&typed.pat)?, type_name(&typed.ty)?)))
            .collect();
        let returns = match &signature.output {
            syn::ReturnType::Type(_, type_) => self.inner_type(type_),
            syn::ReturnType::Default => None,
        };
        let outer_variables = std::mem::take(&mut self.variables);
        if let Some(owner) = &self.owner {
            self.variables.insert("self".to_owned(), Value::Of(owner.clone()));
        }
        for typed in typed() {
            let value = self.inner_type(&typed.ty).map_or(Value::Unknown, Value::Of);
            self.bind(&typed.pat, value, Some(&typed.ty));
        }
        self.file.functions.push(Function {
            name: signature.ident.to_string(),
            owner: self.owner.clone(),
            line,
            length: end.unwrap_or(line) + 1 - line,
            parameters,
            returns,
        });
        let outer = self.function.replace(self.file.functions.len() - 1);
        visit(self);
        self.function = outer;
        self.variables = outer_variables;
    }

    /// A type without `Option` and pointers.
    fn inner_type(&self, type_: &Type) -> Option<String> {
        let name = inner_type(type_)?;
        if name == "Self" { self.owner.clone() } else { Some(name) }
    }

    /// Notes the variables that a pattern binds to a value, or to a part of it.
    fn bind(&mut self, pattern: &Pat, value: Value, type_: Option<&Type>) {
        match pattern {
            Pat::Ident(name) => {
                let name = name.ident.to_string();
                let value =
                    if let Value::Unknown = value { Value::Named(name.clone()) } else { value };
                self.variables.insert(name, value);
            }
            Pat::Reference(of) => self.bind(&of.pat, value, type_),
            Pat::Paren(of) => self.bind(&of.pat, value, type_),
            Pat::Type(of) => {
                let given = self.inner_type(&of.ty).map_or(value, Value::Of);
                self.bind(&of.pat, given, Some(&of.ty));
            }
            Pat::Struct(of) => {
                for field in &of.fields {
                    if let syn::Member::Named(name) = &field.member {
                        let value = Value::Field(Box::new(value.clone()), name.to_string());
                        self.bind(&field.pat, value, None);
                    }
                }
            }
            Pat::TupleStruct(of) => {
                let is_inner = of.path.is_ident("Some") || of.path.is_ident("Ok");
                for pattern in &of.elems {
                    let value = if is_inner { value.clone() } else { Value::Unknown };
                    self.bind(pattern, value, None);
                }
            }
            Pat::Tuple(of) => {
                let types = match type_ {
                    Some(Type::Tuple(types)) => types.elems.iter().collect(),
                    _ => Vec::new(),
                };
                for (index, pattern) in of.elems.iter().enumerate() {
                    let type_ = types.get(index).copied();
                    let value = type_.and_then(|type_| self.inner_type(type_));
                    self.bind(pattern, value.map_or(Value::Unknown, Value::Of), type_);
                }
            }
            Pat::Or(of) => of.cases.iter().for_each(|case| self.bind(case, value.clone(), None)),
            _ => {}
        }
    }

    /// Binds a pattern to an expression, part by part where both are tuples.
    fn bind_to(&mut self, pattern: &Pat, expression: &syn::Expr) {
        if let (Pat::Tuple(pattern), syn::Expr::Tuple(tuple)) = (pattern, expression) {
            for (pattern, expression) in pattern.elems.iter().zip(&tuple.elems) {
                self.bind_to(pattern, expression);
            }
        } else {
            let value = self.value(expression);
            self.bind(pattern, value, None);
        }
    }

    fn value(&self, expression: &syn::Expr) -> Value {
        let boxed = |of: &syn::Expr| Box::new(self.value(of));
        match expression {
            syn::Expr::Path(path) => match path.path.get_ident() {
                Some(name) => {
                    let name = name.to_string();
                    self.variables.get(&name).cloned().unwrap_or(Value::Named(name))
                }
                None => Value::Unknown,
            },
            syn::Expr::Field(of) => match &of.member {
                syn::Member::Named(name) => Value::Field(boxed(&of.base), name.to_string()),
                syn::Member::Unnamed(index) => {
                    Value::Field(boxed(&of.base), index.index.to_string())
                }
            },
            syn::Expr::MethodCall(call) => {
                Value::Method(boxed(&call.receiver), call.method.to_string())
            }
            syn::Expr::Call(call) => match &*call.func {
                syn::Expr::Path(path) => {
                    let (path, name) = self.path_of(&path.path);
                    match (&name[..], call.args.first()) {
                        ("Some" | "Ok", Some(first)) => self.value(first),
                        _ => Value::Path(path, name),
                    }
                }
                _ => Value::Unknown,
            },
            syn::Expr::Struct(of) => self.value_of_type(&of.path),
            syn::Expr::Index(of) => Value::Element(boxed(&of.expr)),
            syn::Expr::Reference(of) => self.value(&of.expr),
            syn::Expr::Paren(of) => self.value(&of.expr),
            syn::Expr::Try(of) => self.value(&of.expr),
            syn::Expr::Unary(of) => self.value(&of.expr),
            _ => Value::Unknown,
        }
    }

    fn value_of_type(&self, path: &syn::Path) -> Value {
        let name = path.segments.last().map(|segment| segment.ident.to_string());
        match name {
            Some(name) if name == "Self" => self.owner.clone().map_or(Value::Unknown, Value::Of),
            Some(name) => Value::Of(name),
            None => Value::Unknown,
        }
    }

    /// The segments of a path before its last one, and the last one.
    fn path_of(&self, path: &syn::Path) -> (Vec<String>, String) {
        let mut segments: Vec<String> =
            path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        let name = segments.pop().expect("a path is not empty");
        if let Some(first) = segments.first_mut().filter(|first| *first == "Self")
            && let Some(owner) = &self.owner
        {
            first.clone_from(owner);
        }
        (segments, name)
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
        let fields = item.fields.iter().filter(|field| !is_test(&field.attrs)).enumerate();
        let fields = fields.map(|(index, field)| {
            let name = field.ident.as_ref().map_or(index.to_string(), Ident::to_string);
            (name, inner_type(&field.ty))
        });
        let fields = fields.collect();
        self.file.structs.push(Struct { name, fields });
        visit::visit_item_struct(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let name = type_name(&item.self_ty);
        for item in &item.items {
            if let (syn::ImplItem::Type(type_), Some(name)) = (item, &name)
                && type_.ident == "Output"
                && let Some(element) = inner_type(&type_.ty)
            {
                self.file.elements.push((name.clone(), element));
            }
        }
        self.within(name, |reader| visit::visit_item_impl(reader, item));
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        let name = item.ident.to_string();
        self.within(Some(name), |reader| visit::visit_item_trait(reader, item));
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.within(None, |reader| {
            reader.function(&item.sig, Some(end_of(&item.block)), |reader| {
                visit::visit_item_fn(reader, item);
            });
        });
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test(&item.attrs) {
            self.function(&item.sig, Some(end_of(&item.block)), |reader| {
                visit::visit_impl_item_fn(reader, item);
            });
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.function(&item.sig, item.default.as_ref().map(end_of), |reader| {
            visit::visit_trait_item_fn(reader, item);
        });
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> =
            path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.add_path(line_of(&path.segments[0].ident), &segments);
        visit::visit_path(self, path);
    }

    fn visit_block(&mut self, block: &'ast syn::Block) {
        let outer = self.variables.clone();
        visit::visit_block(self, block);
        self.variables = outer;
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        let outer = self.variables.clone();
        visit::visit_arm(self, arm);
        self.variables = outer;
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        visit::visit_local(self, local);
        match &local.init {
            Some(init) => self.bind_to(&local.pat, &init.expr),
            None => self.bind(&local.pat, Value::Unknown, None),
        }
    }

    fn visit_expr_let(&mut self, condition: &'ast syn::ExprLet) {
        visit::visit_expr_let(self, condition);
        self.bind_to(&condition.pat, &condition.expr);
    }

    fn visit_expr_match(&mut self, match_: &'ast syn::ExprMatch) {
        self.visit_expr(&match_.expr);
        for arm in &match_.arms {
            let outer = self.variables.clone();
            self.bind_to(&arm.pat, &match_.expr);
            self.visit_arm(arm);
            self.variables = outer;
        }
    }

    fn visit_expr_for_loop(&mut self, loop_: &'ast syn::ExprForLoop) {
        let outer = self.variables.clone();
        self.bind(&loop_.pat, Value::Unknown, None);
        visit::visit_expr_for_loop(self, loop_);
        self.variables = outer;
    }

    fn visit_expr_closure(&mut self, closure: &'ast syn::ExprClosure) {
        let outer = self.variables.clone();
        closure.inputs.iter().for_each(|input| self.bind(input, Value::Unknown, None));
        visit::visit_expr_closure(self, closure);
        self.variables = outer;
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let value = self.value(&call.receiver);
        self.add_call(call.method.to_string(), Callee::Method(value));
        visit::visit_expr_method_call(self, call);
    }

    /// A function that is called, or given as a value.
    fn visit_expr_path(&mut self, path: &'ast syn::ExprPath) {
        let (before, name) = self.path_of(&path.path);
        if !self.variables.contains_key(&name) && name.starts_with(char::is_lowercase) {
            self.add_call(name, Callee::Path(before));
        }
        visit::visit_expr_path(self, path);
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

/// The name of a type without references, `Option` and other types that hold one value.
fn inner_type(type_: &Type) -> Option<String> {
    const HOLDERS: [&str; 8] =
        ["Option", "Result", "Box", "Arc", "Rc", "RefCell", "Accounted", "Edit"];
    match type_ {
        Type::Path(path) => {
            let last = path.path.segments.last()?;
            let name = last.ident.to_string();
            if !HOLDERS.contains(&&*name) {
                return Some(name);
            }
            let syn::PathArguments::AngleBracketed(arguments) = &last.arguments else {
                return Some(name);
            };
            arguments.args.iter().find_map(|argument| match argument {
                syn::GenericArgument::Type(type_) => inner_type(type_),
                _ => None,
            })
        }
        Type::Reference(reference) => inner_type(&reference.elem),
        Type::TraitObject(object) => object.bounds.iter().find_map(|bound| match bound {
            syn::TypeParamBound::Trait(bound) => {
                Some(bound.path.segments.last()?.ident.to_string())
            }
            _ => None,
        }),
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
