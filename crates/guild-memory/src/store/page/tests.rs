use std::cell::{Ref, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// Pages in RAM, which stop taking writes when a crash is due.
#[derive(Clone, Debug, Default)]
struct Shelf {
    pages: Map,
    /// Writes until the crash.
    left: Option<usize>,
    writes: Vec<Write>,
}

/// A page and its new rows, or none where it is dropped.
type Write = (Vec<u8>, Option<Vec<u8>>);

fn write(pages: &mut Map, (key, rows): Write) {
    match rows {
        Some(rows) => drop(pages.insert(key, rows)),
        None => drop(pages.remove(&key)),
    }
}

impl Shelf {
    fn write(&mut self, key: &[u8], rows: Option<&[u8]>) -> io::Result<()> {
        match &mut self.left {
            Some(0) => return Err(io::Error::other("crash")),
            Some(left) => *left -= 1,
            None => {}
        }
        self.writes.push((key.to_vec(), rows.map(<[u8]>::to_vec)));
        write(&mut self.pages, (key.to_vec(), rows.map(<[u8]>::to_vec)));
        Ok(())
    }
}

impl Pages for Shelf {
    type Bytes = Vec<u8>;
    type Error = io::Error;

    fn at(&self, key: &[u8]) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        let range = (Bound::Unbounded, Bound::Included(key));
        let page = self.pages.range::<[u8], _>(range).next_back();
        Ok(page.map(|(key, page)| (key.clone(), page.clone())))
    }

    fn after(&self, key: &[u8]) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        let range = (Bound::Excluded(key), Bound::Unbounded);
        let page = self.pages.range::<[u8], _>(range).next();
        Ok(page.map(|(key, page)| (key.clone(), page.clone())))
    }

    fn put(&mut self, key: &[u8], rows: &[u8]) -> io::Result<()> {
        self.write(key, Some(rows))
    }

    fn remove(&mut self, key: &[u8]) -> io::Result<()> {
        self.write(key, None)
    }
}

/// Pages that are written to while they are read: before each look at them come some of the writes.
struct Moving {
    shelf: RefCell<Shelf>,
    writes: RefCell<VecDeque<Write>>,
    /// How many before each look, in turn.
    steps: RefCell<VecDeque<usize>>,
}

impl Moving {
    fn look(&self) -> Ref<'_, Shelf> {
        let step = {
            let mut steps = self.steps.borrow_mut();
            steps.rotate_left(1);
            steps[0]
        };
        let mut writes = self.writes.borrow_mut();
        for _ in 0..step {
            if let Some(it) = writes.pop_front() {
                write(&mut self.shelf.borrow_mut().pages, it);
            }
        }
        self.shelf.borrow()
    }
}

impl Pages for Moving {
    type Bytes = Vec<u8>;
    type Error = io::Error;

    fn at(&self, key: &[u8]) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        self.look().at(key)
    }

    fn after(&self, key: &[u8]) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        self.look().after(key)
    }

    fn put(&mut self, _: &[u8], _: &[u8]) -> io::Result<()> {
        unreachable!("it is read")
    }

    fn remove(&mut self, _: &[u8]) -> io::Result<()> {
        unreachable!("it is read")
    }
}

fn all(shelf: &impl Pages<Error = io::Error>) -> Map {
    let mut rows = Map::new();
    let mut each = |key: &[u8], value: &[u8]| {
        let last = rows.last_key_value().map(|(last, _): (&Vec<u8>, _)| last.as_slice());
        assert!(last < Some(key), "rows come once, in order");
        rows.insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    };
    scan(shelf, Bound::Unbounded, Bound::Unbounded, &mut each).unwrap();
    rows
}

/// Returns the rows of pages that change while they are read, with what those changes make of them.
fn all_with(moving: &Moving, changes: &Changes) -> Map {
    let mut rows = all(moving);
    apply(&mut rows, changes);
    rows
}

/// Changes by key: the length of the new value, or none.
type Changes = BTreeMap<Vec<u8>, Option<usize>>;

