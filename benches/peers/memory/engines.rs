//! The engines that Guild is held against, each with one transaction as small or as large as told.

use std::path::Path;

use heed::types::Bytes;
use heed::{Database, Env, EnvOpenOptions};
use redb::{Durability, ReadableTable, TableDefinition};

use super::clients::{read_keys, written_keys};
use super::open::key;

/// An engine with the keys of the workload in it.
pub(crate) trait Engine {
    /// Puts the value under so many keys.
    fn fill(&mut self, keys: usize);

    /// Commits the work of these transactions as one, durable on return.
    fn commit(&mut self, numbers: std::ops::Range<usize>, keys: usize);
}

/// What a value is as a row: its JSON.
const VALUE: [u8; 257] = [b'7'; 257];

/// sled, a `flush` and a real `fdatasync` for each commit: its `flush` alone is no barrier on Linux.
pub(crate) struct Sled {
    db: sled::Db,
    data: std::fs::File,
}

impl Sled {
    pub(crate) fn open(path: &Path) -> Self {
        let db = sled::Config::new().path(path).cache_capacity(64 << 20).open().unwrap();
        let data = std::fs::OpenOptions::new().write(true).open(path.join("db")).unwrap();
        Self { db, data }
    }

    fn sync(&self) {
        self.db.flush().unwrap();
        self.data.sync_data().unwrap();
    }
}

impl Engine for Sled {
    fn fill(&mut self, keys: usize) {
        for number in 0..keys {
            self.db.insert(key(number), VALUE.as_slice()).unwrap();
        }
        self.sync();
    }

    fn commit(&mut self, numbers: std::ops::Range<usize>, keys: usize) {
        let mut batch = sled::Batch::default();
        for number in numbers {
            for read in read_keys(number, keys) {
                self.db.get(key(read)).unwrap();
            }
            for written in written_keys(number, keys) {
                batch.insert(key(written).as_bytes(), VALUE.as_slice());
            }
        }
        self.db.apply_batch(batch).unwrap();
        self.sync();
    }
}

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

/// redb, as it is by default: each commit is durable.
pub(crate) struct Redb(redb::Database);

impl Redb {
    pub(crate) fn open(path: &Path) -> Self {
        Self(redb::Database::create(path).unwrap())
    }
}

impl Engine for Redb {
    fn fill(&mut self, keys: usize) {
        let write = self.0.begin_write().unwrap();
        {
            let mut table = write.open_table(TABLE).unwrap();
            for number in 0..keys {
                table.insert(key(number).as_bytes(), VALUE.as_slice()).unwrap();
            }
        }
        write.commit().unwrap();
    }

    fn commit(&mut self, numbers: std::ops::Range<usize>, keys: usize) {
        let mut write = self.0.begin_write().unwrap();
        write.set_durability(Durability::Immediate);
        {
            let mut table = write.open_table(TABLE).unwrap();
            for number in numbers {
                for read in read_keys(number, keys) {
                    table.get(key(read).as_bytes()).unwrap();
                }
                for written in written_keys(number, keys) {
                    table.insert(key(written).as_bytes(), VALUE.as_slice()).unwrap();
                }
            }
        }
        write.commit().unwrap();
    }
}

/// LMDB, as it is by default: each commit is synced.
pub(crate) struct Lmdb {
    env: Env,
    rows: Database<Bytes, Bytes>,
}

impl Lmdb {
    #[expect(unsafe_code, reason = "a mapped file must not be changed by others; this one is ours")]
    pub(crate) fn open(path: &Path) -> Self {
        std::fs::create_dir_all(path).unwrap();
        let env = unsafe { EnvOpenOptions::new().map_size(2 << 30).open(path) }.unwrap();
        let mut write = env.write_txn().unwrap();
        let rows = env.create_database(&mut write, None).unwrap();
        write.commit().unwrap();
        Self { env, rows }
    }
}

impl Engine for Lmdb {
    fn fill(&mut self, keys: usize) {
        let mut write = self.env.write_txn().unwrap();
        for number in 0..keys {
            self.rows.put(&mut write, key(number).as_bytes(), &VALUE).unwrap();
        }
        write.commit().unwrap();
    }

    fn commit(&mut self, numbers: std::ops::Range<usize>, keys: usize) {
        let mut write = self.env.write_txn().unwrap();
        for number in numbers {
            for read in read_keys(number, keys) {
                self.rows.get(&write, key(read).as_bytes()).unwrap();
            }
            for written in written_keys(number, keys) {
                self.rows.put(&mut write, key(written).as_bytes(), &VALUE).unwrap();
            }
        }
        write.commit().unwrap();
    }
}
