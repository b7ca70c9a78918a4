use std::ops::Range;

use super::*;
use crate::store::Rows;

const SALT: u64 = 7;

fn batch(rows: &[(&str, Option<&str>)]) -> WriteBatch {
    let mut batch = WriteBatch::default();
    for (key, value) in rows {
        match value {
            Some(value) => batch.put(key, value),
            None => batch.delete(key),
        }
    }
    batch
}

fn shown(found: &Found) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let shown = |(key, value): (&[u8], Option<&[u8]>)| {
        format!("{}={}", text(key), value.map_or("-".into(), text))
    };
    Rows(&found.rows).map(shown).collect()
}

fn open(place: &Path, stored: u64) -> (Journal, Vec<String>, u64) {
    let (journal, found) = Journal::open(place, place, SALT, stored, false).unwrap();
    (journal, shown(&found), found.number)
}

/// Writes batches `from..to`, each with one row that says which it is.
fn write(journal: &mut Journal, numbers: Range<u32>) {
    for number in numbers {
        journal.append(&batch(&[("k", Some(&number.to_string()))])).unwrap();
    }
}

/// Changes the bytes of a file.
fn tamper(place: &Path, file: usize, change: impl FnOnce(&mut Vec<u8>)) {
    let path = place.join(FILES[file]);
    let mut bytes = std::fs::read(&path).unwrap();
    change(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
}

/// Bytes of one of the batches that `write` makes, in a file.
fn frame_bytes() -> usize {
    HEADER_BYTES + batch(&[("k", Some("1"))]).as_bytes().len()
}

#[test]
fn what_the_engine_does_not_have_is_found_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, found, number) = open(folder.path(), 0);
    assert_eq!((found.len(), number), (0, 0));
    journal.append(&batch(&[("a", Some("1")), ("b", None), ("", Some(""))])).unwrap();
    write(&mut journal, 2..4);
    assert_eq!(journal.turn().number, 3);
    write(&mut journal, 4..6);
    assert_eq!(open(folder.path(), 0).1, ["a=1", "b=-", "=", "k=2", "k=3", "k=4", "k=5"]);
    assert_eq!(open(folder.path(), 2).1, ["k=3", "k=4", "k=5"]);
    let (_, found, number) = open(folder.path(), 5);
    assert_eq!((found.len(), number), (0, 5));
}

#[test]
fn a_full_file_hands_over_its_rows_batch_by_batch() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, ..) = open(folder.path(), 0);
    write(&mut journal, 1..3);
    journal.synced().unwrap();
    let waiting = journal.waiting_bytes();
    let full = journal.turn();
    let bodies = full.content.bodies();
    let expected = [batch(&[("k", Some("1"))]), batch(&[("k", Some("2"))])];
    assert!(bodies.into_iter().eq(expected.iter().map(WriteBatch::as_bytes)));
    assert_eq!(waiting, expected.iter().map(|batch| batch.as_bytes().len()).sum::<usize>());
    assert_eq!(
        (full.number, journal.waiting_bytes()),
        (3, 0),
        "the third one says what is durable"
    );
}

#[test]
fn a_file_that_is_written_anew_hides_what_it_held() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, ..) = open(folder.path(), 0);
    write(&mut journal, 1..5);
    journal.synced().unwrap();
    journal.turn();
    write(&mut journal, 6..8);
    journal.turn();
    write(&mut journal, 8..9);
    assert_eq!(open(folder.path(), 5).1, ["k=6", "k=7", "k=8"]);
}

#[test]
fn a_torn_batch_ends_what_is_found_and_no_number_is_used_again() {
    // Batches 4 and 5 behind it are in the other file, or in the same one.
    for turns in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, ..) = open(folder.path(), 0);
        write(&mut journal, 1..4);
        if turns {
            journal.turn();
        }
        write(&mut journal, 4..6);
        tamper(folder.path(), 0, |bytes| bytes[3 * frame_bytes() - 1] ^= 1);
        let (_, found, number) = open(folder.path(), 0);
        assert_eq!(found, ["k=1", "k=2"]);
        assert_eq!(number, 5, "batches 4 and 5 must never follow another batch 3");
    }
}

