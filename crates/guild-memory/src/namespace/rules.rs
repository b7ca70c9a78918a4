//! The rules of all namespaces, checked and ready to be looked up by key.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use guild_core::id::RoleId;

use super::{Clash, Denied, Namespace, OnConflict, Rights};
use crate::commit::Violation;
use crate::range::KeyRange;
use crate::transaction::text;

/// Makes one value out of two, or says why it cannot.
pub type MergeFunction =
    Arc<dyn Fn(Clash<'_>) -> Result<Option<serde_json::Value>, String> + Send + Sync>;

/// The functions that namespaces may name, see [`OnConflict::Merge`].
pub type MergeFunctions = BTreeMap<String, MergeFunction>;

/// Rules that contradict each other or name what does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NamespaceError {
    /// A prefix was declared twice.
    #[error("namespace `{0}` is declared twice: each prefix has one set of rules")]
    Duplicate(String),
    /// A role does not exist.
    #[error(
        "namespace `{namespace}` has a rule for role `{role}`, which does not exist; roles: {known}"
    )]
    UnknownRole {
        /// The namespace.
        namespace: String,
        /// The role.
        role: String,
        /// The roles that exist.
        known: String,
    },
    /// A merge function does not exist.
    #[error(
        "namespace `{namespace}` names the merge function `{function}`, which is not registered; registered: {known}"
    )]
    UnknownMergeFunction {
        /// The namespace.
        namespace: String,
        /// The function.
        function: String,
        /// The functions that exist.
        known: String,
    },
    /// A quota allows nothing.
    #[error("namespace `{namespace}`: {quota} must be above zero; use rights to close a namespace")]
    EmptyQuota {
        /// The namespace.
        namespace: String,
        /// The quota.
        quota: &'static str,
    },
}

struct Rules {
    declared: Namespace,
    range: KeyRange,
    /// The next longer namespace around this one.
    parent: Option<usize>,
    /// By number of the role.
    rights: Vec<Rights>,
    merge: Option<MergeFunction>,
}

/// The rules of all namespaces.
#[derive(Default)]
pub struct Namespaces {
    /// In the order of their prefixes.
    list: Vec<Rules>,
    /// By number.
    roles: Vec<String>,
}

impl fmt::Debug for Namespaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list.iter().map(|rules| &rules.declared)).finish()
    }
}

/// What there is in a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) bytes: u64,
    pub(crate) rows: u64,
}

impl Usage {
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.bytes += (key.len() + value.len()) as u64;
        self.rows += 1;
    }

    pub(crate) fn remove(&mut self, key: &[u8], value: &[u8]) {
        self.bytes -= (key.len() + value.len()) as u64;
        self.rows -= 1;
    }
}

impl Namespaces {
    /// Checks declarations; `roles` are the names of all roles, by number.
    ///
    /// # Errors
    /// See [`NamespaceError`].
    pub fn new(
        mut declared: Vec<Namespace>,
        roles: &[String],
        functions: &MergeFunctions,
    ) -> Result<Self, NamespaceError> {
        declared.sort_by(|one, other| one.prefix.cmp(&other.prefix));
        let mut list: Vec<Rules> = Vec::new();
        for namespace in declared {
            if list.last().is_some_and(|last| last.declared.prefix == namespace.prefix) {
                return Err(NamespaceError::Duplicate(namespace.prefix));
            }
            let around = |rules: &Rules| namespace.prefix.starts_with(&rules.declared.prefix);
            let parent = list.iter().rposition(around);
            list.push(Rules {
                range: KeyRange::prefix(&namespace.prefix),
                parent,
                rights: rights(&namespace, roles)?,
                merge: merge_function(&namespace, functions)?,
                declared: namespace,
            });
        }
        Ok(Self { list, roles: roles.to_vec() })
    }

    /// Returns whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns the number of the namespace that rules a key.
    pub(crate) fn find(&self, key: &[u8]) -> Option<usize> {
        let behind = self.list.partition_point(|rules| rules.declared.prefix.as_bytes() <= key);
        let mut at = behind.checked_sub(1);
        while let Some(place) = at {
            if key.starts_with(self.list[place].declared.prefix.as_bytes()) {
                return at;
            }
            at = self.list[place].parent;
        }
        None
    }

