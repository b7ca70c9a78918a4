//! Finds cycles of dependencies and says which anomaly each of them is.
//!
//! A clean history has no component of more than one node and is done after one pass. Otherwise the
//! weakest dependencies that close a cycle decide: writes alone (G0), reads of them (G1c), one
//! read of something overwritten (G-single), several (G2), and the same with the order in real time.

use std::collections::VecDeque;

use super::graph::{Dependency, Edge, Graph};
use super::{AnomalyKind, EXAMPLES_MAX, Verdict};

const WW: u8 = Dependency::WriteWrite.bit();
const WR: u8 = Dependency::WriteRead.bit();
const RW: u8 = Dependency::ReadWrite.bit();
const RT: u8 = Dependency::Realtime.bit();

/// What a kind of cycle is made of: along `path`, closed by one edge of `closing`.
struct Shape {
    kind: AnomalyKind,
    closing: u8,
    path: u8,
}

/// From the strongest anomaly to the weakest; each component is reported as the first that fits.
const SHAPES: [Shape; 7] = [
    Shape { kind: AnomalyKind::G0, closing: WW, path: WW },
    Shape { kind: AnomalyKind::G1c, closing: WR, path: WW | WR },
    Shape { kind: AnomalyKind::GSingle, closing: RW, path: WW | WR },
    Shape { kind: AnomalyKind::G2, closing: RW, path: WW | WR | RW },
    Shape { kind: AnomalyKind::G1Realtime, closing: RT, path: WW | WR | RT },
    Shape { kind: AnomalyKind::GSingleRealtime, closing: RW, path: WW | WR | RT },
    Shape { kind: AnomalyKind::G2Realtime, closing: RW, path: WW | WR | RW | RT },
];

/// Adds what the cycles of a graph show. `index` names a transaction, `key` a key.
pub(super) fn add_cycles(
    graph: &Graph,
    index: &dyn Fn(u32) -> u64,
    key: &dyn Fn(u32) -> String,
    verdict: &mut Verdict,
) {
    verdict.dependencies = graph.edges();
    let all: Vec<u32> = (0..super::graph::number(graph.nodes())).collect();
    let suspects = graph.components(&all, Dependency::ALL).concat();
    if suspects.is_empty() {
        return;
    }
    let mut explained = vec![false; graph.nodes()];
    for shape in &SHAPES {
        let mut found = 0;
        for component in graph.components(&suspects, shape.closing | shape.path) {
            let is_known = component.iter().any(|node| explained[*node as usize]);
            if is_known || found == EXAMPLES_MAX {
                continue;
            }
            if let Some(cycle) = cycle_in(graph, &component, shape) {
                component.iter().for_each(|node| explained[*node as usize] = true);
                found += 1;
                let members = cycle.iter().map(|edge| edge.from);
                let members = members.filter(|node| graph.is_transaction(*node)).map(index);
                let message = describe(graph, &cycle, index, key);
                verdict.add(shape.kind, members.collect(), message);
            }
        }
    }
}

/// Returns a shortest cycle of this shape through one of the first closing edges of a component.
fn cycle_in(graph: &Graph, component: &[u32], shape: &Shape) -> Option<Vec<Edge>> {
    let mut within = vec![false; graph.nodes()];
    component.iter().for_each(|node| within[*node as usize] = true);
    let closing = component
        .iter()
        .flat_map(|node| graph.from(*node))
        .filter(|edge| edge.dependency.bit() & shape.closing != 0 && within[edge.to as usize]);
    closing.take(CLOSING_EDGES_MAX).find_map(|edge| {
        let mut cycle = vec![*edge];
        cycle.extend(shortest_path(graph, edge.to, edge.from, shape.path, &within)?);
        Some(cycle)
    })
}

/// Closing edges that are tried per component: a large one has a short cycle early on.
const CLOSING_EDGES_MAX: usize = 1_000;

fn shortest_path(
    graph: &Graph,
    from: u32,
    to: u32,
    allowed: u8,
    within: &[bool],
) -> Option<Vec<Edge>> {
    let mut came_by: Vec<Option<Edge>> = vec![None; within.len()];
    let mut queue = VecDeque::from([from]);
    while let Some(node) = queue.pop_front() {
        for edge in graph.from(node) {
            let is_new = edge.to != from && came_by[edge.to as usize].is_none();
            if edge.dependency.bit() & allowed == 0 || !within[edge.to as usize] || !is_new {
                continue;
            }
            came_by[edge.to as usize] = Some(*edge);
            if edge.to == to {
                let mut path = Vec::new();
                let mut at = to;
                while let Some(edge) = came_by[at as usize] {
                    path.push(edge);
                    at = edge.from;
                }
                path.reverse();
                return Some(path);
            }
            queue.push_back(edge.to);
        }
    }
    None
}

/// Tells a cycle as `T1 -rw(x)-> T5 -ww(y)-> T1`.
fn describe(
    graph: &Graph,
    cycle: &[Edge],
    index: &dyn Fn(u32) -> u64,
    key: &dyn Fn(u32) -> String,
) -> String {
    use std::fmt::Write as _;
    // A cycle may begin with a point in time; it is told from a transaction on.
    let first = cycle.iter().position(|edge| graph.is_transaction(edge.from)).unwrap_or(0);
    let turned = cycle[first..].iter().chain(&cycle[..first]);
    let mut text = String::new();
    let mut why = Vec::new();
    for edge in turned {
        if graph.is_transaction(edge.from) {
            write!(text, "T{}", index(edge.from)).expect("a string takes any text");
        }
        let name = edge.dependency.name();
        let told = match edge.dependency {
            Dependency::Realtime => name.to_owned(),
            _ => format!("{name}({})", key(edge.key)),
        };
        if why.last() != Some(&told) {
            why.push(told);
        }
        if graph.is_transaction(edge.to) {
            write!(text, " -{}-> ", why.join("+")).expect("a string takes any text");
            why.clear();
        }
    }
    if let Some(edge) = cycle.get(first) {
        write!(text, "T{}", index(edge.from)).expect("a string takes any text");
    }
    text
}
