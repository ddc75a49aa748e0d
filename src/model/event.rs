//! One CloudEvents 1.0 JSON object, and the shorter shapes that are accepted and completed to one.

use serde_json::{Map, Value, json};

use super::{Invalid, Payload, ProjectId, Timestamp};

/// Largest event, in bytes: Zaqar's limit for a whole post request.
pub const EVENT_MAX_BYTES: usize = 256 * 1024;

/// Longest required attribute, in bytes.
const ATTRIBUTE_MAX: usize = 1024;

/// The extension attribute that names the project whose triggers an event on the platform queue is for.
pub const PROJECT_ATTRIBUTE: &str = "projectid";

/// The type of an event that is a message of a project's own queue which is no CloudEvent.
pub const MESSAGE_TYPE: &str = "zaqar.message";

/// The extension attribute in which the service signs what it posts to the platform queue.
pub const SIGNATURE_ATTRIBUTE: &str = "lambdasignature";

/// A CloudEvent that is known to have the required attributes.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    object: Map<String, Value>,
    project: Option<ProjectId>,
}

impl Event {
    /// Reads a message body. Accepted: a CloudEvent; `{"source","type","data"}` alone, completed with `fallback_id` as
    /// id; and the shape of the first prototype, `{"user_name","event_source","event_data":{"type",…}}`, in which the
    /// user's name is the project.
    ///
    /// # Errors
    /// When the body is not an object or an attribute is missing or of the wrong type.
    pub fn from_value(body: Value, fallback_id: &str) -> Result<Self, Invalid> {
        let Value::Object(mut object) = body else {
            return Err(Invalid::new("event", "must be a JSON object"));
        };
        if object.contains_key("event_source") || object.contains_key("event_data") {
            object = from_prototype(object)?;
        }
        object.entry("specversion").or_insert_with(|| "1.0".into());
        object.entry("id").or_insert_with(|| fallback_id.into());
        Self::from_object(object)
    }

    /// Reads a message of a project's own queue, where any JSON is welcome: a CloudEvent that says so (`specversion`) is
    /// taken as it is, everything else is wrapped in one of type [`MESSAGE_TYPE`]. Either is an event of `project`,
    /// whatever the message says: who can post to the queue is of that project.
    #[must_use]
    pub fn from_own_queue(body: Value, queue: &str, message_id: &str, project: &ProjectId) -> Self {
        let as_it_is = match &body {
            Value::Object(object) if object.contains_key("specversion") => Self::from_object(object.clone()).ok(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                None
            }
        };
        let event = as_it_is.unwrap_or_else(|| {
            let mut object = Map::new();
            for (name, value) in [
                ("specversion", "1.0"),
                ("id", message_id),
                ("source", &format!("zaqar:{queue}")),
                ("type", MESSAGE_TYPE),
                ("datacontenttype", "application/json"),
            ] {
                object.insert(name.to_owned(), value.into());
            }
            object.insert("data".to_owned(), body);
            Self { object, project: None }
        });
        event.for_project(project)
    }

    /// Takes an attribute out.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        self.object.remove(name)
    }

    /// Sets an attribute that the service adds by itself.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.object.insert(name.to_owned(), value.into());
        self
    }

    fn from_object(object: Map<String, Value>) -> Result<Self, Invalid> {
        for name in ["specversion", "id", "source", "type"] {
            let text = text_attribute(&object, name)?.ok_or_else(|| Invalid::new(name, "is required"))?;
            if text.is_empty() || text.len() > ATTRIBUTE_MAX || text.contains(char::is_control) {
                return Err(Invalid::new(name, "must be 1 to 1024 bytes without control characters"));
            }
        }
        if object.get("specversion") != Some(&Value::from("1.0")) {
            return Err(Invalid::new("specversion", "must be \"1.0\""));
        }
        for name in ["subject", "dataschema", "datacontenttype"] {
            text_attribute(&object, name)?;
        }
        if let Some(time) = text_attribute(&object, "time")? {
            time.parse::<Timestamp>().map_err(|invalid| Invalid::new("time", invalid.reason))?;
        }
        if object.contains_key("data") && object.contains_key("data_base64") {
            return Err(Invalid::new("data_base64", "must not stand beside data"));
        }
        if let Some(name) = object.keys().find(|name| !is_attribute_name(name)) {
            let shown: String = name.chars().take(64).collect();
            return Err(Invalid::new(
                "event",
                format!("'{}' is not an attribute's name: lower-case letters and digits only", shown.escape_debug()),
            ));
        }
        let project = text_attribute(&object, PROJECT_ATTRIBUTE)?
            .map(|text| ProjectId::parse(text).map_err(|invalid| Invalid::new(PROJECT_ATTRIBUTE, invalid.reason)))
            .transpose()?;
        Ok(Self { object, project })
    }

    /// Names the project the event is for; what the API does with each event it posts on.
    #[must_use]
    pub fn for_project(mut self, project: &ProjectId) -> Self {
        self.object.insert(PROJECT_ATTRIBUTE.to_owned(), project.as_str().into());
        self.project = Some(project.clone());
        self
    }

    /// The project that the event names, if it does.
    #[must_use]
    pub const fn project(&self) -> Option<&ProjectId> {
        self.project.as_ref()
    }

    /// Its id, unique within its source.
    #[must_use]
    pub fn id(&self) -> &str {
        self.text("id")
    }

    /// Where it happened.
    #[must_use]
    pub fn source(&self) -> &str {
        self.text("source")
    }

    /// What happened.
    #[must_use]
    pub fn event_type(&self) -> &str {
        self.text("type")
    }

    /// What it happened to.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.object.get("subject").and_then(Value::as_str)
    }

    /// The value at a dotted path, beginning with an attribute's name.
    #[must_use]
    pub fn at(&self, path: &str) -> Option<&Value> {
        let mut steps = path.split('.');
        let first = self.object.get(steps.next()?)?;
        steps.try_fold(first, |value, step| match value {
            Value::Object(object) => object.get(step),
            Value::Array(items) => items.get(step.parse::<usize>().ok()?),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        })
    }

    /// The whole object.
    #[must_use]
    pub const fn object(&self) -> &Map<String, Value> {
        &self.object
    }

    /// What a handler gets: the CloudEvent as JSON.
    #[must_use]
    pub fn payload(&self) -> Payload {
        Payload::from_value(&Value::Object(self.object.clone()))
    }

    fn text(&self, name: &str) -> &str {
        self.object.get(name).and_then(Value::as_str).unwrap_or_default()
    }
}