fn with<T>(changes: &Changes, work: impl FnOnce(&[Change<'_>]) -> T) -> T {
    let values = vec![7; 2 * BYTES_MAX];
    let changes = changes.iter().map(|(key, length)| (&**key, length.map(|it| &values[..it])));
    work(&changes.collect::<Vec<_>>())
}

fn store_all(shelf: &mut Shelf, changes: &Changes) -> io::Result<Exchanged> {
    with(changes, |changes| store(shelf, changes))
}

fn apply(model: &mut Map, changes: &Changes) {
    for (key, length) in changes {
        match length {
            Some(length) => drop(model.insert(key.clone(), vec![7; *length])),
            None => drop(model.remove(key)),
        }
    }
}

/// Changes of single rows all over, or of whole ranges of them.
fn changes() -> impl Strategy<Value = Changes> {
    let key = |number: u8| if number == 0 { Vec::new() } else { vec![number / 16, number % 16] };
    let length = prop_oneof![
        6 => (0..BYTES_MIN).prop_map(Some),
        1 => (0..2 * BYTES_MAX).prop_map(Some),
        3 => Just(None),
    ];
    let single = vec((any::<u8>(), length), 0..40).prop_map(move |changes| {
        changes.into_iter().map(|(number, it)| (key(number), it)).collect()
    });
    let range = (any::<u8>(), any::<u8>(), proptest::option::of(0..BYTES_MIN / 2)).prop_map(
        move |(from, to, length)| (from..=to).map(|number| (key(number), length)).collect(),
    );
    prop_oneof![2 => single, 1 => range]
}

fn check_pages(shelf: &Shelf) {
    assert!(shelf.pages.is_empty() || shelf.pages.contains_key(&[][..]), "the first has no key");
    for page in shelf.pages.values() {
        assert!(page.len() <= BYTES_MAX || Rows(page).count() == 1, "{} bytes", page.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pages_hold_what_a_map_would_hold(batches in vec(changes(), 1..12)) {
        let (mut shelf, mut model) = (Shelf::default(), Map::new());
        for changes in &batches {
            apply(&mut model, changes);
            let before = size_bytes(&shelf).unwrap();
            let Exchanged { written, replaced } = store_all(&mut shelf, changes).unwrap();
            prop_assert_eq!(before + written as u64, size_bytes(&shelf).unwrap() + replaced as u64);
            prop_assert_eq!(all(&shelf), model.clone());
            check_pages(&shelf);
        }
        let keys = batches.iter().flat_map(BTreeMap::keys);
        for key in keys {
            prop_assert_eq!(get(&shelf, key).unwrap(), model.get(key).cloned());
            for from in [Bound::Included(&**key), Bound::Excluded(&**key)] {
                let mut found = None;
                let mut each = |key: &[u8], _: &[u8]| {
                    found = Some(key.to_vec());
                    ControlFlow::Break(())
                };
                scan(&shelf, from, Bound::Included(&[9]), &mut each).unwrap();
                let expected = match ram::is_empty(from, Bound::Included(&[9])) {
                    true => None,
                    false => model.range::<[u8], _>((from, Bound::Included(&[9][..]))).next(),
                };
                prop_assert_eq!(found, expected.map(|(key, _)| key.clone()));
            }
        }
    }

    #[test]
    fn changes_may_be_made_while_rows_are_read(
        before in vec(changes(), 1..6),
        during in changes(),
        steps in vec(0..4usize, 1..8),
    ) {
        let (mut shelf, mut model) = (Shelf::default(), Map::new());
        for changes in &before {
            store_all(&mut shelf, changes).unwrap();
            apply(&mut model, changes);
        }
        let mut whole = Shelf { writes: Vec::new(), ..shelf.clone() };
        store_all(&mut whole, &during).unwrap();
        apply(&mut model, &during);
        let (shelf, writes) = (RefCell::new(shelf), RefCell::new(whole.writes.into()));
        let moving = Moving { shelf, writes, steps: RefCell::new(steps.into()) };
        prop_assert_eq!(all_with(&moving, &during), model);
    }

    /// A crash after any write, once more while the changes are made again, and nothing that it left
    /// lying comes to light later.
    #[test]
    fn changes_that_were_cut_short_are_healed_when_they_are_made_again(
        before in vec(changes(), 1..6),
        cut in changes(),
        later in vec(changes(), 1..4),
    ) {
        let (mut shelf, mut model) = (Shelf::default(), Map::new());
        for changes in &before {
            store_all(&mut shelf, changes).unwrap();
            apply(&mut model, changes);
        }
        let untouched: Map =
            model.iter().filter(|(key, _)| !cut.contains_key(*key)).map(|(k, v)| (k.clone(), v.clone())).collect();
        apply(&mut model, &cut);
        let mut whole = shelf.clone();
        store_all(&mut whole, &cut).unwrap();
        for writes in 0..whole.writes.len() - shelf.writes.len() {
            let mut crashed = Shelf { left: Some(writes), ..shelf.clone() };
            store_all(&mut crashed, &cut).unwrap_err();
            let found = all(&crashed);
            prop_assert!(untouched.iter().all(|(key, value)| found.get(key) == Some(value)));
            crashed.left = Some(writes / 2);
            drop(store_all(&mut crashed, &cut));
            crashed.left = None;
            store_all(&mut crashed, &cut).unwrap();
            prop_assert_eq!(all(&crashed), model.clone());
            let mut model = model.clone();
            for changes in &later {
                store_all(&mut crashed, changes).unwrap();
                apply(&mut model, changes);
                prop_assert_eq!(all(&crashed), model.clone());
            }
        }
    }
}

#[test]
fn pages_are_split_joined_and_emptied() {
    let mut shelf = Shelf::default();
    let rows = |length| -> Changes { (0..100).map(|number| (vec![number], length)).collect() };
    store_all(&mut shelf, &rows(None)).unwrap();
    assert_eq!(shelf.pages.len(), 0, "nothing is removed from nothing");
    store_all(&mut shelf, &rows(Some(CUT_AT_BYTES / 8))).unwrap();
    let split = shelf.pages.len();
    assert!((9..=100 / 7).contains(&split), "{split} pages");
    let some: Changes = rows(None).into_iter().filter(|(key, _)| key[0] % 16 != 0).collect();
    store_all(&mut shelf, &some).unwrap();
    assert_eq!((all(&shelf).len(), shelf.pages.len()), (7, 4));
    store_all(&mut shelf, &rows(None)).unwrap();
    assert!(all(&shelf).is_empty() && shelf.pages.len() == 1);
}

/// The first page is read, then joined with the second one, which is dropped, and then the next is looked for.
#[test]
fn rows_of_a_page_that_is_dropped_between_two_looks_are_seen() {
    let mut shelf = Shelf::default();
    let rows: Changes = (0..40).map(|number| (vec![number], Some(BYTES_MIN / 2))).collect();
    store_all(&mut shelf, &rows).unwrap();
    let second = shelf.pages.keys().nth(1).unwrap()[0];
    let gone: Changes = (1..second).map(|number| (vec![number], None)).collect();
    let mut joined = Shelf { writes: Vec::new(), ..shelf.clone() };
    store_all(&mut joined, &gone).unwrap();
    assert_eq!(joined.writes.last(), Some(&(vec![second], None)));
    let steps = RefCell::new([joined.writes.len(), 0].into());
    let writes = RefCell::new(joined.writes.clone().into());
    let moving = Moving { shelf: RefCell::new(shelf), writes, steps };
    assert_eq!(all_with(&moving, &gone), all(&joined));
}

#[test]
fn a_page_that_is_not_made_of_whole_rows_is_an_error() {
    let mut shelf = Shelf::default();
    store_all(&mut shelf, &[(vec![1], Some(10)), (vec![2], Some(10))].into()).unwrap();
    let whole = shelf.pages[&[][..]].clone();
    let row = whole.len() / 2;
    for length in (1..whole.len()).filter(|length| *length != row) {
        shelf.pages.insert(Vec::new(), whole[..length].to_vec());
        let each = &mut |_: &[u8], _: &[u8]| ControlFlow::Continue(());
        scan(&shelf, Bound::Unbounded, Bound::Unbounded, each).unwrap_err();
        get(&shelf, &[3]).unwrap_err();
        store_all(&mut shelf, &[(vec![3], Some(1))].into()).unwrap_err();
    }
}
