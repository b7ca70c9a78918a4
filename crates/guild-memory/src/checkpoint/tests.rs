//! What is written is read back, and damage is found.

use super::*;

fn written(folder: &Path) -> PathBuf {
    let path = next_path(folder).unwrap();
    let mut writer = Writer::begin(path.clone()).unwrap();
    for number in 0..3_000u32 {
        writer.row(&number.to_be_bytes(), &[7; 500]).unwrap();
    }
    let mut batch = WriteBatch::default();
    batch.put(1u32.to_be_bytes(), b"newer");
    batch.delete(2u32.to_be_bytes());
    writer.changes(&batch).unwrap();
    assert!(!path.exists(), "no file has the name before it is whole");
    let info = writer.finish().unwrap();
    assert_eq!((&info.path, info.rows), (&path, 3_002));
    path
}

#[test]
fn what_was_written_is_read_back_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path());
    let mut rows = std::collections::BTreeMap::new();
    let info = read(&path, |batch| {
        for (key, value) in batch.rows() {
            match value {
                Some(value) => rows.insert(key.to_vec(), value.to_vec()),
                None => rows.remove(key),
            };
        }
        Ok(())
    });
    assert_eq!(info.unwrap().bytes, fs::metadata(&path).unwrap().len());
    assert_eq!(rows.len(), 2_999);
    assert_eq!(rows[1u32.to_be_bytes().as_slice()], b"newer");
}

#[test]
fn every_kind_of_damage_is_found_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path());
    let whole = fs::read(&path).unwrap();
    let after = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        verify(&path).map(|_| ()).unwrap_err()
    };
    for place in (16..whole.len()).step_by(whole.len() / 200) {
        let mut flipped = whole.clone();
        flipped[place] ^= 1 << (place % 8);
        assert!(matches!(after(&flipped), CheckpointError::Damaged { .. }), "byte {place}");
        assert!(matches!(after(&whole[..place]), CheckpointError::Damaged { .. }), "{place}");
    }
    assert!(matches!(after(&[&whole[..], b"x"].concat()), CheckpointError::Damaged { .. }));
    assert!(matches!(after(b"hello"), CheckpointError::Foreign { .. }));
    assert!(matches!(after(b"hello hello hello hello"), CheckpointError::Foreign { .. }));
    let mut newer = whole.clone();
    newer[8] = 9;
    assert!(matches!(after(&newer), CheckpointError::FormatVersion { found: 9, .. }));
    fs::remove_file(&path).unwrap();
    let missing = verify(&path).map(|_| ()).unwrap_err();
    assert_eq!(missing, CheckpointError::Missing { path: path.clone() });
    assert!(missing.to_string().contains(path.to_str().unwrap()));
}

#[test]
fn three_checkpoints_are_kept_and_an_unfinished_one_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let paths: Vec<_> = (0..5).map(|_| written(folder.path())).collect();
    prune(folder.path()).unwrap();
    assert_eq!(list(folder.path()).unwrap(), paths[2..]);
    drop(Writer::begin(next_path(folder.path()).unwrap()).unwrap());
    assert_eq!(fs::read_dir(folder.path().join(FOLDER)).unwrap().count(), 3);
}
