//! What other crates can name of a crate. The compiler's lint for dead code says
//! nothing about it, so where it is small, little can die unseen.

use super::load::Crate;
use super::resolve::Target;
use std::collections::BTreeSet;
use syn::visit::{self, Visit};
use syn::{ImplItem, Item, Visibility};

/// Modules, items and methods with a plain `pub` that another crate can name, each
/// by its path. Fields, variants and what traits have are not listed.
pub fn items(krate: &Crate) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut shown = BTreeSet::from([0]);
    let mut open = vec![0];
    while let Some(at) = open.pop() {
        let module = &krate.modules[at];
        let mut show = |index: usize, open: &mut Vec<usize>| {
            if shown.insert(index) {
                open.push(index);
            }
        };
        for (name, (child, public)) in &module.children {
            if *public {
                found.insert(path(&module.path, name));
                show(*child, &mut open);
            }
        }
        for (name, public) in &module.items {
            if *public {
                found.insert(path(&module.path, name));
            }
        }
        for import in module.uses.iter().filter(|u| u.public) {
            match (krate.resolve(at, &import.path), &import.name) {
                (Some(Target::Module(other)), Some(name)) => {
                    found.insert(path(&module.path, name));
                    show(other, &mut open);
                }
                (Some(Target::Module(other)), None) => show(other, &mut open),
                (Some(Target::Item(other, name)), _) => {
                    found.insert(path(&krate.modules[other].path, &name));
                }
                (None, _) => {}
            }
        }
    }
    let methods = methods(krate, &found);
    found.extend(methods);
    found
}

fn path(module: &[String], name: &str) -> String {
    let mut path = module.to_vec();
    path.push(name.to_owned());
    path.join("::")
}

/// The public methods of the types among `shown`.
fn methods(krate: &Crate, shown: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    for (index, module) in krate.modules.iter().enumerate() {
        // modules within a file are no home of a type's methods here
        let Some(file) = krate.files.get(&module.file) else {
            continue;
        };
        for item in &file.items {
            let Item::Impl(block) = item else { continue };
            let syn::Type::Path(of) = &*block.self_ty else {
                continue;
            };
            let names: Vec<_> = of
                .path
                .segments
                .iter()
                .map(|s| s.ident.to_string())
                .collect();
            let Some(Target::Item(home, name)) = krate.resolve(index, &names) else {
                continue;
            };
            let owner = path(&krate.modules[home].path, &name);
            if shown.contains(&owner) {
                let mut methods = Methods(Vec::new());
                methods.visit_item_impl(block);
                found.extend(methods.0.iter().map(|m| format!("{owner}::{m}")));
            }
        }
    }
    found
}

struct Methods(Vec<String>);

impl<'ast> Visit<'ast> for Methods {
    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let (vis, name) = match item {
            ImplItem::Fn(i) => (&i.vis, &i.sig.ident),
            ImplItem::Const(i) => (&i.vis, &i.ident),
            _ => return visit::visit_impl_item(self, item),
        };
        if matches!(vis, Visibility::Public(_)) {
            self.0.push(name.to_string());
        }
    }
}
