//! A crate's modules, parsed: the tree that `mod` spans, and in each module its
//! items, its imports and the paths that its code names.

use super::mentions::{self, Mention, Use};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use syn::{Attribute, Item, Visibility};

/// The parsed modules of one library or program; the first is the root.
#[derive(Default)]
pub struct Crate {
    /// Every module, a parent before its children.
    pub modules: Vec<Module>,
    /// The parsed files, by their path below `src`.
    pub files: BTreeMap<PathBuf, syn::File>,
}

/// One module. Several may stand in one file.
#[derive(Debug, Default)]
pub struct Module {
    /// Names from the root on, empty for the root.
    pub path: Vec<String>,
    /// Index of the module that declares this one; the root is its own parent.
    pub parent: usize,
    /// Path of the file below `src`.
    pub file: PathBuf,
    /// Modules declared here, and whether with a plain `pub`.
    pub children: BTreeMap<String, (usize, bool)>,
    /// Other items defined here, and whether with a plain `pub`.
    pub items: BTreeMap<String, bool>,
    /// Its imports, also those within functions.
    pub uses: Vec<Use>,
    /// Paths in the code, without those of `uses`.
    pub mentions: Vec<Mention>,
}

impl Crate {
    /// Parses the crate with the root file `root`; `read` gives the text of a file
    /// below `src`.
    ///
    /// # Errors
    /// A file that cannot be read or parsed, or a module with `#[path]`.
    pub fn load(root: &Path, read: impl Fn(&Path) -> io::Result<String>) -> Result<Self> {
        let mut krate = Crate::default();
        krate.file(root, Vec::new(), 0, &read)?;
        Ok(krate)
    }

    /// Parses a file as the module at `path`; returns the module's index.
    fn file(
        &mut self,
        file: &Path,
        path: Vec<String>,
        parent: usize,
        read: &dyn Fn(&Path) -> io::Result<String>,
    ) -> Result<usize> {
        let text = read(file).with_context(|| format!("read {}", file.display()))?;
        let parsed = syn::parse_file(&text).with_context(|| format!("parse {}", file.display()))?;
        let index = self.module(file, path, parent, &parsed.items, read)?;
        self.files.insert(file.to_owned(), parsed);
        Ok(index)
    }

    fn module(
        &mut self,
        file: &Path,
        path: Vec<String>,
        parent: usize,
        items: &[Item],
        read: &dyn Fn(&Path) -> io::Result<String>,
    ) -> Result<usize> {
        let index = self.modules.len();
        self.modules.push(Module {
            path,
            parent,
            file: file.to_owned(),
            ..Module::default()
        });
        for item in items {
            let Item::Mod(child) = item else {
                self.item(index, item);
                continue;
            };
            if is_test(&child.attrs) {
                continue;
            }
            let name = child.ident.to_string();
            if child.attrs.iter().any(|a| a.path().is_ident("path")) {
                bail!("{}: mod {name} has a #[path]", file.display());
            }
            let mut path = self.modules[index].path.clone();
            path.push(name.clone());
            let child_index = match &child.content {
                Some((_, items)) => self.module(file, path, index, items, read)?,
                None => self.child_file(path, index, read)?,
            };
            let public = matches!(child.vis, Visibility::Public(_));
            self.modules[index]
                .children
                .insert(name, (child_index, public));
        }
        Ok(index)
    }

    /// Finds and parses the file of the module at `path`.
    fn child_file(
        &mut self,
        path: Vec<String>,
        parent: usize,
        read: &dyn Fn(&Path) -> io::Result<String>,
    ) -> Result<usize> {
        let stem: PathBuf = path.iter().collect();
        let plain = stem.with_extension("rs");
        let file = match read(&plain) {
            Ok(_) => plain,
            Err(_) => stem.join("mod.rs"),
        };
        self.file(&file, path, parent, read)
    }

    fn item(&mut self, index: usize, item: &Item) {
        let (attrs, named) = named(item);
        if is_test(attrs) {
            return;
        }
        let module = &mut self.modules[index];
        if let Some((ident, vis)) = named {
            let public = matches!(vis, Some(Visibility::Public(_)));
            let known = module.items.entry(ident.to_string()).or_default();
            *known |= public;
        }
        mentions::collect(item, &mut module.uses, &mut module.mentions);
    }
}

/// An item's attributes, and its name and visibility where it has a name.
fn named(item: &Item) -> (&[Attribute], Option<(&syn::Ident, Option<&Visibility>)>) {
    match item {
        Item::Const(i) => (&i.attrs, Some((&i.ident, Some(&i.vis)))),
        Item::Enum(i) => (&i.attrs, Some((&i.ident, Some(&i.vis)))),
        Item::Fn(i) => (&i.attrs, Some((&i.sig.ident, Some(&i.vis)))),
        Item::Macro(i) => (&i.attrs, i.ident.as_ref().map(|ident| (ident, None))),
        Item::Static(i) => (&i.attrs, Some((&i.ident, Some(&i.vis)))),
        Item::Struct(i) => (&i.attrs, Some((&i.ident, Some(&i.vis)))),
        Item::Trait(i) => (&i.attrs, Some((&i.ident, Some(&i.vis)))),
        Item::TraitAlias(i) => (&i.attrs, Some((&i.ident, Some(&i.vis)))),
        Item::Type(i) => (&i.attrs, Some((&i.ident, Some(&i.vis)))),
        Item::Union(i) => (&i.attrs, Some((&i.ident, Some(&i.vis)))),
        Item::Impl(i) => (&i.attrs, None),
        Item::Use(i) => (&i.attrs, None),
        Item::ForeignMod(i) => (&i.attrs, None),
        Item::ExternCrate(i) => (&i.attrs, None),
        _ => (&[], None),
    }
}

/// Whether the attributes say that an item is compiled for tests only.
pub(super) fn is_test(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|attr| {
        attr.path().is_ident("test")
            || attr.path().is_ident("cfg")
                && attr
                    .parse_args::<syn::Meta>()
                    .is_ok_and(|meta| needs_test(&meta))
    })
}

/// Whether the condition of a `cfg` holds in tests only.
fn needs_test(meta: &syn::Meta) -> bool {
    let parts = |list: &syn::MetaList| {
        list.parse_args_with(
            syn::punctuated::Punctuated::<syn::Meta, syn::Token![,]>::parse_terminated,
        )
        .unwrap_or_default()
    };
    match meta {
        syn::Meta::Path(path) => path.is_ident("test"),
        syn::Meta::List(list) if list.path.is_ident("all") => parts(list).iter().any(needs_test),
        syn::Meta::List(list) if list.path.is_ident("any") => {
            let parts = parts(list);
            !parts.is_empty() && parts.iter().all(needs_test)
        }
        _ => false,
    }
}
