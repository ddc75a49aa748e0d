//! `[database]`.

use super::check::Form;

options! {
    /// The store.
    DatabaseOptions in "database" {
        /// mongodb://… with the database's name in the path, or sqlite:///absolute/path. Kept secret in logs. Empty:
        /// lambda-standalone keeps a SQLite file in its data directory; the other programs need one.
        [secret(), form(Form::Connection)] connection: String = String::new();
        /// Seconds a single operation may take.
        [range(1, 300)] timeout: u64 = 10;
        /// Seconds for which finished executions are kept.
        [range(60, 315_360_000)] execution_retention: u64 = 30 * 86_400;
        /// Seconds for which logs are kept.
        [range(60, 315_360_000)] log_retention: u64 = 7 * 86_400;
    }
}
