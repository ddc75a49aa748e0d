//! What MongoDB's errors mean to a caller.

#![expect(clippy::wildcard_enum_match_arm, reason = "the driver's enum is not exhaustive")]

use mongodb::error::{CommandError, Error, ErrorKind, InsertManyError, WriteFailure};

use super::super::StoreError;

/// The server's code for a unique value that is there already.
pub(super) const DUPLICATE_KEY: i32 = 11000;

/// Codes of refusals that pass: no primary, shutting down, stepping down, overloaded, too slow, interrupted, in
/// conflict, not yet replicated.
const PASSING: &[i32] = &[
    6, 7, 24, 43, 46, 50, 64, 79, 89, 91, 112, 133, 134, 175, 189, 202, 225, 234, 237, 244, 251, 262, 290, 314, 462,
    9001, 10107, 11600, 11602, 13388, 13435, 13436,
];

/// What the server or the driver said, in a line. Never a document: it may hold a tenant's data.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct MongoError(pub(super) String);

/// A refusal of ours inside a transaction.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refused {
    NotFound(&'static str),
    Taken(&'static str),
    Stale,
}

impl Refused {
    /// As an error that ends a transaction.
    pub(super) fn error(self) -> Error {
        Error::custom(self)
    }
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        if let Some(refused) = error.get_custom::<Refused>() {
            return match *refused {
                Refused::NotFound(kind) => Self::NotFound(kind),
                Refused::Taken(what) => Self::Taken(what),
                Refused::Stale => Self::Stale,
            };
        }
        let what = Box::new(MongoError(brief(&error)));
        if is_passing(&error) { Self::Unavailable(what) } else { Self::Unexpected(what) }
    }
}

/// An answer of the server to a command that reports failures by code.
pub(super) fn refusal(code: i32, what: String) -> StoreError {
    let what = Box::new(MongoError(what));
    if PASSING.contains(&code) { StoreError::Unavailable(what) } else { StoreError::Unexpected(what) }
}

/// Whether the error says that a unique value is there already.
pub(super) fn is_duplicate(error: &Error) -> bool {
    match error.kind.as_ref() {
        ErrorKind::Write(WriteFailure::WriteError(write)) => write.code == DUPLICATE_KEY,
        ErrorKind::Command(command) => command.code == DUPLICATE_KEY,
        ErrorKind::InsertMany(InsertManyError { write_errors: Some(errors), .. }) => {
            errors.iter().any(|error| error.code == DUPLICATE_KEY)
        }
        _ => false,
    }
}

fn is_passing(error: &Error) -> bool {
    let labelled = ["RetryableWriteError", "TransientTransactionError", "UnknownTransactionCommitResult"]
        .iter()
        .any(|label| error.contains_label(label));
    labelled
        || match error.kind.as_ref() {
            ErrorKind::Io(_)
            | ErrorKind::ServerSelection { .. }
            | ErrorKind::ConnectionPoolCleared { .. }
            | ErrorKind::DnsResolve { .. }
            | ErrorKind::Transaction { .. }
            // The write may have been made, but not everywhere it must be.
            | ErrorKind::Write(WriteFailure::WriteConcernError(_)) => true,
            ErrorKind::InsertMany(InsertManyError { write_concern_error: Some(_), .. }) => true,
            ErrorKind::InsertMany(InsertManyError { write_errors: Some(errors), .. }) => {
                errors.iter().any(|error| PASSING.contains(&error.code))
            }
            ErrorKind::Write(WriteFailure::WriteError(write)) => PASSING.contains(&write.code),
            ErrorKind::Command(CommandError { code, .. }) => PASSING.contains(code),
            _ => false,
        }
}

// The driver's own text shows whole answers of the server.
fn brief(error: &Error) -> String {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => command.to_string(),
        ErrorKind::Write(WriteFailure::WriteError(write)) => format!("write error {}: {}", write.code, write.message),
        ErrorKind::Write(WriteFailure::WriteConcernError(concern)) => {
            format!("write concern error {}: {}", concern.code, concern.message)
        }
        ErrorKind::InsertMany(InsertManyError { write_errors: Some(errors), .. }) => {
            let codes: Vec<String> = errors.iter().map(|error| error.code.to_string()).collect();
            format!("write errors {}", codes.join(", "))
        }
        ErrorKind::InsertMany(InsertManyError { write_concern_error: Some(concern), .. }) => {
            format!("write concern error {}: {}", concern.code, concern.message)
        }
        other => other.to_string(),
    }
}
