//! An event of `tracing` as one line: oslo.log's, or a JSON object.
//!
//! The context of a request comes from the fields `request_id`, `global_request_id`, `user_id` and `project_id` of the
//! event or, failing that, of the innermost span that has them. All other fields follow the message, those of the event
//! first. A line is one line: control characters are escaped, so that nobody can forge another one.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use chrono::{DateTime, Local, Utc};
use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_log::NormalizeEvent as _;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::output::Output;
use crate::model::Timestamp;

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// `%(asctime)s.%(msecs)03d %(process)d %(levelname)s %(name)s [context] message key=value…`
    Oslo,
    /// One JSON object.
    Json,
}

/// Writes every event that reaches it.
#[derive(Debug)]
pub(crate) struct LineLayer {
    pub(super) format: Format,
    pub(super) output: Arc<Output>,
}

/// Names and values in the order they were given.
#[derive(Clone, Debug, Default)]
struct Fields {
    message: Option<String>,
    rest: Vec<(&'static str, Value)>,
}

impl Fields {
    fn set(&mut self, name: &'static str, value: Value) {
        match self.rest.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => self.rest.push((name, value)),
        }
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.rest.iter().position(|(known, _)| *known == name)?;
        let value = self.rest.remove(at).1;
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = Some(format!("{value:?}"));
        } else {
            self.set(field.name(), Value::String(format!("{value:?}")));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message = Some(value.to_owned());
        } else {
            self.set(field.name(), Value::String(value.to_owned()));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field.name(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field.name(), value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.set(field.name(), Value::String(crate::task::chain(value)));
    }
}

impl<S> Layer<S> for LineLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        // Records of the `log` crate carry where they come from in fields of their own.
        fields.rest.retain(|(name, _)| !name.starts_with("log."));
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                for (name, value) in &outer.rest {
                    if !fields.rest.iter().any(|(known, _)| known == name) {
                        fields.rest.push((name, value.clone()));
                    }
                }
            }
        }
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        let entry = Entry::new(crate::clock::now(), *metadata.level(), metadata.target(), fields);
        self.output.write(entry.written(self.format).as_bytes());
    }
}

