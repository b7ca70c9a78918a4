//! Checks a history of appends to lists and reads of whole lists.
//!
//! The longest read of a list is its order of versions; every other read must be a beginning of it.
//! What was appended and never read comes after it, in unknown order. Elements are unique per list.

use std::collections::BTreeMap;

use super::cycles::add_cycles;
use super::graph::{Dependency, GraphBuilder};
use super::{AnomalyKind, Verdict};

/// One step of a transaction. Lists and elements are numbers; the reader keeps their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Appends an element to a list.
    Append {
        /// The list.
        key: u32,
        /// The element.
        element: i64,
    },
    /// Reads a list; none: what was read is not known.
    Read {
        /// The list.
        key: u32,
        /// Its elements.
        elements: Option<Vec<i64>>,
    },
}

impl Operation {
    /// Returns the list.
    pub fn key(&self) -> u32 {
        match self {
            Self::Append { key, .. } | Self::Read { key, .. } => *key,
        }
    }
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It committed.
    Committed,
    /// It did not commit.
    Failed,
    /// Nobody knows.
    Unknown,
}

/// One transaction of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Its index in the history: that of its completion.
    pub index: u64,
    /// What it did, in order.
    pub operations: Vec<Operation>,
    /// How it ended.
    pub outcome: Outcome,
}

/// A history as clients recorded it.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The transactions.
    pub transactions: Vec<Transaction>,
    /// When they began (false) and ended (true), in order, by their place.
    pub moments: Vec<(u32, bool)>,
    /// The names of the lists.
    pub keys: Vec<String>,
}

/// Who appended an element: the transaction, and whether it appended more to the list afterwards.
#[derive(Clone, Copy, Debug)]
struct Append {
    transaction: u32,
    is_final: bool,
}

#[derive(Default)]
struct List<'a> {
    appends: BTreeMap<i64, Append>,
    /// The longest read, and who read it.
    longest: &'a [i64],
    longest_by: u32,
    /// Each read: the transaction, the elements, and how many of them are not its own.
    reads: Vec<(u32, &'a [i64], usize)>,
}

/// Checks a history.
pub fn check(history: &History) -> Verdict {
    let mut verdict = Verdict { transactions: history.transactions.len(), ..Verdict::default() };
    let mut lists: Vec<List<'_>> = Vec::new();
    lists.resize_with(history.keys.len(), List::default);
    collect(history, &mut lists, &mut verdict);
    let mut graph = GraphBuilder::new(history.transactions.len());
    for (key, list) in (0..).zip(&lists) {
        let order = Order { history, key, list };
        order.judge_reads(&mut verdict);
        order.add_dependencies(&mut graph);
    }
    let committed =
        |place: &u32| history.transactions[*place as usize].outcome == Outcome::Committed;
    let moments = history.moments.iter().copied();
    graph.add_realtime(moments.filter(|(place, is_end)| !is_end || committed(place)));
    let index = |place: u32| history.transactions[place as usize].index;
    let key = |key: u32| history.keys[key as usize].clone();
    add_cycles(&graph.build(), &index, &key, &mut verdict);
    verdict.anomalies.sort_by_key(|anomaly| anomaly.kind);
    verdict
}

