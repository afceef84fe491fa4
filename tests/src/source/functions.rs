//! Functions and their lengths.

use super::load::is_test;
use std::path::{Path, PathBuf};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// One function with a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Path of its file.
    pub file: PathBuf,
    /// Its name, without a path.
    pub name: String,
    /// From the line of its name to that of its last bracket.
    pub lines: usize,
}

/// The functions of a parsed file, except tests.
pub fn all(file: &Path, parsed: &syn::File) -> Vec<Function> {
    let mut found = Functions {
        file,
        found: Vec::new(),
    };
    found.visit_file(parsed);
    found.found
}

struct Functions<'a> {
    file: &'a Path,
    found: Vec<Function>,
}

impl Functions<'_> {
    fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let first = signature.span().start().line;
        let last = block.span().end().line;
        self.found.push(Function {
            file: self.file.to_owned(),
            name: signature.ident.to_string(),
            lines: last - first + 1,
        });
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test(&item.attrs) {
            self.add(&item.sig, &item.block);
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test(&item.attrs) {
            self.add(&item.sig, &item.block);
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.add(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}