/// All that a line says.
struct Entry<'a> {
    at: Timestamp,
    level: &'static str,
    name: &'a str,
    context: [(&'static str, Option<String>); 4],
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl<'a> Entry<'a> {
    fn new(at: Timestamp, level: Level, name: &'a str, mut fields: Fields) -> Self {
        let context =
            ["global_request_id", "request_id", "user_id", "project_id"].map(|name| (name, fields.take(name)));
        Self {
            at,
            level: level_name(level),
            name,
            context,
            message: fields.message.unwrap_or_default(),
            fields: fields.rest,
        }
    }

    fn written(&self, format: Format) -> String {
        let mut text = match format {
            Format::Oslo => self.oslo(),
            Format::Json => self.json().to_string(),
        };
        text.push('\n');
        text
    }

    fn oslo(&self) -> String {
        let at = DateTime::<Utc>::from_timestamp_millis(self.at.as_millis()).unwrap_or_default().with_timezone(&Local);
        let mut text =
            format!("{} {} {} {} [", at.format("%Y-%m-%d %H:%M:%S%.3f"), std::process::id(), self.level, self.name);
        if self.context.iter().all(|(_, value)| value.is_none()) {
            text.push('-');
        } else {
            for (index, (_, value)) in self.context.iter().enumerate() {
                // oslo.log writes None for a global request id that is not there, and - for all else.
                let absent = if index == 0 { "None" } else { "-" };
                plain(&mut text, value.as_deref().unwrap_or(absent));
                text.push(' ');
            }
            // Domain, system scope, user's domain, project's domain.
            text.push_str("- - - -");
        }
        text.push_str("] ");
        plain(&mut text, &self.message);
        for (name, value) in &self.fields {
            let _ = write!(text, " {name}=");
            let Some(value) = value.as_str() else {
                let _ = write!(text, "{value}");
                continue;
            };
            if value.is_empty() || value.contains([' ', '"', '=']) {
                text.push('"');
                plain(&mut text, &value.replace('\\', "\\\\").replace('"', "\\\""));
                text.push('"');
            } else {
                plain(&mut text, value);
            }
        }
        text
    }

    fn json(&self) -> Value {
        let present =
            self.context.iter().filter_map(|(name, value)| Some(((*name).to_owned(), json!(value.as_ref()?))));
        let fields: Map<_, _> = self.fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        json!({
            "timestamp": self.at.to_string(),
            "process": std::process::id(),
            "level": self.level,
            "name": self.name,
            "context": Value::Object(present.collect()),
            "message": self.message,
            "fields": fields,
        })
    }
}

/// The level as Python names it; oslo.log has TRACE too. There is no event of level CRITICAL: nothing is worse than
/// what someone must act upon.
const fn level_name(level: Level) -> &'static str {
    match level {
        Level::TRACE => "TRACE",
        Level::DEBUG => "DEBUG",
        Level::INFO => "INFO",
        Level::WARN => "WARNING",
        Level::ERROR => "ERROR",
    }
}

/// Appends a text with its control characters escaped.
fn plain(into: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
            into.extend(c.escape_default());
        } else {
            into.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(fields: &[(&'static str, Value)], message: &str) -> Entry<'static> {
        let fields = Fields { message: Some(message.to_owned()), rest: fields.to_vec() };
        Entry::new(Timestamp::from_millis(1_767_225_599_007), Level::WARN, "lambda_openstack::worker::intake", fields)
    }

    /// Without the time, which depends on the machine's zone, and the process.
    fn tail(entry: &Entry<'_>) -> String {
        let line = entry.written(Format::Oslo);
        line.split_once(" WARNING ").unwrap().1.to_owned()
    }

    #[test]
    fn a_line_begins_with_date_time_milliseconds_process_and_level() {
        let line = entry(&[], "hello").written(Format::Oslo);
        let (head, _) = line.split_once(" lambda_openstack").unwrap();
        let parts: Vec<_> = head.split(' ').collect();
        assert!(parts[0].len() == 10 && parts[1].len() == 12 && parts[1].ends_with(":59.007"), "{head}");
        assert_eq!(&parts[2..], [std::process::id().to_string().as_str(), "WARNING"]);
    }

    #[test]
    fn a_line_without_context_shows_a_dash() {
        assert_eq!(tail(&entry(&[], "hello")), "lambda_openstack::worker::intake [-] hello\n");
    }

    #[test]
    fn a_line_with_context_is_the_one_that_oslo_log_writes() {
        let fields = [("project_id", json!("p1")), ("request_id", json!("req-1")), ("user_id", json!("u1"))];
        // Taken from oslo.log 8.3.2 with its default formats.
        assert_eq!(tail(&entry(&fields, "m")), "lambda_openstack::worker::intake [None req-1 u1 p1 - - - -] m\n");
        let fields = [("request_id", json!("req-1")), ("global_request_id", json!("req-g"))];
        assert_eq!(tail(&entry(&fields, "m")), "lambda_openstack::worker::intake [req-g req-1 - - - - - -] m\n");
    }

    #[test]
    fn fields_follow_the_message_and_are_quoted_where_needed() {
        let fields =
            [("function.id", json!("f")), ("wait_ms", json!(1.5)), ("why", json!("a \"b\" c")), ("e", json!(""))];
        let want = "lambda_openstack::worker::intake [-] m function.id=f wait_ms=1.5 why=\"a \\\"b\\\" c\" e=\"\"\n";
        assert_eq!(tail(&entry(&fields, "m")), want);
    }

    #[test]
    fn a_message_cannot_forge_a_second_line() {
        let line = entry(&[("f", json!("x\ny"))], "a\n2026-01-01 00:00:00.000 1 ERROR \u{1b}[2J\u{2028}")
            .written(Format::Oslo);
        assert_eq!(line.matches('\n').count(), 1, "{line:?}");
        assert!(line.contains("a\\n2026") && line.contains("\\u{1b}") && line.contains("\\u{2028}"), "{line:?}");
    }

    #[test]
    fn json_keeps_types_and_puts_the_context_apart() {
        let line = entry(&[("request_id", json!("req-1")), ("count", json!(3))], "a\nb").written(Format::Json);
        assert_eq!(line.matches('\n').count(), 1);
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["timestamp"], "2025-12-31T23:59:59.007Z");
        assert_eq!(value["level"], "WARNING");
        assert_eq!(value["message"], "a\nb");
        assert_eq!(value["context"], json!({"request_id": "req-1"}));
        assert_eq!(value["fields"], json!({"count": 3}));
    }
}