fn is_attribute_name(name: &str) -> bool {
    // `data_base64` is a member of the JSON format, not an attribute, and the only one with an underscore.
    name == "data_base64"
        || (!name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()) && name.len() <= 64)
}

fn text_attribute<'a>(object: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Invalid> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Err(Invalid::new(name, "must be a string"))
        }
    }
}

fn from_prototype(object: Map<String, Value>) -> Result<Map<String, Value>, Invalid> {
    let source = object.get("event_source").cloned().ok_or_else(|| Invalid::new("event_source", "is required"))?;
    let data = match object.get("event_data") {
        Some(Value::Object(data)) => data.clone(),
        Some(_) => return Err(Invalid::new("event_data", "must be an object")),
        None => return Err(Invalid::new("event_data", "is required")),
    };
    let event_type = data.get("type").cloned().ok_or_else(|| Invalid::new("event_data.type", "is required"))?;
    let mut event = Map::new();
    event.insert("source".to_owned(), source);
    event.insert("type".to_owned(), event_type);
    event.insert("datacontenttype".to_owned(), json!("application/json"));
    event.insert("data".to_owned(), Value::Object(data));
    if let Some(user) = object.get("user_name") {
        event.insert(PROJECT_ATTRIBUTE.to_owned(), user.clone());
    }
    Ok(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_shape_is_completed() {
        let event = Event::from_value(json!({"source": "s", "type": "t", "data": 1}), "m7").unwrap();
        assert_eq!((event.id(), event.source(), event.event_type()), ("m7", "s", "t"));
        assert_eq!(event.object()["specversion"], "1.0");
    }

    #[test]
    fn the_prototype_shape_names_its_project() {
        let body =
            json!({"user_name": "alice", "event_source": "swift", "event_data": {"type": "created", "name": "a"}});
        let event = Event::from_value(body, "m1").unwrap();
        assert_eq!(event.project().map(ProjectId::as_str), Some("alice"));
        assert_eq!((event.source(), event.event_type()), ("swift", "created"));
        assert_eq!(event.at("data.name"), Some(&json!("a")));
    }

    #[test]
    fn a_message_of_an_own_queue_is_an_event_whatever_it_is() {
        let project = ProjectId::parse("p1").unwrap();
        let read = |body: Value| Event::from_own_queue(body, "orders", "m1", &project);
        let cloud = json!({"specversion": "1.0", "id": "1", "source": "shop", "type": "order", "projectid": "other"});
        assert_eq!((read(cloud.clone()).id(), read(cloud.clone()).source()), ("1", "shop"));
        assert_eq!(read(cloud).project(), Some(&project));
        for body in [
            json!(null),
            json!(7),
            json!("x"),
            json!([1]),
            json!({"order": 1}),
            json!({"source": "shop", "type": "order"}),
            json!({"specversion": "1.0", "Bad-Name": 1}),
            json!({"specversion": "0.3", "id": "1", "source": "shop", "type": "order"}),
        ] {
            let event = read(body.clone());
            assert_eq!((event.id(), event.source(), event.event_type()), ("m1", "zaqar:orders", MESSAGE_TYPE));
            assert_eq!((event.at("data"), event.project()), (Some(&body), Some(&project)));
            // What a handler gets is an event that anybody would take.
            let written: Value = serde_json::from_slice(event.payload().bytes()).unwrap();
            assert_eq!(Event::from_value(written, "").unwrap(), event);
        }
    }

    #[test]
    fn what_is_no_event_says_why() {
        for (body, field) in [
            (json!([]), "event"),
            (json!("x"), "event"),
            (Value::Null, "event"),
            (json!({}), "source"),
            (json!({"source": "s"}), "type"),
            (json!({"source": 1, "type": "t"}), "source"),
            (json!({"source": "", "type": "t"}), "source"),
            (json!({"source": "s", "type": "t", "specversion": "0.3"}), "specversion"),
            (json!({"source": "s", "type": "t", "time": "yesterday"}), "time"),
            (json!({"source": "s", "type": "t", "data": 1, "data_base64": "AA=="}), "data_base64"),
            (json!({"source": "s", "type": "t", "projectid": "a/b"}), "projectid"),
            (json!({"source": "s", "type": "t", "Bad-Name": 1}), "event"),
            (json!({"event_source": "s"}), "event_data"),
            (json!({"event_source": "s", "event_data": {}}), "event_data.type"),
            (json!({"event_data": {"type": "t"}}), "event_source"),
        ] {
            assert_eq!(Event::from_value(body.clone(), "m").unwrap_err().field, field, "{body}");
        }
    }
}
