//! How a model becomes a BSON document and back: attributes under their own names, `id` as `_id`, ids as text, and the
//! times at the top level as dates, so that indexes, expiry and people can use them.

use mongodb::bson::{self, Bson, DateTime, Document};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::super::{Result, StoreError, execution_row};
use crate::model::Timestamp;

/// Attributes at the top level of any model that are times.
const TIMES: [&str; 9] = [
    "created_at",
    "updated_at",
    "received_at",
    "deadline",
    "started_at",
    "finished_at",
    "not_before",
    "ready_at",
    "heartbeat_at",
];

fn unexpected(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Unexpected(Box::new(error))
}

/// A time as a date.
pub(super) const fn date(time: Timestamp) -> DateTime {
    DateTime::from_millis(time.as_millis())
}

/// A model as a document.
pub(super) fn write(model: &impl serde::Serialize) -> Result<Document> {
    from_object(&execution_row::object(model)?)
}

/// A JSON object as a document.
pub(super) fn from_object(object: &Map<String, Value>) -> Result<Document> {
    let mut document = bson::serialize_to_document(object).map_err(unexpected)?;
    for name in TIMES {
        if let Some(Bson::String(text)) = document.get(name) {
            let time: Timestamp = text.parse().map_err(unexpected)?;
            document.insert(name, date(time));
        }
    }
    if let Some(id) = document.remove("id") {
        document.insert("_id", id);
    }
    Ok(document)
}

/// A document as a model. What the model does not know is left out.
pub(super) fn read<T: DeserializeOwned>(mut document: Document) -> Result<T> {
    if let Some(id) = document.remove("_id") {
        document.insert("id", id);
    }
    for (_, value) in document.iter_mut() {
        if let Bson::DateTime(date) = value {
            *value = Bson::String(Timestamp::from_millis(date.timestamp_millis()).to_string());
        }
    }
    bson::deserialize_from_document(document).map_err(unexpected)
}