    /// Returns what happens when two transactions meet at a key.
    pub(crate) fn on_conflict(&self, key: &[u8]) -> &OnConflict {
        self.find(key).map_or(&OnConflict::Retry, |place| &self.list[place].declared.on_conflict)
    }

    /// Returns what happens when a scanned range has changed: the policy of the namespace that all
    /// of it lies in.
    pub(crate) fn on_conflict_in(&self, range: &KeyRange) -> &OnConflict {
        let around = self.list.iter().rfind(|rules| rules.range.covers(range));
        around.map_or(&OnConflict::Retry, |rules| &rules.declared.on_conflict)
    }

    /// Makes one value out of two by the function of the key's namespace.
    pub(crate) fn merge(&self, key: &[u8], clash: Clash<'_>) -> Result<Option<Bytes>, String> {
        let function = self.find(key).and_then(|place| self.list[place].merge.as_ref());
        let function = function.ok_or("the namespace has no merge function")?;
        let merged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| function(clash)));
        let value = merged.map_err(|_| "the merge function panicked".to_owned())??;
        Ok(value.map(|value| value.to_string().into()))
    }

    /// Checks that a role may do something to a key.
    pub(crate) fn check_key(
        &self,
        role: RoleId,
        right: Right,
        key: &[u8],
    ) -> Result<(), Box<Denied>> {
        match self.find(key) {
            None => Ok(()),
            Some(place) => {
                self.check(&self.list[place], role, right, || format!("key `{}`", text(key)))
            }
        }
    }

    /// Checks that a role may do something everywhere in a range.
    pub(crate) fn check_range(
        &self,
        role: RoleId,
        right: Right,
        range: &KeyRange,
    ) -> Result<(), Box<Denied>> {
        let rules_some = |place: usize| {
            let inner = self.list[place + 1..].iter();
            let mut inner = inner.take_while(|other| self.list[place].range.covers(&other.range));
            self.list[place].range.overlaps(range) && !inner.any(|other| other.range.covers(range))
        };
        (0..self.list.len()).filter(|place| rules_some(*place)).try_for_each(|place| {
            self.check(&self.list[place], role, right, || format!("range {range}"))
        })
    }

    fn check(
        &self,
        rules: &Rules,
        role: RoleId,
        right: Right,
        place: impl FnOnce() -> String,
    ) -> Result<(), Box<Denied>> {
        let role = usize::from(role.0);
        let allowed = rules.rights.get(role).copied().unwrap_or(Rights::NONE);
        let (has, right) = match right {
            Right::Read => (allowed.read, "read"),
            Right::Write => (allowed.write, "write"),
            Right::Merge => (allowed.merge || allowed.write, "merge"),
            Right::Watch => (allowed.watch, "watch"),
        };
        if has {
            return Ok(());
        }
        let role = self.roles.get(role).cloned().unwrap_or_default();
        let namespace = rules.declared.prefix.clone();
        Err(Box::new(Denied { role, right, place: place(), namespace, allowed }))
    }

    /// Checks that no quota is exceeded that was not exceeded before.
    pub(crate) fn check_usage(&self, before: &[Usage], after: &[Usage]) -> Result<(), Violation> {
        for (rules, (before, after)) in self.list.iter().zip(before.iter().zip(after)) {
            let Namespace { prefix, bytes_max, rows_max, .. } = &rules.declared;
            for (rule, max, before, after) in [
                ("bytes_max", bytes_max, before.bytes, after.bytes),
                ("rows_max", rows_max, before.rows, after.rows),
            ] {
                if let Some(max) = *max
                    && after > max
                    && after > before
                {
                    let namespace = prefix.clone();
                    return Err(Violation::NamespaceFull { namespace, rule, wanted: after, max });
                }
            }
        }
        Ok(())
    }
}

/// Something that a role may or may not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    Read,
    Write,
    Merge,
    Watch,
}

