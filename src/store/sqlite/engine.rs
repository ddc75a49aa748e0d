//! How statements reach the file: one thread writes, a few connections read, and the async runtime is never blocked.
//!
//! SQLite has one writer at a time and waits for the disk at each commit. Writes that wait at the same moment therefore
//! share one transaction: each runs in a savepoint of its own, so that one which is refused takes back only itself, and
//! all are answered once the one commit is on the disk.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::super::{Result, StoreError, within};

/// Writes that may wait; whoever comes then waits for a place, until its time is up.
const WRITE_QUEUE: usize = 1024;

/// Most writes in one transaction, so that the first of them is not kept waiting.
const GROUP_MAX: usize = 256;

/// Connections that read. More would only wait for the same disk.
const READERS: usize = 4;

/// Prepared statements that a connection keeps.
const STATEMENT_CACHE: usize = 128;

/// Size that the write-ahead log is cut back to after a checkpoint, in bytes.
const LOG_SIZE: i64 = 64 << 20;

/// A write that waits for its place in a transaction.
trait Job: Send {
    /// Carries it out in the open transaction, in which it is `alone` or one of several. `false`: the transaction is gone,
    /// and everything in it.
    fn run(&mut self, db: &Connection, alone: bool) -> bool;

    /// Tells the caller the outcome; `lost` says why the transaction was not committed, if it was not.
    fn settle(self: Box<Self>, lost: Option<&str>);
}

struct Write<T, F> {
    work: Option<F>,
    result: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> Job for Write<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T> + Send,
{
    fn run(&mut self, db: &Connection, alone: bool) -> bool {
        // Whoever has given up waiting repeats the call if need be: it must not be carried out behind its back.
        let Some(work) = self.work.take_if(|_| !self.reply.is_closed()) else { return true };
        let result = if alone { in_transaction(db, work) } else { in_savepoint(db, work) };
        self.result = Some(result);
        // Some errors (disk full, I/O) make SQLite take back the whole transaction.
        !db.is_autocommit()
    }

    fn settle(self: Box<Self>, lost: Option<&str>) {
        let answer = match (lost, self.result) {
            // A refusal holds whether or not the others were committed.
            (_, Some(Err(refused))) => Err(refused),
            (Some(why), _) => Err(StoreError::Unavailable(why.into())),
            (None, Some(result)) => result,
            (None, None) => return,
        };
        // The caller may have gone meanwhile.
        let _ = self.reply.send(answer);
    }
}

/// A write that is refused takes the transaction back, in which there is no other. A savepoint would copy every page
/// that is changed.
fn in_transaction<T>(db: &Connection, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    let result = work(db);
    if result.is_err() && !db.is_autocommit() {
        run(db, "ROLLBACK")?;
    }
    result
}

fn run(db: &Connection, statement: &str) -> rusqlite::Result<()> {
    db.prepare_cached(statement)?.execute(()).map(|_| ())
}

fn in_savepoint<T>(db: &Connection, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    let run = |statement: &str| run(db, statement);
    run("SAVEPOINT one_write")?;
    match work(db) {
        Ok(done) => {
            run("RELEASE one_write")?;
            Ok(done)
        }
        Err(refused) => {
            if !db.is_autocommit() {
                run("ROLLBACK TO one_write")?;
                run("RELEASE one_write")?;
            }
            Err(refused)
        }
    }
}

/// The connections of one file. The writer ends when this is dropped and what waits is written.
pub(super) struct Engine {
    writes: mpsc::Sender<Box<dyn Job>>,
    readers: Arc<Readers>,
    timeout: Duration,
}

struct Readers {
    // A permit for each connection; one of them is always idle for a holder of a permit.
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Opens the file, which must exist. Blocks.
    pub(super) fn open(path: &Path, timeout: Duration) -> Result<Self> {
        let writer = connect(path, timeout)?;
        let idle = (0..READERS).map(|_| connect(path, timeout)).collect::<Result<Vec<_>>>()?;
        let (writes, queue) = mpsc::channel(WRITE_QUEUE);
        std::thread::Builder::new()
            .name("sqlite-writer".to_owned())
            .spawn(move || write_all(&writer, queue))
            .map_err(|error| StoreError::Unavailable(Box::new(error)))?;
        let readers = Arc::new(Readers { permits: Arc::new(Semaphore::new(READERS)), idle: Mutex::new(idle) });
        Ok(Self { writes, readers, timeout })
    }

    /// Carries out `work` in a transaction and returns when that is on the disk. An error takes back what it wrote.
    pub(super) async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let stopped = || StoreError::Unavailable("the writer has stopped".into());
        within(self.timeout, async {
            let (reply, answer) = oneshot::channel();
            let job = Write { work: Some(work), result: None, reply };
            self.writes.send(Box::new(job)).await.map_err(|_| stopped())?;
            answer.await.map_err(|_| stopped())?
        })
        .await
    }

    /// Carries out `work`, which must not write, on one of the reading connections. All it reads is of one moment.
    pub(super) async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let readers = Arc::clone(&self.readers);
        within(self.timeout, async {
            let permit = Arc::clone(&readers.permits).acquire_owned().await;
            let reading = tokio::task::spawn_blocking(move || {
                let Some(db) = readers.idle().pop() else {
                    return Err(StoreError::Unavailable("no reading connection is left".into()));
                };
                let result = read_at_one_moment(&db, work);
                readers.idle().push(db);
                drop(permit);
                result
            });
            reading.await.map_err(|error| StoreError::Unavailable(Box::new(error)))?
        })
        .await
    }
}

fn read_at_one_moment<T>(db: &Connection, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    let transaction = db.unchecked_transaction()?;
    let result = work(&transaction);
    // Nothing was written: a rollback only ends the snapshot.
    transaction.rollback()?;
    result
}

fn connect(path: &Path, timeout: Duration) -> Result<Connection> {
    let db = Connection::open_with_flags(
        path,
        rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    db.busy_timeout(timeout)?;
    db.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    // Readers go on while one writes.
    db.pragma_update(None, "journal_mode", "WAL")?;
    // What was answered survives the loss of power, not only of the process: each commit waits for the disk.
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "journal_size_limit", LOG_SIZE)?;
    Ok(db)
}

/// The writer: takes what waits, writes it in one transaction, answers.
fn write_all(db: &Connection, mut queue: mpsc::Receiver<Box<dyn Job>>) {
    while let Some(first) = queue.blocking_recv() {
        let mut group = vec![first];
        while group.len() < GROUP_MAX
            && let Ok(next) = queue.try_recv()
        {
            group.push(next);
        }
        let lost = commit(db, &mut group).err();
        for job in group {
            job.settle(lost.as_deref());
        }
    }
}

/// Runs a group in one transaction; why it was not committed, if it was not.
fn commit(db: &Connection, group: &mut [Box<dyn Job>]) -> std::result::Result<(), String> {
    run(db, "BEGIN IMMEDIATE").map_err(|error| format!("no transaction could be begun: {error}"))?;
    let alone = group.len() == 1;
    if !group.iter_mut().all(|job| job.run(db, alone)) {
        return Err("the transaction was taken back because of another write in it".to_owned());
    }
    run(db, "COMMIT").map_err(|error| {
        // Fails when SQLite has rolled back by itself, which is as good.
        let _ = db.execute_batch("ROLLBACK");
        format!("the transaction could not be committed: {error}")
    })
}
