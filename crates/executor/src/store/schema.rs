//! The database's schema and its upgrades.
//!
//! Owns: the tables, and the version in `user_version`.
//! Reads: nothing else.
//! Never: touches a database that a newer version wrote.

use std::fs::File;
use std::path::Path;

use dark_factory_types::OwnerId;
use rusqlite::{Connection, Transaction};

use super::{StoreError, database};

/// Where SQLite keeps the version.
const VERSION: &str = "user_version";

/// One step a version; appended to, never changed.
const MIGRATIONS: [&str; 2] = [
    "
    CREATE TABLE installation (owner TEXT NOT NULL);
    CREATE TABLE run (
        id TEXT PRIMARY KEY,
        file TEXT NOT NULL,
        created_at TEXT NOT NULL
    ) STRICT;
    CREATE TABLE attempt (
        id TEXT PRIMARY KEY,
        run_id TEXT NOT NULL REFERENCES run (id),
        number INTEGER NOT NULL,
        generation INTEGER NOT NULL,
        engine TEXT NOT NULL,
        spec TEXT NOT NULL,
        state TEXT NOT NULL,
        image TEXT,
        handle TEXT,
        stop_reason TEXT,
        report TEXT,
        removed INTEGER NOT NULL DEFAULT 0,
        created_at TEXT NOT NULL,
        started_at TEXT,
        finished_at TEXT,
        UNIQUE (run_id, number)
    ) STRICT;
    CREATE TABLE step (
        attempt_id TEXT NOT NULL REFERENCES attempt (id),
        generation INTEGER NOT NULL,
        state TEXT NOT NULL,
        at TEXT NOT NULL
    ) STRICT;
    CREATE INDEX attempt_open ON attempt (state, removed);
    CREATE INDEX step_attempt ON step (attempt_id);
",
    "
    ALTER TABLE attempt ADD COLUMN started TEXT;
    ALTER TABLE attempt ADD COLUMN stop_grace_ms INTEGER;
    ALTER TABLE attempt ADD COLUMN stop_sent INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE attempt ADD COLUMN pause_wanted INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE attempt ADD COLUMN paused_since TEXT;
    ALTER TABLE attempt ADD COLUMN paused_ms INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE attempt ADD COLUMN silent_since TEXT;
    ALTER TABLE attempt ADD COLUMN silent_why TEXT;
",
];

/// Makes the database ready for use: its mode, its tables, its owner. One process after the other.
pub(super) fn prepare(
    connection: &Connection,
    path: &Path,
    owner: &OwnerId,
) -> Result<OwnerId, StoreError> {
    let error = database("prepare its database");
    // Of two connections that change a new database's journal mode, SQLite tells one at once that it is locked, whatever
    // the busy timeout.
    let _turn = File::open(path.parent().unwrap_or(path))
        .and_then(|folder| folder.lock().map(|()| folder))
        .map_err(|source| StoreError::Turn { source })?;
    let found = known_version(connection)?;
    connection
        .execute_batch(
            // A commit outlives its process at once; that it outlives the machine is what `Store::sync` is for.
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;",
        )
        .map_err(&error)?;
    // Without a write, so that a full disk does not keep anybody from reading.
    if found == known() {
        return stored_owner(connection);
    }
    // One transaction, so that a store whose maker dies is made anew and never half there.
    connection
        .execute_batch("BEGIN IMMEDIATE")
        .map_err(&error)?;
    let result = migrate(connection, owner);
    connection
        .execute_batch(if result.is_ok() { "COMMIT" } else { "ROLLBACK" })
        .map_err(&error)?;
    result
}

fn known() -> u32 {
    u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX)
}

/// Returns the version of the database's schema, if this build knows it.
fn known_version(connection: &Connection) -> Result<u32, StoreError> {
    let known = known();
    let found: u32 = connection
        .pragma_query_value(None, VERSION, |row| row.get(0))
        .map_err(database("prepare its database"))?;
    if found > known {
        return Err(StoreError::NewerSchema { found, known });
    }
    Ok(found)
}

/// Writes the version that is there, as a write that changes nothing: of a row that stays the same SQLite writes nothing.
pub(super) fn rewrite_version(tx: &Transaction<'_>) -> Result<(), StoreError> {
    let found = known_version(tx)?;
    tx.pragma_update(None, VERSION, found)
        .map_err(database("prepare its database"))
}

fn stored_owner(connection: &Connection) -> Result<OwnerId, StoreError> {
    connection
        .query_row("SELECT owner FROM installation", [], |row| {
            row.get(0).map(OwnerId)
        })
        .map_err(database("prepare its database"))
}

fn migrate(connection: &Connection, owner: &OwnerId) -> Result<OwnerId, StoreError> {
    let error = database("prepare its database");
    let found = known_version(connection)?;
    for migration in MIGRATIONS.iter().skip(found as usize) {
        connection.execute_batch(migration).map_err(&error)?;
    }
    if found == 0 {
        connection
            .execute("INSERT INTO installation (owner) VALUES (?1)", [&owner.0])
            .map_err(&error)?;
    }
    connection
        .pragma_update(None, VERSION, known())
        .map_err(&error)?;
    stored_owner(connection)
}