fn rights(namespace: &Namespace, roles: &[String]) -> Result<Vec<Rights>, NamespaceError> {
    if let Some(role) = namespace.rights.keys().find(|role| !roles.contains(role)) {
        return Err(NamespaceError::UnknownRole {
            namespace: namespace.prefix.clone(),
            role: role.clone(),
            known: roles.join(", "),
        });
    }
    let open = if namespace.rights.is_empty() { Rights::ALL } else { Rights::NONE };
    let others = namespace.others.unwrap_or(open);
    let quotas = [("bytes_max", namespace.bytes_max), ("rows_max", namespace.rows_max)];
    if let Some((quota, _)) = quotas.iter().find(|(_, max)| *max == Some(0)) {
        return Err(NamespaceError::EmptyQuota { namespace: namespace.prefix.clone(), quota });
    }
    Ok(roles.iter().map(|role| *namespace.rights.get(role).unwrap_or(&others)).collect())
}

fn merge_function(
    namespace: &Namespace,
    functions: &MergeFunctions,
) -> Result<Option<MergeFunction>, NamespaceError> {
    let OnConflict::Merge(name) = &namespace.on_conflict else {
        return Ok(None);
    };
    let unknown = || NamespaceError::UnknownMergeFunction {
        namespace: namespace.prefix.clone(),
        function: name.clone(),
        known: match functions.is_empty() {
            true => "none".to_owned(),
            false => functions.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
        },
    };
    functions.get(name).cloned().map(Some).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces(prefixes: &[&str]) -> Namespaces {
        let declared = prefixes.iter().map(|prefix| Namespace::new(*prefix)).collect();
        Namespaces::new(declared, &[], &BTreeMap::new()).unwrap()
    }

    #[test]
    fn the_longest_prefix_rules_a_key() {
        let namespaces = namespaces(&["b/x", "a/", "b/", "b/a", "b/a/c"]);
        for (key, expected) in [
            ("a/1", Some("a/")),
            ("b/1", Some("b/")),
            ("b/a", Some("b/a")),
            ("b/a/b", Some("b/a")),
            ("b/a/c1", Some("b/a/c")),
            ("b/w", Some("b/")),
            ("b/z", Some("b/")),
            ("c", None),
            ("", None),
        ] {
            let found = namespaces.find(key.as_bytes());
            let found = found.map(|place| &*namespaces.list[place].declared.prefix);
            assert_eq!(found, expected, "{key}");
        }
    }

    #[test]
    fn a_range_needs_the_rights_of_all_namespaces_that_rule_a_part_of_it() {
        let roles = ["worker".to_owned()];
        let closed = Namespace::new("a/").others(Rights::NONE);
        let open = Namespace::new("a/open/").others(Rights::READ);
        let list = Namespaces::new(vec![closed, open], &roles, &BTreeMap::new()).unwrap();
        let may_read = |range: KeyRange| list.check_range(RoleId(0), Right::Read, &range).is_ok();
        assert!(may_read(KeyRange::prefix("a/open/x")));
        assert!(may_read(KeyRange::prefix("b")));
        assert!(!may_read(KeyRange::prefix("a/o")));
        assert!(!may_read(KeyRange::all()));
        let denied = list.check_key(RoleId(0), Right::Write, b"a/open/x").unwrap_err();
        assert_eq!(
            denied.to_string(),
            "role `worker` may not write memory key `a/open/x`: namespace `a/open/` allows it read, watch",
        );
    }

    #[test]
    fn declarations_that_make_no_sense_are_refused_by_name() {
        let roles = ["worker".to_owned()];
        let refused = |list: Vec<Namespace>| {
            Namespaces::new(list, &roles, &BTreeMap::new()).unwrap_err().to_string()
        };
        let twice = refused(vec![Namespace::new("a"), Namespace::new("a")]);
        assert!(twice.contains("`a` is declared twice"), "{twice}");
        let role = refused(vec![Namespace::new("a").allow("nobody", Rights::ALL)]);
        assert!(role.contains("role `nobody`, which does not exist; roles: worker"), "{role}");
        let function = OnConflict::Merge("union".into());
        let function = refused(vec![Namespace::new("a").on_conflict(function)]);
        assert!(
            function.contains("`union`, which is not registered; registered: none"),
            "{function}"
        );
        let quota = refused(vec![Namespace::new("a").rows_max(0)]);
        assert!(quota.contains("rows_max must be above zero"), "{quota}");
    }
}
