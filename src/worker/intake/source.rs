//! Where messages come from, what each of them is, and whose: the one place that decides what a message may say of its
//! project.

use serde_json::Value;

use crate::model::event::Event;
use crate::model::posting::{Poster, PostingKey};
use crate::model::trigger::queue::QueueKey;
use crate::model::{ExecutionId, FunctionId, ProjectId, Trigger};
use crate::openstack::zaqar::{self, Message};
use crate::telemetry::metrics::DeadLetterReason;

/// A queue that messages are taken from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The way to it.
    pub client: zaqar::Client,
    /// Its name.
    pub queue: String,
    /// Whose it is.
    pub kind: Kind,
}

/// Whose queue it is, and so what its messages may say.
#[derive(Clone, Debug)]
pub enum Kind {
    /// The platform's: events of all projects.
    Platform(Trust),
    /// A project's own: whatever lies there is that project's.
    Own(QueueKey),
}

/// Who may name a project on the platform queue.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Whoever can post there.
    Everybody {
        /// Project of events that name none.
        default_project: ProjectId,
    },
    /// The service only.
    Signed {
        /// What it signs with.
        key: PostingKey,
        /// Project of everybody else's messages, whatever they say; none: they become dead letters.
        unsigned_project: Option<ProjectId>,
    },
}

/// A message that is an event of a project.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The event.
    pub event: Event,
    /// Whose it is.
    pub project: ProjectId,
    /// What makes it the same as another one: see [`Reading::execution_id`].
    identity: (String, String),
}

impl Reading {
    /// The execution that it is for a function: the same whenever this message, or a copy of this post, is read.
    pub fn execution_id(&self, function: FunctionId) -> ExecutionId {
        ExecutionId::derive(&self.identity.0, &self.identity.1, function)
    }
}

impl Source {
    /// What a message is; or why it is no event of anybody's.
    pub fn read(&self, message: &Message) -> Result<Reading, (DeadLetterReason, String)> {
        match &self.kind {
            Kind::Platform(trust) => self.read_platform(message, trust),
            Kind::Own(key) => Ok(Reading {
                event: Event::from_own_queue(message.body.clone(), &self.queue, &message.id, &key.project_id),
                project: key.project_id.clone(),
                identity: (key.to_string(), message.id.clone()),
            }),
        }
    }

    fn read_platform(&self, message: &Message, trust: &Trust) -> Result<Reading, (DeadLetterReason, String)> {
        let mut event = read_event(&message.body, &message.id)?;
        let by_message = (self.queue.clone(), message.id.clone());
        match trust {
            Trust::Everybody { default_project } => {
                let project = event.project().unwrap_or(default_project).clone();
                Ok(Reading { event, project, identity: by_message })
            }
            Trust::Signed { key, unsigned_project } => match (key.verify(&mut event), event.project().cloned()) {
                (Poster::Service(post), Some(project)) => {
                    // By the post and not by the message: a copy of it runs nothing again.
                    let identity = (format!("{}/posts", self.queue), post);
                    Ok(Reading { event, project, identity })
                }
                (Poster::Service(_) | Poster::Unknown, _) => match unsigned_project {
                    Some(project) => {
                        let event = event.for_project(project);
                        Ok(Reading { event, project: project.clone(), identity: by_message })
                    }
                    None => Err((
                        DeadLetterReason::UntrustedPoster,
                        "the service has not posted it; post events through POST /v1/events".to_owned(),
                    )),
                },
            },
        }
    }

    /// Whether a trigger listens to this queue.
    pub fn feeds(&self, trigger: &Trigger) -> bool {
        match (&self.kind, trigger.queue_key()) {
            (Kind::Platform(_), key) => key.is_none(),
            (Kind::Own(own), key) => key.as_ref() == Some(own),
        }
    }

    /// Whether it is a project's own.
    pub const fn is_own(&self) -> bool {
        match self.kind {
            Kind::Platform(_) => false,
            Kind::Own(_) => true,
        }
    }
}

