//! The paths that an item names: its imports, and those in its code.

use super::load::is_test;
use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Item, UseTree, Visibility};

/// One name that a `use` brings, of a group one of several.
#[derive(Debug, Clone)]
pub struct Use {
    /// Names as written, without the last of a glob.
    pub path: Vec<String>,
    /// The name that it has from now on; `None` for a glob.
    pub name: Option<String>,
    /// Whether others may use it from here: a re-export.
    pub exported: bool,
    /// Whether with a plain `pub`.
    pub public: bool,
    /// Where it stands in its file, from 1.
    pub line: usize,
}

/// One path in the code.
#[derive(Debug, Clone)]
pub struct Mention {
    /// Names as written, without generic arguments.
    pub path: Vec<String>,
    /// Where it stands in its file, from 1.
    pub line: usize,
}

/// Adds what the item names, except what its tests do.
pub(super) fn collect(item: &Item, uses: &mut Vec<Use>, mentions: &mut Vec<Mention>) {
    Collector { uses, mentions }.visit_item(item);
}

struct Collector<'a> {
    uses: &'a mut Vec<Use>,
    mentions: &'a mut Vec<Mention>,
}

impl Collector<'_> {
    fn tree(&mut self, tree: &UseTree, path: &mut Vec<String>, vis: &Visibility) {
        let (last, name) = match tree {
            UseTree::Path(step) => {
                path.push(step.ident.to_string());
                self.tree(&step.tree, path, vis);
                path.pop();
                return;
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.tree(tree, path, vis);
                }
                return;
            }
            UseTree::Name(name) => (Some(&name.ident), Some(&name.ident)),
            UseTree::Rename(rename) => (Some(&rename.ident), Some(&rename.rename)),
            UseTree::Glob(_) => (None, None),
        };
        let line = syn::spanned::Spanned::span(tree).start().line;
        let mut path = path.clone();
        // `a::{self}` is `a`
        path.extend(last.map(|l| l.to_string()).filter(|l| l != "self"));
        let name = match name {
            Some(name) if name == "self" => path.last().cloned(),
            name => name.map(|n| n.to_string()),
        };
        self.uses.push(Use {
            path,
            name,
            exported: !matches!(vis, Visibility::Inherited),
            public: matches!(vis, Visibility::Public(_)),
            line,
        });
    }

    /// The paths among the arguments of a macro, which is not expanded.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let is = |at: usize, wanted: char| matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == wanted);
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.tokens(group.stream()),
                // not a field or a method
                TokenTree::Ident(first) if at == 0 || !is(at - 1, '.') => {
                    let line = first.span().start().line;
                    let mut path = vec![first.to_string()];
                    while is(at + 1, ':') && is(at + 2, ':') {
                        let Some(TokenTree::Ident(next)) = tokens.get(at + 3) else {
                            break;
                        };
                        path.push(next.to_string());
                        at += 3;
                    }
                    self.mentions.push(Mention { path, line });
                }
                _ => {}
            }
            at += 1;
        }
    }
}

impl<'ast> Visit<'ast> for Collector<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attrs = match item {
            Item::Fn(i) => &i.attrs,
            Item::Impl(i) => &i.attrs,
            Item::Mod(i) => &i.attrs,
            Item::Use(i) => &i.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_test(attrs) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if !is_test(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    fn visit_field_value(&mut self, field: &'ast syn::FieldValue) {
        if !is_test(&field.attrs) {
            visit::visit_field_value(self, field);
        }
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if !is_test(&local.attrs) {
            visit::visit_local(self, local);
        }
    }

    fn visit_expr_block(&mut self, block: &'ast syn::ExprBlock) {
        if !is_test(&block.attrs) {
            visit::visit_expr_block(self, block);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&item.tree, &mut Vec::new(), &item.vis);
    }

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}

    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let line = syn::spanned::Spanned::span(path).start().line;
        let names = path.segments.iter().map(|s| s.ident.to_string()).collect();
        self.mentions.push(Mention { path: names, line });
        // the generic arguments
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, mac: &'ast syn::Macro) {
        self.visit_path(&mac.path);
        self.tokens(mac.tokens.clone());
    }
}
