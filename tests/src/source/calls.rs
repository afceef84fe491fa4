//! Expressions that call or build something with a given literal.

use super::load::is_test;
use syn::visit::{self, Visit};

/// The lines of a parsed file, except its tests, with the expression
/// `name(literal)`.
pub fn lines(parsed: &syn::File, name: &str, literal: &str) -> Vec<usize> {
    let mut found = Calls {
        name,
        literal,
        lines: Vec::new(),
    };
    found.visit_file(parsed);
    found.lines
}

struct Calls<'a> {
    name: &'a str,
    literal: &'a str,
    lines: Vec<usize>,
}

impl<'ast> Visit<'ast> for Calls<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let syn::Expr::Path(function) = &*call.func
            && let Some(last) = function.path.segments.last()
            && let Some(syn::Expr::Lit(lit)) = call.args.first()
            && let syn::Lit::Int(value) = &lit.lit
            && last.ident == self.name
            && value.base10_digits() == self.literal
        {
            self.lines.push(last.ident.span().start().line);
        }
        visit::visit_expr_call(self, call);
    }
}
