//! The dependencies of transactions as a graph, and its strongly connected components.
//!
//! Edges are kept as sorted arrays: a hundred thousand transactions have some million of them. The
//! order in real time is a chain of points in time beside the transactions, so it costs two edges per
//! transaction instead of one for each pair.

/// Why one transaction must come before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Dependency {
    /// It wrote a version, the other one the next.
    WriteWrite,
    /// It wrote what the other one read.
    WriteRead,
    /// It read what the other one overwrote.
    ReadWrite,
    /// It had ended when the other one began.
    Realtime,
}

impl Dependency {
    pub(super) const ALL: u8 = 0b1111;

    pub(super) const fn bit(self) -> u8 {
        1 << self as u8
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::WriteWrite => "ww",
            Self::WriteRead => "wr",
            Self::ReadWrite => "rw",
            Self::Realtime => "realtime",
        }
    }
}

/// An edge: from, to, why, and the number of the key that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Edge {
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) dependency: Dependency,
    pub(super) key: u32,
}

/// A graph while it is built. Nodes from `transactions` on are no transactions.
#[derive(Debug)]
pub(super) struct GraphBuilder {
    transactions: u32,
    nodes: u32,
    edges: Vec<Edge>,
}

impl GraphBuilder {
    pub(super) fn new(transactions: usize) -> Self {
        let transactions = number(transactions);
        Self { transactions, nodes: transactions, edges: Vec::new() }
    }

    /// Adds a node that stands for no transaction.
    pub(super) fn helper(&mut self) -> u32 {
        self.nodes += 1;
        self.nodes - 1
    }

    pub(super) fn add(&mut self, from: u32, to: u32, dependency: Dependency, key: u32) {
        if from != to {
            self.edges.push(Edge { from, to, dependency, key });
        }
    }

    /// Adds the order in real time. `moments` has a begin (false) and an end (true) for each
    /// transaction that is known to have had one, in the order in which they happened.
    pub(super) fn add_realtime(&mut self, moments: impl Iterator<Item = (u32, bool)>) {
        let mut last = None;
        for (transaction, is_end) in moments {
            if !is_end {
                if let Some(last) = last {
                    self.add(last, transaction, Dependency::Realtime, 0);
                }
                continue;
            }
            let moment = self.helper();
            if let Some(last) = last {
                self.add(last, moment, Dependency::Realtime, 0);
            }
            self.add(transaction, moment, Dependency::Realtime, 0);
            last = Some(moment);
        }
    }

    pub(super) fn build(mut self) -> Graph {
        self.edges.sort_unstable();
        self.edges.dedup_by_key(|edge| (edge.from, edge.to, edge.dependency));
        let mut first = vec![0; self.nodes as usize + 1];
        for edge in &self.edges {
            first[edge.from as usize + 1] += 1;
        }
        for node in 0..self.nodes as usize {
            first[node + 1] += first[node];
        }
        Graph { transactions: self.transactions, first, edges: self.edges }
    }
}

/// A graph of dependencies.
#[derive(Debug)]
pub(super) struct Graph {
    transactions: u32,
    /// Where the edges of each node begin.
    first: Vec<u32>,
    edges: Vec<Edge>,
}

impl Graph {
    pub(super) fn edges(&self) -> usize {
        self.edges.len()
    }

    /// Returns the number of nodes, moments in real time included.
    pub(super) fn nodes(&self) -> usize {
        self.first.len() - 1
    }

    pub(super) fn is_transaction(&self, node: u32) -> bool {
        node < self.transactions
    }

    pub(super) fn from(&self, node: u32) -> &[Edge] {
        let node = node as usize;
        &self.edges[self.first[node] as usize..self.first[node + 1] as usize]
    }

    /// Returns the components of more than one node, within `nodes` and along the dependencies of
    /// `allowed` (Tarjan 1972, without recursion: a chain may be as long as the history).
    pub(super) fn components(&self, nodes: &[u32], allowed: u8) -> Vec<Vec<u32>> {
        let count = self.nodes();
        let mut search = Search {
            index: vec![UNSEEN; count],
            low: vec![0; count],
            on_stack: vec![false; count],
            stack: Vec::new(),
            next: 0,
            found: Vec::new(),
        };
        let mut within = vec![false; count];
        nodes.iter().for_each(|node| within[*node as usize] = true);
        for root in nodes {
            if search.index[*root as usize] == UNSEEN {
                self.search_from(*root, allowed, &within, &mut search);
            }
        }
        search.found
    }

