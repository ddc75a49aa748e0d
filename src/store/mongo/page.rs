//! Lists, a page at a time.

use std::time::Duration;

use futures::TryStreamExt as _;
use mongodb::Collection;
use mongodb::bson::{Bson, DateTime, Document, doc};

use super::super::marker::{Marker, PageBuilder, Position, SortValue};
use super::super::{Page, PageRequest, Result, Scope, StoreError};
use super::document;

/// The conditions that bind a query to a scope.
pub(super) fn within(scope: &Scope) -> Document {
    match scope {
        Scope::Project(project) => doc! { "project_id": project.as_str() },
        Scope::All => doc! {},
    }
}

/// A bound as the server takes it.
pub(super) fn limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// A list that can be read in pages.
pub(super) struct List<T> {
    /// What is listed.
    pub collection: Collection<Document>,
    /// The field of the order, which names it in markers too.
    pub sort: &'static str,
    /// The bytes that an element carries.
    pub bytes: fn(&T) -> usize,
    /// How long the server may look for a page; it would go on though nobody waits any more.
    pub timeout: Duration,
}

impl<T: serde::de::DeserializeOwned> List<T> {
    /// Reads one page of what meets the filter, which must hold the scope's own conditions.
    pub(super) async fn page<K>(&self, scope: &Scope, filter: Document, page: &PageRequest<K>) -> Result<Page<T>> {
        let (order, behind, at_or_behind) =
            if page.direction.is_ascending() { (1, "$gt", "$gte") } else { (-1, "$lt", "$lte") };
        let mut conditions = vec![filter];
        if let Some(marker) = &page.marker {
            let position = self.position(scope, marker).await?;
            let value = match position.value {
                SortValue::Time(time) => Bson::DateTime(DateTime::from_millis(time)),
                SortValue::Text(text) => Bson::String(text),
            };
            // The first bounds the scan of the index, the second says which of the equal ones are behind.
            conditions.push(doc! { self.sort: { at_or_behind: &value } });
            conditions.push(doc! { "$or": [
                { self.sort: { behind: &value } },
                { self.sort: &value, "_id": { behind: position.id } },
            ] });
        }
        let wanted = page.limit.saturating_add(1);
        let mut cursor = self
            .collection
            .find(doc! { "$and": conditions })
            .sort(doc! { self.sort: order, "_id": order })
            .limit(limit(wanted))
            .max_time(self.timeout)
            .batch_size(u32::try_from(wanted).unwrap_or(u32::MAX))
            .await?;
        let mut built = PageBuilder::new(page.limit);
        while let Some(found) = cursor.try_next().await? {
            let position = self.position_of(&found)?;
            let item = document::read(found)?;
            let bytes = (self.bytes)(&item);
            if !built.offer(item, position, bytes) {
                break;
            }
        }
        Ok(built.finish())
    }

    async fn position(&self, scope: &Scope, marker: &str) -> Result<Position> {
        let id = match Marker::parse(marker, self.sort)? {
            Marker::Position(position) => return Ok(position),
            Marker::Element(id) => id,
        };
        let mut filter = within(scope);
        filter.insert("_id", id);
        let found = self.collection.find_one(filter).projection(doc! { self.sort: 1 }).await?;
        self.position_of(&found.ok_or(StoreError::BadMarker)?)
    }

    fn position_of(&self, found: &Document) -> Result<Position> {
        let value = match found.get(self.sort) {
            Some(Bson::DateTime(date)) => SortValue::Time(date.timestamp_millis()),
            Some(Bson::String(text)) => SortValue::Text(text.clone()),
            _ => return Err(StoreError::Unexpected(format!("a document without {}", self.sort).into())),
        };
        let id = found.get_str("_id").map_err(|error| StoreError::Unexpected(Box::new(error)))?;
        Ok(Position { key: self.sort.to_owned(), value, id: id.to_owned() })
    }
}
