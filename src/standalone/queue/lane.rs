//! The threads that talk to the file: one writes, one reads.
//!
//! The writer takes whatever has gathered while the disk was busy into one transaction (group commit) and answers all
//! of it after the commit: an answer means that the change survives a crash, and the number of changes a second is not
//! bound by the number of flushes. What says so itself is not flushed: it survives the end of the process, and that of
//! the machine from the next flush on. A change that is refused is undone alone. The reader works on the committed state,
//! one request at a time, so whoever was answered sees what it wrote.

use std::cell::Cell;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::Clock;
use super::fault::{Fault, Result};
use super::schema;

/// Requests that may wait for a thread; more wait for their turn to wait, in their connections.
const WAITING_MAX: usize = 1024;

/// Changes in one transaction. It bounds how long the first of them waits for the last.
const BATCH_MAX: usize = 256;

/// How often what has expired is removed.
const COLLECT_EVERY: Duration = Duration::from_secs(2);

/// Runs on the thread within a transaction; what it returns is run after the commit and is told whether it succeeded.
type Job = Box<dyn FnOnce(&Connection) -> Reply + Send>;

struct Reply {
    keep: bool,
    send: Box<dyn FnOnce(bool) + Send>,
}

enum Order {
    Run(Job, Lasting),
    Stop,
}

/// How much an answer promises of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lasting {
    /// It survives a power cut.
    Flushed,
    /// It survives a crash of this process; should a power cut undo it, everybody can bear that.
    Written,
}

/// One thread with its connection, and the way to it.
pub(super) struct Lane {
    orders: SyncSender<Order>,
    room: Arc<Semaphore>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What a lane does with the file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Changes it, many requests a transaction.
    Write,
    /// Looks at it, one request a transaction: a longer one would look at the past.
    Read,
}

