//! The supervisors of a guild as one tree: roles over their agents, groups over roles and groups,
//! the root over all.
//!
//! What a supervisor orders of a supervisor is carried out in here at once; what is left is orders
//! for agents, and what a person should know: who gave up, behind which chain of causes, and what
//! became of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::id::{AgentId, RoleId};
use crate::time::Timestamp;

use super::{Ending, Exit, Input, Kind, Order, Supervisor, SupervisorSpec, Verdict};

mod plan;

pub use plan::{GroupSpec, RoleSpec, TreeError, TreeSpec};

/// All supervisors of a guild; by default there are none.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// The root is the first.
    nodes: Vec<Node>,
    roles: BTreeMap<RoleId, usize>,
}

#[derive(Clone, Debug)]
struct Node {
    name: Arc<str>,
    supervisor: Supervisor,
    members: Members,
    /// The node above, and its place among that one's children.
    parent: Option<(usize, u32)>,
    /// Whether it is on probation after a quarantine.
    is_probing: bool,
    /// Who gave up below it, while it gives up too.
    chain: Vec<Link>,
}

#[derive(Clone, Debug)]
enum Members {
    Agents(RoleId),
    Nodes(Vec<usize>),
}

/// What a tree is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeInput {
    /// Begin: start everything in order.
    Start,
    /// End: stop everything in reverse order, then say so.
    Stop,
    /// Something happened to an agent of a role; its index is the child.
    Agent {
        /// The role.
        role: RoleId,
        /// What happened.
        input: Input,
    },
    /// Time passed.
    Tick,
}

/// What a tree wants done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeOrder {
    /// Start the agent; it answers with [`Input::Up`] or [`Input::Down`].
    Start {
        /// Which.
        agent: AgentId,
        /// Whether it is on probation: tell when its first piece of work is done.
        probe: bool,
        /// Whether its quarantine has just ended.
        released: bool,
    },
    /// Stop the agent; it answers with [`Input::Stopped`] or [`Input::Down`].
    Stop {
        /// Which.
        agent: AgentId,
    },
    /// The agent did not stop in time; go on without it.
    Abandon {
        /// Which.
        agent: AgentId,
    },
    /// No agent of the role will come back by itself: tasks for it cannot be done.
    Lost {
        /// The role.
        role: RoleId,
    },
    /// Tell a person that supervisors gave up.
    Escalated(Box<Escalation>),
    /// Everything has ended.
    Ended(Ending),
}

/// That supervisors gave up, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Escalation {
    /// From the one that gave up first to the last.
    pub chain: Vec<Link>,
    /// The role whose agent's death began it.
    pub role: Option<RoleId>,
    /// What the one above them does; [`Verdict::Meltdown`]: there is none, the guild ends.
    pub verdict: Verdict,
}

/// One supervisor that gave up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name: that of the role or group; that of the root is empty.
    pub supervisor: Arc<str>,
    /// The place of the child whose death was one too many.
    pub child: u32,
}

impl Tree {
    /// Takes one input at `now` and appends what is to be done. `draw` is in `0.0..1.0`. For an agent
    /// that went down, returns what becomes of it, see [`Supervisor::step`].
    pub fn step(
        &mut self,
        now: Timestamp,
        input: TreeInput,
        draw: f64,
        orders: &mut Vec<TreeOrder>,
    ) -> Option<Verdict> {
        let mut turn = Turn { now, draw, orders };
        match input {
            TreeInput::Start => self.drive(0, Input::Start, &mut turn),
            TreeInput::Stop => self.drive(0, Input::Stop, &mut turn),
            TreeInput::Agent { role, input } => {
                let node = *self.roles.get(&role)?;
                if let Input::Passed { .. } = input {
                    self.pass(node, &mut turn);
                }
                self.drive(node, input, &mut turn)
            }
            TreeInput::Tick => {
                for node in 0..self.nodes.len() {
                    let wakeup = self.nodes[node].supervisor.next_wakeup();
                    if wakeup.is_some_and(|at| at <= now) {
                        self.drive(node, Input::Tick, &mut turn);
                    }
                }
                None
            }
        }
    }

