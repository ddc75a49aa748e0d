//! Functions and triggers, which come and go together: in a transaction where the deployment has them. A single mongod
//! that is no replica set has none; there, triggers are written before their function and removed after it, and a
//! trigger without its function counts as absent.

use std::collections::HashSet;

use futures::future::BoxFuture;
use futures::{FutureExt as _, TryStreamExt as _};
use mongodb::bson::{Document, doc};
use mongodb::error::{Error, Result as MongoResult};
use mongodb::options::ReadConcern;
use mongodb::{ClientSession, Collection};

use super::super::{
    FunctionFilter, FunctionRef, FunctionSort, Page, PageRequest, Result, Scope, StoreError, TriggerFilter, TriggerSort,
};
use super::error::{Refused, is_duplicate};
use super::page::{List, within};
use super::{MongoStore, document, durable};
use crate::model::{Function, FunctionId, Trigger, TriggerId};

/// Several writes that belong together; each is one method, carried out in the transaction if there is one.
struct Together<'a> {
    functions: &'a Collection<Document>,
    triggers: &'a Collection<Document>,
    session: Option<&'a mut ClientSession>,
}

impl Together<'_> {
    async fn find_function(&mut self, filter: Document) -> MongoResult<Option<Document>> {
        let find = self.functions.find_one(filter);
        match self.session.as_deref_mut() {
            Some(session) => find.session(session).await,
            None => find.await,
        }
    }

    async fn insert(&mut self, function: &Document) -> MongoResult<()> {
        let insert = self.functions.insert_one(function);
        let inserted = match self.session.as_deref_mut() {
            Some(session) => insert.session(session).await,
            None => insert.await,
        };
        inserted.map(|_| ())
    }

    async fn insert_triggers(&mut self, triggers: &[Document]) -> MongoResult<()> {
        for trigger in triggers {
            let find = self.triggers.find_one(doc! { "_id": trigger.get("_id") });
            let known = match self.session.as_deref_mut() {
                Some(session) => find.session(session).await?,
                None => find.await?,
            };
            match known {
                // The same call again, or what a crash left of it.
                Some(known) if known.get("function_id") == trigger.get("function_id") => continue,
                Some(_) => return Err(Refused::Taken("id").error()),
                None => {}
            }
            let insert = self.triggers.insert_one(trigger);
            match self.session.as_deref_mut() {
                Some(session) => insert.session(session).await?,
                None => insert.await?,
            };
        }
        Ok(())
    }

    /// Writes on a function without changing what it says, so that its deletion in another transaction conflicts with
    /// this one. Whether it is there.
    async fn touch_function(&mut self, filter: Document) -> MongoResult<bool> {
        let touch = self.functions.update_one(filter, doc! { "$currentDate": { "triggers_changed_at": true } });
        let touched = match self.session.as_deref_mut() {
            Some(session) => touch.session(session).await?,
            None => touch.await?,
        };
        Ok(touched.matched_count == 1)
    }

    async fn delete_function(&mut self, filter: Document) -> MongoResult<bool> {
        let delete = self.functions.delete_one(filter);
        let deleted = match self.session.as_deref_mut() {
            Some(session) => delete.session(session).await?,
            None => delete.await?,
        };
        Ok(deleted.deleted_count == 1)
    }

    async fn delete_triggers(&mut self, filter: Document) -> MongoResult<()> {
        let delete = self.triggers.delete_many(filter);
        match self.session.as_deref_mut() {
            Some(session) => delete.session(session).await?,
            None => delete.await?,
        };
        Ok(())
    }
}

/// What is done in one transaction, as data, because it may be done again when it meets another.
#[derive(Clone)]
enum Task {
    Create { function: Document, triggers: Vec<Document> },
    Delete { filter: Document, expected_revision: Option<i64> },
    CreateTrigger { function: Document, trigger: Document },
}

impl Task {
    async fn carry_out(&self, mut writes: Together<'_>) -> MongoResult<()> {
        match self {
            Self::Create { function, triggers } => create(&mut writes, function, triggers).await,
            Self::Delete { filter, expected_revision } => delete(&mut writes, filter, *expected_revision).await,
            Self::CreateTrigger { function, trigger } => {
                if !writes.touch_function(function.clone()).await? {
                    return Err(Refused::NotFound("function").error());
                }
                writes.insert_triggers(std::slice::from_ref(trigger)).await
            }
        }
    }
}