impl Lane {
    /// Starts the thread. It ends when the lane is closed or dropped.
    pub(super) fn start(connection: Connection, access: Access, clock: Clock) -> std::io::Result<Self> {
        // One place more than there are permits: for the order to stop.
        let (orders, waiting) = sync_channel(WAITING_MAX + 1);
        let name = match access {
            Access::Write => "queue-writer",
            Access::Read => "queue-reader",
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            // As it was opened.
            let lasting = Cell::new(Lasting::Flushed);
            Thread { connection, lasting, access, clock, waiting }.serve();
        })?;
        Ok(Self { orders, room: Arc::new(Semaphore::new(WAITING_MAX)), thread: Mutex::new(Some(thread)) })
    }

    /// Runs `work` on the thread, in a transaction, and answers after its commit. Nothing of it stays when it answers
    /// `Err`.
    pub(super) async fn run<T, F>(&self, lasting: Lasting, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let permit = Arc::clone(&self.room).acquire_owned().await.map_err(|_| Fault::unavailable())?;
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| reply(work(connection), answer, permit));
        self.orders.try_send(Order::Run(job, lasting)).map_err(|_| Fault::unavailable())?;
        answered.await.map_err(|_| Fault::unavailable())?
    }

    /// Takes no more requests, finishes those that wait, and returns when the thread has closed the file.
    pub(super) async fn close(&self) {
        self.room.close();
        // It fails only when the thread is gone, which is what is wanted.
        let _ = self.orders.try_send(Order::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

fn reply<T: Send + 'static>(
    result: Result<T>,
    answer: oneshot::Sender<Result<T>>,
    permit: OwnedSemaphorePermit,
) -> Reply {
    let keep = result.is_ok();
    let send = move |committed: bool| {
        drop(permit);
        // Whoever asked may have gone away.
        let _ = answer.send(match result {
            Ok(_) if !committed => Err(Fault::unavailable()),
            done => done,
        });
    };
    Reply { keep, send: Box::new(send) }
}

/// What the thread does after a transaction.
enum Then {
    /// It goes on; there may be a job that would not join.
    Go(Option<(Job, Lasting)>),
    Stop,
}

struct Thread {
    connection: Connection,
    /// How the connection commits now.
    lasting: Cell<Lasting>,
    access: Access,
    clock: Clock,
    waiting: Receiver<Order>,
}

impl Thread {
    fn serve(self) {
        let mut collect_at = Instant::now();
        loop {
            match self.waiting.recv_timeout(collect_at.saturating_duration_since(Instant::now())) {
                Ok(Order::Run(job, lasting)) => {
                    let mut next = Some((job, lasting));
                    while let Some((job, lasting)) = next.take() {
                        match self.batch(job, lasting) {
                            Then::Go(left) => next = left,
                            Then::Stop => return,
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= collect_at {
                let more = self.access == Access::Write && self.collect();
                collect_at = Instant::now() + if more { Duration::ZERO } else { COLLECT_EVERY };
            }
        }
    }

    /// Runs this job and those that wait behind it and may join it in one transaction.
    fn batch(&self, first: Job, lasting: Lasting) -> Then {
        if let Err(error) = self.set(lasting).and_then(|()| self.begin()) {
            tracing::error!(error = %error, "the queue's database does not begin a transaction: {error}");
            // The job is dropped, and with it the sender that its caller waits on.
            return Then::Go(None);
        }
        let mut then = Then::Go(None);
        let mut replies = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next.take() {
            replies.push(self.attempt(job));
            if self.connection.is_autocommit() {
                // A full disk or a broken one makes SQLite undo the whole transaction, with what others did in it.
                tracing::error!("the queue's database gave up a transaction");
                finish(replies, false);
                return Then::Go(None);
            }
            if self.access == Access::Write && replies.len() < BATCH_MAX {
                match self.waiting.try_recv() {
                    // What need not be flushed may be flushed with the others, but not the other way round.
                    Ok(Order::Run(job, Lasting::Flushed)) if lasting == Lasting::Written => {
                        then = Then::Go(Some((job, Lasting::Flushed)));
                    }
                    Ok(Order::Run(job, Lasting::Flushed | Lasting::Written)) => next = Some(job),
                    Ok(Order::Stop) => then = Then::Stop,
                    Err(_) => {}
                }
            }
        }
        let committed = match self.execute("COMMIT") {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(error = %error, "the queue's database does not commit: {error}");
                let _ = self.execute("ROLLBACK");
                false
            }
        };
        finish(replies, committed);
        then
    }

    /// Runs one job so that it can be undone alone.
    fn attempt(&self, job: Job) -> Reply {
        if self.access == Access::Read {
            return job(&self.connection);
        }
        if let Err(error) = self.execute("SAVEPOINT one") {
            tracing::error!(error = %error, "the queue's database does not take a savepoint: {error}");
        }
        let reply = job(&self.connection);
        let undone = if reply.keep { Ok(()) } else { self.execute("ROLLBACK TO one") };
        match undone.and_then(|()| self.execute("RELEASE one")) {
            Ok(()) => reply,
            // Without its savepoint the job's changes cannot be told from the others'.
            Err(error) => {
                tracing::error!(error = %error, "the queue's database does not end a savepoint: {error}");
                let _ = self.execute("ROLLBACK");
                reply
            }
        }
    }

    /// How the next transaction is committed.
    fn set(&self, lasting: Lasting) -> rusqlite::Result<()> {
        if self.lasting.get() != lasting {
            let synchronous = match lasting {
                Lasting::Flushed => "full",
                Lasting::Written => "normal",
            };
            self.connection.pragma_update(None, "synchronous", synchronous)?;
            self.lasting.set(lasting);
        }
        Ok(())
    }

    fn begin(&self) -> rusqlite::Result<()> {
        self.execute(match self.access {
            Access::Write => "BEGIN IMMEDIATE",
            Access::Read => "BEGIN",
        })
    }

    fn execute(&self, statement: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(statement)?.execute([]).map(|_| ())
    }

    fn collect(&self) -> bool {
        let now = (self.clock)().as_millis();
        let collected = self.begin().and_then(|()| schema::collect(&self.connection, now)).and_then(|more| {
            self.execute("COMMIT")?;
            Ok(more)
        });
        collected.unwrap_or_else(|error| {
            tracing::warn!(error = %error, "the queue's database does not give up what has expired: {error}");
            let _ = self.execute("ROLLBACK");
            false
        })
    }
}

fn finish(replies: Vec<Reply>, committed: bool) {
    for reply in replies {
        (reply.send)(committed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn lane() -> Lane {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE claims (id, expires); CREATE TABLE t (n UNIQUE)").unwrap();
        Lane::start(connection, Access::Write, Arc::new(crate::clock::now)).unwrap()
    }

    async fn put(lane: &Lane, n: i64) -> Result<()> {
        lane.run(Lasting::Flushed, move |connection| {
            Ok(connection.execute("INSERT INTO t VALUES (?1)", [n]).map(|_| ())?)
        })
        .await
    }

    async fn kept(lane: &Lane) -> i64 {
        lane.run(Lasting::Flushed, |connection| {
            Ok(connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?)
        })
        .await
        .unwrap()
    }

    /// Runs all of `jobs` in one transaction, if they may join `first`: they gather behind one that waits for them.
    async fn together(
        lane: &Lane,
        first: Lasting,
        jobs: Vec<futures::future::BoxFuture<'_, Result<()>>>,
    ) -> Vec<Result<()>> {
        let (go, wait) = mpsc::channel();
        let first = lane.run(first, move |_| {
            wait.recv().unwrap();
            Ok(())
        });
        let count = jobs.len();
        let release = async {
            while lane.room.available_permits() > WAITING_MAX - count - 1 {
                tokio::task::yield_now().await;
            }
            go.send(()).unwrap();
        };
        let (first, results, ()) = futures::join!(first, futures::future::join_all(jobs), release);
        assert_eq!(first, Ok(()));
        results
    }

    #[tokio::test]
    async fn what_is_to_be_flushed_never_joins_what_is_not() {
        let lane = &lane();
        // SQLite's own words for it: 1 is normal, 2 is full.
        let commits_with = |lasting: Lasting, expected: i64| async move {
            lane.run(lasting, move |connection| {
                let found: i64 = connection.query_row("PRAGMA synchronous", [], |row| row.get(0))?;
                assert_eq!(found, expected, "{lasting:?}");
                Ok(())
            })
            .await
        };
        let jobs: Vec<futures::future::BoxFuture<Result<()>>> = vec![
            Box::pin(commits_with(Lasting::Written, 1)),
            Box::pin(commits_with(Lasting::Flushed, 2)),
            Box::pin(commits_with(Lasting::Written, 2)),
        ];
        assert_eq!(together(lane, Lasting::Written, jobs).await, [Ok(()), Ok(()), Ok(())]);
        assert_eq!(commits_with(Lasting::Written, 1).await, Ok(()));
        assert_eq!(commits_with(Lasting::Flushed, 2).await, Ok(()));
    }

    #[tokio::test]
    async fn what_is_refused_is_undone_alone() {
        let lane = lane();
        let refused = lane.run(Lasting::Flushed, |connection| {
            connection.execute("INSERT INTO t VALUES (7)", [])?;
            Err(Fault::request("no"))
        });
        let jobs: Vec<futures::future::BoxFuture<Result<()>>> =
            vec![Box::pin(put(&lane, 1)), Box::pin(refused), Box::pin(put(&lane, 1)), Box::pin(put(&lane, 2))];
        let results = together(&lane, Lasting::Flushed, jobs).await;
        assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, false, true]);
        assert_eq!(kept(&lane).await, 2);
    }

    #[tokio::test]
    async fn nobody_is_told_that_a_given_up_transaction_was_kept() {
        let lane = lane();
        // What SQLite does by itself when the disk is full.
        let broken = lane.run(Lasting::Flushed, |connection| Ok(connection.execute_batch("ROLLBACK")?));
        let (go, wait) = mpsc::channel();
        let first = lane.run(Lasting::Flushed, move |connection| {
            wait.recv().unwrap();
            connection.execute("INSERT INTO t VALUES (1)", [])?;
            Ok(())
        });
        let release = async {
            while lane.room.available_permits() > WAITING_MAX - 2 {
                tokio::task::yield_now().await;
            }
            go.send(()).unwrap();
        };
        let (first, broken, ()) = futures::join!(first, broken, release);
        assert_eq!((first, broken), (Err(Fault::unavailable()), Err(Fault::unavailable())));
        assert_eq!(kept(&lane).await, 0);
        assert_eq!(put(&lane, 1).await, Ok(()), "the next transaction is a new one");
    }

    #[tokio::test]
    async fn a_closed_lane_has_finished_what_waited_and_takes_no_more() {
        let lane = lane();
        let (go, wait) = mpsc::channel();
        let first = lane.run(Lasting::Flushed, move |_| {
            wait.recv().unwrap();
            Ok(())
        });
        let close = async {
            while lane.room.available_permits() > WAITING_MAX - 21 {
                tokio::task::yield_now().await;
            }
            futures::join!(lane.close(), async { go.send(()).unwrap() });
        };
        let jobs = futures::future::join_all((0..20).map(|n| put(&lane, n)));
        let (first, results, ()) = futures::join!(first, jobs, close);
        assert_eq!(first, Ok(()));
        assert!(results.iter().all(Result::is_ok));
        assert_eq!(put(&lane, 1000).await, Err(Fault::unavailable()));
    }
}