    /// Returns when the next [`TreeInput::Tick`] is due.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        self.nodes.iter().filter_map(|node| node.supervisor.next_wakeup()).min()
    }

    /// Returns whether an agent is in quarantine by itself.
    pub fn is_quarantined(&self, agent: AgentId) -> bool {
        let node = self.roles.get(&agent.role);
        node.is_some_and(|node| self.nodes[*node].supervisor.is_quarantined(agent.index))
    }

    /// Returns whether the agents of a role are started one after the other, or with others that are.
    pub fn starts_in_sequence(&self, role: RoleId) -> bool {
        let mut node = self.roles.get(&role).copied();
        while let Some(place) = node {
            if self.nodes[place].supervisor.is_in_sequence() {
                return true;
            }
            node = self.nodes[place].parent.map(|(above, _)| above);
        }
        false
    }

    /// Tells a supervisor something and carries out what it wants.
    fn drive(&mut self, node: usize, input: Input, turn: &mut Turn<'_>) -> Option<Verdict> {
        let mut orders = Vec::new();
        let supervisor = &mut self.nodes[node].supervisor;
        let verdict = supervisor.step(turn.now, input, turn.draw, &mut orders);
        for order in orders {
            match self.nodes[node].members {
                Members::Agents(role) => self.order_agent(node, role, order, turn),
                Members::Nodes(_) => self.order_node(node, order, turn),
            }
        }
        verdict
    }

    fn order_agent(&mut self, node: usize, role: RoleId, order: Order, turn: &mut Turn<'_>) {
        let agent = |index| AgentId { role, index };
        turn.orders.push(match order {
            Order::Start { child, probe, released } => {
                let probe = probe || self.nodes[node].is_probing;
                TreeOrder::Start { agent: agent(child), probe, released }
            }
            Order::Stop { child } => TreeOrder::Stop { agent: agent(child) },
            Order::Abandon { child } => TreeOrder::Abandon { agent: agent(child) },
            Order::Extinct => TreeOrder::Lost { role },
            Order::Ready => return self.ready(node, turn),
            Order::Ended(ending) => return self.ended(node, ending, turn),
        });
    }

    fn order_node(&mut self, node: usize, order: Order, turn: &mut Turn<'_>) {
        match order {
            Order::Start { child, probe, .. } => {
                let below = self.below(node, child);
                self.nodes[below].is_probing = probe || self.nodes[node].is_probing;
                self.drive(below, Input::Start, turn);
            }
            Order::Stop { child } => {
                let below = self.below(node, child);
                self.drive(below, Input::Stop, turn);
            }
            Order::Ready => self.ready(node, turn),
            Order::Ended(ending) => self.ended(node, ending, turn),
            // Supervisors stop in their own time, and say by `Lost` which roles they have lost.
            Order::Abandon { .. } | Order::Extinct => {}
        }
    }

    fn ready(&mut self, node: usize, turn: &mut Turn<'_>) {
        if let Some((above, child)) = self.nodes[node].parent {
            self.drive(above, Input::Up { child }, turn);
        }
    }

    /// The probation of a subtree is over as soon as one of its agents has done its work.
    fn pass(&mut self, node: usize, turn: &mut Turn<'_>) {
        let mut node = node;
        while std::mem::take(&mut self.nodes[node].is_probing)
            && let Some((above, child)) = self.nodes[node].parent
        {
            self.drive(above, Input::Passed { child }, turn);
            node = above;
        }
    }

    fn ended(&mut self, node: usize, ending: Ending, turn: &mut Turn<'_>) {
        let parent = self.nodes[node].parent;
        let Ending::Meltdown { child, cause } = ending else {
            // A stop from above has taken over where it was giving up.
            self.nodes[node].chain.clear();
            match parent {
                Some((above, child)) => {
                    self.drive(above, Input::Stopped { child }, turn);
                }
                None => turn.orders.push(TreeOrder::Ended(ending)),
            }
            return;
        };
        let mut chain = std::mem::take(&mut self.nodes[node].chain);
        chain.push(Link { supervisor: Arc::clone(&self.nodes[node].name), child });
        let role = self.role_of(&chain);
        let Some((above, child)) = parent else {
            let verdict = Verdict::Meltdown;
            turn.orders.push(TreeOrder::Escalated(Box::new(Escalation { chain, role, verdict })));
            turn.orders.push(TreeOrder::Ended(ending));
            return;
        };
        // It gives up too, or it does not; if it does, it may have ended when it has answered.
        self.nodes[above].chain.clone_from(&chain);
        let exit = Exit::Failed { cause };
        match self.drive(above, Input::Down { child, exit }, turn) {
            Some(Verdict::Meltdown) => {}
            None => self.nodes[above].chain.clear(),
            Some(verdict) => {
                self.nodes[above].chain.clear();
                turn.orders.push(TreeOrder::Escalated(Box::new(Escalation {
                    chain,
                    role,
                    verdict,
                })));
                if verdict == Verdict::Gone {
                    self.lose(node, turn);
                }
            }
        }
    }

    /// Says of all roles of a subtree that nothing brings them back.
    fn lose(&self, node: usize, turn: &mut Turn<'_>) {
        match &self.nodes[node].members {
            Members::Agents(role) => turn.orders.push(TreeOrder::Lost { role: *role }),
            Members::Nodes(nodes) => nodes.iter().for_each(|below| self.lose(*below, turn)),
        }
    }

    fn below(&self, node: usize, child: u32) -> usize {
        match &self.nodes[node].members {
            Members::Nodes(nodes) => nodes[child as usize],
            Members::Agents(_) => unreachable!("the children of a role are agents"),
        }
    }

    /// Returns the role with which a chain begins.
    fn role_of(&self, chain: &[Link]) -> Option<RoleId> {
        let first = chain.first()?;
        let is_first = |(_, node): &(&RoleId, &usize)| self.nodes[**node].name == first.supervisor;
        self.roles.iter().find(is_first).map(|(role, _)| *role)
    }
}

/// What one step of the tree carries through its supervisors.
struct Turn<'a> {
    now: Timestamp,
    draw: f64,
    orders: &'a mut Vec<TreeOrder>,
}

#[cfg(test)]
mod tests;
