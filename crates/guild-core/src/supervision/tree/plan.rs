//! Checks who is supervised by whom, and builds the tree.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Kind, Members, Node, Supervisor, SupervisorSpec, Tree};
use crate::id::RoleId;

/// Who is supervised by whom.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TreeSpec {
    /// How what is in no group is treated.
    pub root: SupervisorSpec,
    /// The roles, in the order of their start.
    pub roles: Vec<RoleSpec>,
    /// The groups.
    pub groups: Vec<GroupSpec>,
}

/// A role with its agents.
#[derive(Clone, Debug, PartialEq)]
pub struct RoleSpec {
    /// Its name.
    pub name: Arc<str>,
    /// Its number.
    pub role: RoleId,
    /// How many agents it has.
    pub agents: u32,
    /// How they are treated.
    pub supervisor: SupervisorSpec,
}

/// Roles and groups that belong together.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupSpec {
    /// Its name; no role has the same.
    pub name: Arc<str>,
    /// The names of its members, in the order of their start.
    pub members: Vec<Arc<str>>,
    /// How they are treated.
    pub supervisor: SupervisorSpec,
}

/// Why groups make no tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// A name is used twice.
    #[error("the group `{0}` has the name of another group or role: names are unique")]
    Taken(Arc<str>),
    /// A group has no members.
    #[error("the group `{0}` has no members: name roles or groups that belong together")]
    Empty(Arc<str>),
    /// A member is neither role nor group.
    #[error("the group `{group}` has the member `{member}`, which is neither a role nor a group")]
    Unknown {
        /// The group.
        group: Arc<str>,
        /// The member.
        member: Arc<str>,
    },
    /// A role or group is a member twice.
    #[error("`{member}` is in `{first}` and in `{second}`: it can have one supervisor only")]
    Twice {
        /// What is a member twice.
        member: Arc<str>,
        /// Of which group.
        first: Arc<str>,
        /// And of which.
        second: Arc<str>,
    },
    /// A group contains itself.
    #[error("the group `{0}` contains itself, by way of its members")]
    Circle(Arc<str>),
}

impl TreeSpec {
    /// Builds the tree. What is in no group is a child of the root; groups stand there where their
    /// first role does.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn build(&self) -> Result<Tree, TreeError> {
        let parents = self.parents()?;
        let mut top: Vec<&str> = Vec::new();
        for role in &self.roles {
            let mut name = &*role.name;
            while let Some(group) = parents.get(name) {
                name = group;
            }
            if !top.contains(&name) {
                top.push(name);
            }
        }
        let mut tree = Tree { nodes: Vec::new(), roles: BTreeMap::new() };
        self.add(&mut tree, "".into(), &self.root, &top, None);
        Ok(tree)
    }

    /// Returns the group of everything that is in one.
    fn parents(&self) -> Result<BTreeMap<&str, &str>, TreeError> {
        let mut known: Vec<&str> = self.roles.iter().map(|role| &*role.name).collect();
        for group in &self.groups {
            if known.contains(&&*group.name) {
                return Err(TreeError::Taken(Arc::clone(&group.name)));
            }
            known.push(&group.name);
        }
        let mut parents: BTreeMap<&str, &str> = BTreeMap::new();
        for group in &self.groups {
            if group.members.is_empty() {
                return Err(TreeError::Empty(Arc::clone(&group.name)));
            }
            for member in &group.members {
                if !known.contains(&&**member) {
                    let (group, member) = (Arc::clone(&group.name), Arc::clone(member));
                    return Err(TreeError::Unknown { group, member });
                }
                if let Some(first) = parents.insert(member, &group.name) {
                    let (first, second) = (first.into(), Arc::clone(&group.name));
                    return Err(TreeError::Twice { member: Arc::clone(member), first, second });
                }
            }
        }
        for group in &self.groups {
            // A way upward that is longer than there are groups goes in a circle.
            let mut above = Some(&*group.name);
            for _ in 0..=self.groups.len() {
                above = above.and_then(|name| parents.get(name).copied());
            }
            if above.is_some() {
                return Err(TreeError::Circle(Arc::clone(&group.name)));
            }
        }
        Ok(parents)
    }

    /// Adds a supervisor of supervisors, with all that is below it, and returns its place.
    fn add(
        &self,
        tree: &mut Tree,
        name: Arc<str>,
        spec: &SupervisorSpec,
        members: &[&str],
        parent: Option<(usize, u32)>,
    ) -> usize {
        let place = tree.nodes.len();
        let children = u32::try_from(members.len()).unwrap_or(u32::MAX);
        let supervisor = Supervisor::new(spec.clone(), Kind::Supervisors, children);
        tree.nodes.push(Node::new(name, supervisor, Members::Nodes(Vec::new()), parent));
        let mut below = Vec::new();
        for (child, member) in (0..).zip(members) {
            let parent = Some((place, child));
            if let Some(group) = self.group(member) {
                let members: Vec<&str> = group.members.iter().map(|name| &**name).collect();
                let (name, spec) = (Arc::clone(&group.name), &group.supervisor);
                below.push(self.add(tree, name, spec, &members, parent));
            } else if let Some(role) = self.roles.iter().find(|role| *role.name == **member) {
                tree.roles.insert(role.role, tree.nodes.len());
                below.push(tree.nodes.len());
                let spec = role.supervisor.clone();
                let supervisor = Supervisor::new(spec, Kind::Agents, role.agents);
                let (name, members) = (Arc::clone(&role.name), Members::Agents(role.role));
                tree.nodes.push(Node::new(name, supervisor, members, parent));
            }
        }
        tree.nodes[place].members = Members::Nodes(below);
        place
    }

    fn group(&self, name: &str) -> Option<&GroupSpec> {
        self.groups.iter().find(|group| *group.name == *name)
    }
}

impl Node {
    fn new(
        name: Arc<str>,
        supervisor: Supervisor,
        members: Members,
        parent: Option<(usize, u32)>,
    ) -> Self {
        Self { name, supervisor, members, parent, is_probing: false, chain: Vec::new() }
    }
}