async fn create(writes: &mut Together<'_>, function: &Document, triggers: &[Document]) -> MongoResult<()> {
    if let Some(known) = writes.find_function(doc! { "_id": function.get("_id") }).await? {
        // The same call again, its first answer lost.
        let same = known.get("created_at") == function.get("created_at");
        return if same { Ok(()) } else { Err(Refused::Taken("id").error()) };
    }
    writes.insert_triggers(triggers).await?;
    match writes.insert(function).await {
        Err(error) if is_duplicate(&error) => {
            if writes.session.is_none() {
                let ids: Vec<_> = triggers.iter().filter_map(|trigger| trigger.get("_id")).collect();
                writes.delete_triggers(doc! { "_id": { "$in": ids } }).await?;
            }
            Err(Refused::Taken("name").error())
        }
        result => result,
    }
}

async fn delete(writes: &mut Together<'_>, filter: &Document, expected_revision: Option<i64>) -> MongoResult<()> {
    let mut condition = filter.clone();
    if let Some(revision) = expected_revision {
        condition.insert("revision", revision);
    }
    if !writes.delete_function(condition).await? {
        let known = writes.find_function(filter.clone()).await?;
        return Err(if known.is_some() { Refused::Stale } else { Refused::NotFound("function") }.error());
    }
    writes.delete_triggers(doc! { "function_id": filter.get("_id") }).await
}

fn revision(revision: u64) -> Result<i64> {
    i64::try_from(revision).map_err(|error| StoreError::Unexpected(Box::new(error)))
}

fn one(scope: &Scope, id: impl ToString) -> Document {
    let mut filter = within(scope);
    filter.insert("_id", id.to_string());
    filter
}

