//! Where a path leads: to a module of the crate, or to the module that defines an
//! item, through whatever re-exports and aliases.

use super::load::Crate;
use std::collections::BTreeSet;

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The module of this index.
    Module(usize),
    /// The item of this name, or something in it, that the module of this index
    /// defines.
    Item(usize, String),
}

/// Imports that were followed, so that a circle of globs ends.
type Followed = BTreeSet<(usize, String)>;

impl Crate {
    /// What the path names in the module `from`; `None` where that is in another
    /// crate, or a local name.
    pub fn resolve(&self, from: usize, path: &[String]) -> Option<Target> {
        self.follow(from, path, &mut Followed::new())
    }

    fn follow(&self, from: usize, path: &[String], followed: &mut Followed) -> Option<Target> {
        let (first, mut rest) = path.split_first()?;
        let mut target = match first.as_str() {
            "crate" => Target::Module(0),
            "self" => Target::Module(from),
            "super" => Target::Module(self.modules[from].parent),
            name => self.look_up(from, name, followed)?,
        };
        while let (&Target::Module(at), Some((next, after))) = (&target, rest.split_first()) {
            target = match next.as_str() {
                "super" => Target::Module(self.modules[at].parent),
                name => self.look_up(at, name, followed)?,
            };
            rest = after;
        }
        Some(target)
    }

    /// What a single name means in the module `at`.
    fn look_up(&self, at: usize, name: &str, followed: &mut Followed) -> Option<Target> {
        if !followed.insert((at, name.to_owned())) {
            return None;
        }
        let module = &self.modules[at];
        let found = if module.items.contains_key(name) {
            Some(Target::Item(at, name.to_owned()))
        } else if let Some((child, _)) = module.children.get(name) {
            Some(Target::Module(*child))
        } else {
            let named = module
                .uses
                .iter()
                .filter(|u| u.name.as_deref() == Some(name));
            let globs = module.uses.iter().filter(|u| u.name.is_none());
            let by_name = named
                .filter_map(|import| self.follow(at, &import.path, followed))
                .next();
            by_name.or_else(|| {
                globs
                    .filter_map(|import| match self.follow(at, &import.path, followed)? {
                        Target::Module(other) => self.look_up(other, name, followed),
                        Target::Item(..) => None,
                    })
                    .next()
            })
        };
        followed.remove(&(at, name.to_owned()));
        found
    }
}