/// Notes appends and reads by list, and judges each transaction in itself.
fn collect<'a>(history: &'a History, lists: &mut [List<'a>], verdict: &mut Verdict) {
    for (place, transaction) in (0..).zip(&history.transactions) {
        for (at, operation) in transaction.operations.iter().enumerate() {
            match operation {
                Operation::Append { key, element } => {
                    let later = &transaction.operations[at + 1..];
                    let is_final = !later.iter().any(
                        |other| matches!(other, Operation::Append { key: same, .. } if same == key),
                    );
                    let append = Append { transaction: place, is_final };
                    if lists[*key as usize].appends.insert(*element, append).is_some() {
                        verdict.add(
                            AnomalyKind::DuplicateElements,
                            vec![transaction.index],
                            format!(
                                "{element} is appended to `{}` twice",
                                history.keys[*key as usize]
                            ),
                        );
                    }
                }
                Operation::Read { key, elements: Some(elements) }
                    if transaction.outcome == Outcome::Committed =>
                {
                    let before = &transaction.operations[..at];
                    match read_from_outside(before, *key, elements) {
                        Ok(Some(seen)) => {
                            let list = &mut lists[*key as usize];
                            list.reads.push((place, elements, seen));
                            if elements.len() > list.longest.len() {
                                (list.longest, list.longest_by) = (elements, place);
                            }
                        }
                        Ok(None) => {}
                        Err(expected) => verdict.add(
                            AnomalyKind::Internal,
                            vec![transaction.index],
                            format!(
                                "T{} reads {elements:?} from `{}` and must have seen {expected}",
                                transaction.index, history.keys[*key as usize]
                            ),
                        ),
                    }
                }
                Operation::Read { .. } => {}
            }
        }
    }
}

/// Returns how many elements a read saw of other transactions; none when an earlier read has told
/// that already.
fn read_from_outside(
    before: &[Operation],
    key: u32,
    elements: &[i64],
) -> Result<Option<usize>, String> {
    let mut own = Vec::new();
    let mut base: Option<&[i64]> = None;
    for operation in before {
        match operation {
            Operation::Append { key: same, element } if *same == key => own.push(*element),
            Operation::Read { key: same, elements: Some(elements) } if *same == key => {
                base = Some(elements);
                own.clear();
            }
            Operation::Append { .. } | Operation::Read { .. } => {}
        }
    }
    if let Some(base) = base {
        let expected = [base, &own].concat();
        return if expected == elements { Ok(None) } else { Err(format!("{expected:?}")) };
    }
    match elements.strip_suffix(own.as_slice()) {
        Some(seen) => Ok(Some(seen.len())),
        None => Err(format!("its own {own:?} at the end")),
    }
}

/// One list with its order of versions.
struct Order<'a> {
    history: &'a History,
    key: u32,
    list: &'a List<'a>,
}