    fn search_from(&self, root: u32, allowed: u8, within: &[bool], search: &mut Search) {
        let mut path = vec![(root, 0)];
        search.enter(root);
        while let Some((node, place)) = path.last_mut() {
            let from = *node as usize;
            let Some(edge) = self.from(*node).get(*place) else {
                path.pop();
                search.leave(from);
                if let Some((parent, _)) = path.last() {
                    let parent = *parent as usize;
                    search.low[parent] = search.low[parent].min(search.low[from]);
                }
                continue;
            };
            *place += 1;
            let to = edge.to as usize;
            if edge.dependency.bit() & allowed == 0 || !within[to] {
                continue;
            }
            if search.index[to] == UNSEEN {
                search.enter(edge.to);
                path.push((edge.to, 0));
            } else if search.on_stack[to] {
                search.low[from] = search.low[from].min(search.index[to]);
            }
        }
    }
}

const UNSEEN: u32 = u32::MAX;

struct Search {
    index: Vec<u32>,
    low: Vec<u32>,
    on_stack: Vec<bool>,
    stack: Vec<u32>,
    next: u32,
    found: Vec<Vec<u32>>,
}

impl Search {
    fn enter(&mut self, node: u32) {
        self.index[node as usize] = self.next;
        self.low[node as usize] = self.next;
        self.next += 1;
        self.on_stack[node as usize] = true;
        self.stack.push(node);
    }

    /// Takes a component from the stack when this node was its first.
    fn leave(&mut self, node: usize) {
        if self.low[node] != self.index[node] {
            return;
        }
        let mut component = Vec::new();
        while let Some(member) = self.stack.pop() {
            self.on_stack[member as usize] = false;
            component.push(member);
            if member as usize == node {
                break;
            }
        }
        if component.len() > 1 {
            component.sort_unstable();
            self.found.push(component);
        }
    }
}

/// Returns the number of a node; a history of more than four billion does not fit into RAM.
pub(super) fn number(place: usize) -> u32 {
    u32::try_from(place).expect("a history in RAM has fewer than 2^32 transactions and keys")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn graph(nodes: usize, edges: &[(u32, u32)]) -> Graph {
        let mut builder = GraphBuilder::new(nodes);
        edges.iter().for_each(|(from, to)| builder.add(*from, *to, Dependency::WriteWrite, 0));
        builder.build()
    }

    #[test]
    fn a_long_chain_overflows_no_stack_and_has_no_component() {
        let edges: Vec<_> = (0..200_000).map(|node| (node, node + 1)).collect();
        let nodes: Vec<u32> = (0..=200_000).collect();
        assert!(graph(200_001, &edges).components(&nodes, Dependency::ALL).is_empty());
    }

    #[test]
    fn what_ended_before_another_began_comes_before_it() {
        let mut builder = GraphBuilder::new(3);
        // 0 and 1 overlap; both end before 2 begins.
        builder
            .add_realtime([(0, false), (1, false), (0, true), (1, true), (2, false)].into_iter());
        builder.add(2, 0, Dependency::WriteRead, 0);
        let components = builder.build().components(&[0, 1, 2, 3, 4], Dependency::ALL);
        assert_eq!(components.len(), 1);
        assert!(components[0].contains(&0) && components[0].contains(&2));
        assert!(!components[0].contains(&1));
    }

    proptest! {
        #[test]
        fn components_are_what_reaches_each_other(
            edges in prop::collection::vec((0..12u32, 0..12u32), 0..40),
        ) {
            let mut reaches = [[false; 12]; 12];
            edges.iter().for_each(|(from, to)| reaches[*from as usize][*to as usize] = true);
            for middle in 0..12 {
                for from in 0..12 {
                    for to in 0..12 {
                        reaches[from][to] |= reaches[from][middle] && reaches[middle][to];
                    }
                }
            }
            let nodes: Vec<u32> = (0..12).collect();
            let components = graph(12, &edges).components(&nodes, Dependency::ALL);
            let of = |node| components.iter().position(|members| members.contains(&node));
            for a in 0..12u32 {
                for b in 0..12u32 {
                    let mutual = reaches[a as usize][b as usize] && reaches[b as usize][a as usize];
                    if a != b {
                        prop_assert_eq!(mutual, of(a).is_some() && of(a) == of(b));
                    }
                }
            }
        }
    }
}