impl MongoStore {
    async fn together(&self, task: Task) -> Result<()> {
        let (functions, triggers) = (self.collection("functions"), self.collection("triggers"));
        if !self.has_transactions().await? {
            let writes = Together { functions: &functions, triggers: &triggers, session: None };
            return Ok(task.carry_out(writes).await?);
        }
        fn attempt<'a>(
            session: &'a mut ClientSession,
            (task, functions, triggers): &'a mut (Task, Collection<Document>, Collection<Document>),
        ) -> BoxFuture<'a, std::result::Result<(), Error>> {
            task.carry_out(Together { functions, triggers, session: Some(session) }).boxed()
        }
        let mut session = self.client.start_session().await?;
        session
            .start_transaction()
            .read_concern(ReadConcern::snapshot())
            .write_concern(durable(self.timeout))
            .and_run((task, functions, triggers), attempt)
            .await?;
        Ok(())
    }

    pub(super) async fn add_function(&self, function: &Function, triggers: &[Trigger]) -> Result<()> {
        let triggers = triggers.iter().map(document::write).collect::<Result<_>>()?;
        self.together(Task::Create { function: document::write(function)?, triggers }).await
    }

    pub(super) async fn get_function(&self, scope: &Scope, function: &FunctionRef) -> Result<Function> {
        let mut filter = within(scope);
        match function {
            FunctionRef::Id(id) => filter.insert("_id", id.to_string()),
            FunctionRef::Name(name) => filter.insert("name", name.as_str()),
        };
        let found = self.collection("functions").find_one(filter).await?;
        document::read(found.ok_or(StoreError::NotFound("function"))?)
    }

    pub(super) async fn list_functions(
        &self,
        scope: &Scope,
        filter: &FunctionFilter,
        page: &PageRequest<FunctionSort>,
    ) -> Result<Page<Function>> {
        let mut conditions = within(scope);
        if let Some(name) = &filter.name {
            conditions.insert("name", name.as_str());
        }
        if let Some(runtime) = &filter.runtime {
            conditions.insert("runtime", runtime);
        }
        let sort = match page.sort {
            FunctionSort::CreatedAt => "created_at",
            FunctionSort::UpdatedAt => "updated_at",
            FunctionSort::Name => "name",
        };
        List { collection: self.collection("functions"), sort, bytes: |_| 0, timeout: self.timeout }
            .page(scope, conditions, page)
            .await
    }

    pub(super) async fn find_provisioned(&self, scope: &Scope) -> Result<Vec<Function>> {
        let mut filter = within(scope);
        filter.insert("provisioned_concurrency", doc! { "$exists": true });
        let found = self.collection("functions").find(filter).sort(doc! { "created_at": 1, "_id": 1 }).await?;
        let found: Vec<Document> = found.try_collect().await?;
        found.into_iter().map(document::read).collect()
    }

    pub(super) async fn put_function(&self, scope: &Scope, function: &Function, expected_revision: u64) -> Result<()> {
        let functions = self.collection("functions");
        let filter = one(scope, function.id);
        // A scope of all must not move a function to another project.
        let unchanged = doc! { "revision": revision(expected_revision)?, "project_id": function.project_id.as_str() };
        let condition = doc! { "$and": [filter.clone(), unchanged] };
        let replaced = functions.replace_one(condition, document::write(function)?).await;
        match replaced {
            Ok(result) if result.matched_count == 1 => return Ok(()),
            Ok(_) => {}
            Err(error) if is_duplicate(&error) => return Err(StoreError::Taken("name")),
            Err(error) => return Err(error.into()),
        }
        let known = functions.find_one(filter).await?.ok_or(StoreError::NotFound("function"))?;
        if document::read::<Function>(known)? == *function { Ok(()) } else { Err(StoreError::Stale) }
    }

    pub(super) async fn remove_function(&self, scope: &Scope, id: FunctionId, expected: Option<u64>) -> Result<()> {
        let expected_revision = expected.map(revision).transpose()?;
        self.together(Task::Delete { filter: one(scope, id), expected_revision }).await
    }

    pub(super) async fn add_trigger(&self, trigger: &Trigger) -> Result<()> {
        let function = one(&Scope::Project(trigger.project_id.clone()), trigger.function_id);
        self.together(Task::CreateTrigger { function, trigger: document::write(trigger)? }).await
    }

    pub(super) async fn get_trigger(&self, scope: &Scope, id: TriggerId) -> Result<Trigger> {
        let found = self.collection("triggers").find_one(one(scope, id)).await?;
        let trigger = document::read(found.ok_or(StoreError::NotFound("trigger"))?)?;
        self.with_function(vec![trigger]).await?.pop().ok_or(StoreError::NotFound("trigger"))
    }

    pub(super) async fn list_triggers(
        &self,
        scope: &Scope,
        filter: &TriggerFilter,
        page: &PageRequest<TriggerSort>,
    ) -> Result<Page<Trigger>> {
        let mut conditions = within(scope);
        if let Some(function) = filter.function_id {
            conditions.insert("function_id", function.to_string());
        }
        let sort = match page.sort {
            TriggerSort::CreatedAt => "created_at",
        };
        let list = List { collection: self.collection("triggers"), sort, bytes: |_| 0, timeout: self.timeout };
        let page = list.page(scope, conditions, page).await?;
        Ok(Page { items: self.with_function(page.items).await?, next: page.next })
    }

    pub(super) async fn remove_trigger(&self, scope: &Scope, id: TriggerId) -> Result<()> {
        let deleted = self.collection("triggers").delete_one(one(scope, id)).await?;
        if deleted.deleted_count == 1 { Ok(()) } else { Err(StoreError::NotFound("trigger")) }
    }

    pub(super) async fn all_triggers(&self, filter: Document) -> Result<Vec<Trigger>> {
        let triggers = self.collection("triggers").find(filter).sort(doc! { "created_at": 1, "_id": 1 }).await?;
        let triggers: Vec<Document> = triggers.try_collect().await?;
        self.with_function(triggers.into_iter().map(document::read).collect::<Result<_>>()?).await
    }

    /// Without those whose function is not there, where a crash between two writes can have left some.
    pub(super) async fn with_function(&self, mut triggers: Vec<Trigger>) -> Result<Vec<Trigger>> {
        if triggers.is_empty() || self.has_transactions().await? {
            return Ok(triggers);
        }
        let ids: HashSet<String> = triggers.iter().map(|trigger| trigger.function_id.to_string()).collect();
        let ids: Vec<String> = ids.into_iter().collect();
        let known =
            self.collection("functions").find(doc! { "_id": { "$in": ids } }).projection(doc! { "_id": 1 }).await?;
        let known: Vec<Document> = known.try_collect().await?;
        let known: HashSet<&str> = known.iter().filter_map(|found| found.get_str("_id").ok()).collect();
        triggers.retain(|trigger| known.contains(trigger.function_id.to_string().as_str()));
        Ok(triggers)
    }
}