impl Order<'_> {
    fn name(&self) -> &str {
        &self.history.keys[self.key as usize]
    }

    fn index(&self, place: u32) -> u64 {
        self.history.transactions[place as usize].index
    }

    fn outcome(&self, append: Append) -> Outcome {
        self.history.transactions[append.transaction as usize].outcome
    }

    fn judge_reads(&self, verdict: &mut Verdict) {
        self.judge_elements(verdict);
        let is_sound = |element: &i64| {
            let append = self.list.appends.get(element);
            append.is_some_and(|append| self.outcome(*append) != Outcome::Failed)
        };
        let all_sound = self.list.longest.iter().all(is_sound);
        for (reader, elements, others) in &self.list.reads {
            let fits = self.list.longest.starts_with(elements);
            if !fits {
                let transactions = vec![self.index(*reader), self.index(self.list.longest_by)];
                let message = format!(
                    "T{} reads {elements:?} from `{}`, T{} reads {:?}",
                    transactions[0],
                    self.name(),
                    transactions[1],
                    self.list.longest
                );
                verdict.add(AnomalyKind::IncompatibleOrder, transactions, message);
            }
            let last = elements[..*others].last().and_then(|last| self.list.appends.get(last));
            if let Some(append) = last
                && !append.is_final
                && append.transaction != *reader
            {
                let transactions = vec![self.index(append.transaction), self.index(*reader)];
                let message = format!(
                    "T{} reads `{}` in the middle of T{}",
                    transactions[1],
                    self.name(),
                    transactions[0]
                );
                verdict.add(AnomalyKind::G1b, transactions, message);
            }
            if !(fits && all_sound) {
                elements.iter().for_each(|element| self.judge_writer(*reader, *element, verdict));
            }
        }
    }

    /// Looks for elements that are there twice, and for writes on writes that failed.
    fn judge_elements(&self, verdict: &mut Verdict) {
        let mut sorted = self.list.longest.to_vec();
        sorted.sort_unstable();
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            let reader = self.index(self.list.longest_by);
            let message = format!("T{reader} reads {} from `{}` twice", twice[0], self.name());
            verdict.add(AnomalyKind::DuplicateElements, vec![reader], message);
        }
        let writers = self.list.longest.iter().filter_map(|e| self.list.appends.get(e)).copied();
        let mut failed = None;
        for append in writers {
            match (self.outcome(append), failed) {
                (Outcome::Failed, _) => failed = Some(append.transaction),
                (Outcome::Committed, Some(failed)) => {
                    let transactions = vec![self.index(failed), self.index(append.transaction)];
                    let message = format!(
                        "T{} appends to `{}` behind T{}, which failed",
                        transactions[1],
                        self.name(),
                        transactions[0]
                    );
                    return verdict.add(AnomalyKind::DirtyUpdate, transactions, message);
                }
                (Outcome::Committed | Outcome::Unknown, _) => {}
            }
        }
    }

    fn judge_writer(&self, reader: u32, element: i64, verdict: &mut Verdict) {
        match self.list.appends.get(&element) {
            None => {
                let reader = self.index(reader);
                let message = format!("T{reader} reads {element} from `{}`", self.name());
                verdict.add(AnomalyKind::UnexpectedElement, vec![reader], message);
            }
            Some(append) if self.outcome(*append) == Outcome::Failed => {
                let transactions = vec![self.index(append.transaction), self.index(reader)];
                let message = format!(
                    "T{} reads {element} from `{}`, which T{} did not commit",
                    transactions[1],
                    self.name(),
                    transactions[0]
                );
                verdict.add(AnomalyKind::G1a, transactions, message);
            }
            Some(_) => {}
        }
    }

    fn add_dependencies(&self, graph: &mut GraphBuilder) {
        use Dependency::{ReadWrite, WriteRead, WriteWrite};
        let order = self.list.longest;
        let writer =
            |element: &i64| self.list.appends.get(element).map(|append| append.transaction);
        for pair in order.windows(2) {
            if let (Some(before), Some(after)) = (writer(&pair[0]), writer(&pair[1])) {
                graph.add(before, after, WriteWrite, self.key);
            }
        }
        // What was committed and never read comes after everything that was.
        let read: std::collections::BTreeSet<_> = order.iter().collect();
        let unread: Vec<u32> = self
            .list
            .appends
            .iter()
            .filter(|(element, _)| !read.contains(element))
            .filter(|(_, append)| self.outcome(**append) == Outcome::Committed)
            .map(|(_, append)| append.transaction)
            .collect();
        let behind = (!unread.is_empty()).then(|| graph.helper());
        let last = order.last().and_then(writer);
        if let Some(behind) = behind {
            // Who appended the last element that was read may itself have appended one more.
            let others = unread.iter().filter(|writer| Some(**writer) != last);
            others.for_each(|writer| graph.add(behind, *writer, WriteWrite, self.key));
            if let Some(last) = last {
                graph.add(last, behind, WriteWrite, self.key);
            }
        }
        let mut updaters = Vec::new();
        for (reader, elements, others) in &self.list.reads {
            if let Some(last) = elements[..*others].last().and_then(writer) {
                graph.add(last, *reader, WriteRead, self.key);
            }
            match order.get(*others) {
                Some(next) => {
                    if let Some(next) = writer(next) {
                        graph.add(*reader, next, ReadWrite, self.key);
                    }
                }
                // It must not come before itself; what it lost to others is added below.
                None if unread.contains(reader) => updaters.push(*reader),
                None => behind.into_iter().for_each(|b| graph.add(*reader, b, ReadWrite, self.key)),
            }
        }
        // Each of two that appended to the same version has overwritten what the other one read.
        for pair in updaters.windows(2) {
            graph.add(pair[0], pair[1], ReadWrite, self.key);
            graph.add(pair[1], pair[0], ReadWrite, self.key);
        }
    }
}