fn read_event(body: &Value, message_id: &str) -> Result<Event, (DeadLetterReason, String)> {
    Event::from_value(body.clone(), message_id).map_err(|invalid| (DeadLetterReason::InvalidEvent, invalid.to_string()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::model::trigger::queue::SourceQueue;
    use crate::openstack::{NoAuth, Session, SessionOptions};

    fn project(name: &str) -> ProjectId {
        ProjectId::parse(name).unwrap()
    }

    fn source(kind: Kind) -> Source {
        let auth = NoAuth::new("p", [(zaqar::SERVICE.name(), "http://127.0.0.1:1")]).unwrap();
        let session = Session::new(std::sync::Arc::new(auth), SessionOptions::default()).unwrap();
        Source { client: zaqar::Client::new(session), queue: "q".to_owned(), kind }
    }

    fn message(id: &str, body: Value) -> Message {
        let (age, ttl) = (Duration::ZERO, Duration::from_secs(60));
        Message { id: id.to_owned(), claim_id: "c".to_owned(), age, ttl, body }
    }

    fn signed(unsigned: Option<&str>) -> Source {
        let (key, unsigned_project) = (PostingKey::new("secret"), unsigned.map(project));
        source(Kind::Platform(Trust::Signed { key, unsigned_project }))
    }

    const NAMES_P2: &str = r#"{"id": "1", "source": "s", "type": "t", "projectid": "p2"}"#;

    #[test]
    fn where_everybody_is_trusted_an_event_names_its_project() {
        let source = source(Kind::Platform(Trust::Everybody { default_project: project("demo") }));
        let read = |body| source.read(&message("m1", body)).unwrap();
        assert_eq!(read(serde_json::from_str(NAMES_P2).unwrap()).project, project("p2"));
        assert_eq!(read(json!({"source": "s", "type": "t"})).project, project("demo"));
        assert_eq!(source.read(&message("m1", json!(1))).unwrap_err().0, DeadLetterReason::InvalidEvent);
    }

    #[test]
    fn where_only_the_service_is_trusted_nobody_else_names_a_project() {
        let unsigned = message("m1", serde_json::from_str(NAMES_P2).unwrap());
        assert_eq!(signed(None).read(&unsigned).unwrap_err().0, DeadLetterReason::UntrustedPoster);
        let reading = signed(Some("anybody")).read(&unsigned).unwrap();
        assert_eq!((&reading.project, reading.event.project()), (&project("anybody"), Some(&project("anybody"))));

        let event = Event::from_value(serde_json::from_str(NAMES_P2).unwrap(), "").unwrap();
        let posted = PostingKey::new("secret").sign(event.clone(), "post1");
        let body = Value::Object(posted.object().clone());
        let first = signed(None).read(&message("m1", body.clone())).unwrap();
        assert_eq!((first.project.clone(), first.event.clone()), (project("p2"), event));
        // Taken off the queue and posted again by somebody, it is no other event.
        let copy = signed(Some("anybody")).read(&message("m2", body)).unwrap();
        let function = FunctionId::generate();
        assert_eq!(copy.execution_id(function), first.execution_id(function));
    }

    #[test]
    fn what_lies_on_a_projects_queue_is_that_projects_whatever_it_says() {
        let key = QueueKey { project_id: project("p1"), queue: SourceQueue::parse("q").unwrap() };
        let own = source(Kind::Own(key));
        let body = json!({"specversion": "1.0", "id": "1", "source": "s", "type": "t", "projectid": "p2"});
        let reading = own.read(&message("m1", body.clone())).unwrap();
        assert_eq!((&reading.project, reading.event.project()), (&project("p1"), Some(&project("p1"))));
        let function = FunctionId::generate();
        let other = QueueKey { project_id: project("p3"), queue: SourceQueue::parse("q").unwrap() };
        let elsewhere = source(Kind::Own(other)).read(&message("m1", body)).unwrap();
        assert_ne!(reading.execution_id(function), elsewhere.execution_id(function));
    }
}