#[test]
fn what_follows_a_restart_is_not_mixed_with_what_was_torn_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, ..) = open(folder.path(), 0);
    write(&mut journal, 1..4);
    tamper(folder.path(), 0, |bytes| bytes[frame_bytes() + HEADER_BYTES] ^= 1);
    let (mut journal, found, number) = open(folder.path(), 0);
    assert_eq!((&*found, number), (&["k=1".to_owned()][..], 3));
    // As long as what it is written over: batch 3 of before follows it at once.
    journal.append(&batch(&[("k", Some(&"x".repeat(frame_bytes() + 1)))])).unwrap();
    assert_eq!(open(folder.path(), number).1.len(), 1);
}

#[test]
fn no_flipped_bit_hides_a_batch_that_was_durable() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, ..) = open(folder.path(), 0);
    // Each was acknowledged; the engine has the first three, and both files hold some more.
    for number in 1..9 {
        write(&mut journal, number..number + 1);
        journal.synced().unwrap();
        if number == 5 {
            journal.turn();
        }
    }
    let (stored, acknowledged) = (6, ["k=4", "k=5", "k=6", "k=7", "k=8"]);
    assert_eq!(open(folder.path(), stored).1, acknowledged);
    let files = FILES.map(|name| std::fs::read(folder.path().join(name)).unwrap());
    let (mut refused, mut opened) = (0, 0);
    for (file, bytes) in files.iter().enumerate() {
        for (at, bit) in (0..bytes.len()).flat_map(|at| [0, 3, 7].map(|bit| (at, bit))) {
            let mut files = files.clone();
            files[file][at] ^= 1 << bit;
            let frames = files.iter().flat_map(|bytes| Frame::newer(bytes, SALT, stored));
            match follow(frames.collect(), stored) {
                Ok(found) => {
                    let shown = shown(&found);
                    assert_eq!(shown, acknowledged, "file {file}, byte {at}, bit {bit}");
                    opened += 1;
                }
                Err(_) => refused += 1,
            }
        }
    }
    // What the engine has, and the last word on what is durable, may be unsound.
    assert_eq!(opened, 3 * (3 * (frame_bytes() + HEADER_BYTES) + HEADER_BYTES));
    assert_eq!(refused, 3 * (5 * frame_bytes() + 4 * HEADER_BYTES));
}

#[test]
fn a_tail_that_was_never_synced_may_be_cut_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, ..) = open(folder.path(), 0);
    write(&mut journal, 1..3);
    journal.synced().unwrap();
    let path = folder.path().join(FILES[0]);
    let synced = 2 * frame_bytes();
    write(&mut journal, 4..6);
    let whole = std::fs::read(&path).unwrap();
    for length in synced..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        let found = open(folder.path(), 0).1;
        assert_eq!(found[..2], ["k=1", "k=2"], "{length} bytes");
        assert!(found.len() < 4, "{length} bytes");
    }
    std::fs::write(&path, &whole[..synced - 1]).unwrap();
    assert_eq!(open(folder.path(), 0).1, ["k=1"], "nothing is left that says otherwise");
}

#[test]
fn a_journal_that_has_lost_what_was_durable_is_corrupt() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, ..) = open(folder.path(), 0);
    write(&mut journal, 1..3);
    journal.synced().unwrap();
    tamper(folder.path(), 0, |bytes| bytes[HEADER_BYTES] ^= 1);
    let error = Journal::open(folder.path(), folder.path(), SALT, 0, false).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("lost batch 1: all up to 2 were"), "{error}");
}

#[test]
fn files_that_must_be_there_are_missed() {
    let folder = tempfile::tempdir().unwrap();
    let error = Journal::open(folder.path(), folder.path(), SALT, 0, true).unwrap_err();
    assert!(error.to_string().contains("journal-0"), "{error}");
}

/// Somebody puts a batch of their own into a value, which then lies in what was torn.
#[test]
fn a_value_that_holds_a_batch_is_not_taken_for_one() {
    let forged = batch(&[("k", Some("forged"))]);
    for (salt, expected) in [(SALT, &["k=forged"][..]), (SALT + 1, &[])] {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, ..) = open(folder.path(), 0);
        let value = [&header(salt, 1, 0, forged.as_bytes()), forged.as_bytes()].concat();
        let mut outer = WriteBatch::default();
        outer.put("outer", value);
        journal.append(&outer).unwrap();
        assert_eq!(open(folder.path(), 0).1.len(), 1);
        tamper(folder.path(), 0, |bytes| bytes[HEADER_BYTES] ^= 1);
        assert_eq!(open(folder.path(), 0).1, expected, "the control has guessed the salt");
    }
}
