//! What the text of an option must look like, and what options must be to each other.

use std::fmt;
use std::net::SocketAddr;

use super::{Config, Group as _};

/// What a text must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// An IP address and a port. No names: instances resolve none.
    Address,
    /// An http or https address without query.
    HttpUrl,
    /// Where the database is; empty where the program knows by itself.
    Connection,
    /// A queue's name, as Zaqar allows it.
    QueueName,
    /// A word without space in it.
    Word,
    /// A path.
    Path,
    /// `module=LEVEL`, or a LEVEL for all modules.
    ModuleLevel,
}

impl Form {
    /// Whether a text is of this form.
    #[must_use]
    pub fn accepts(self, text: &str) -> bool {
        match self {
            Self::OneOf(words) => words.contains(&text),
            Self::Address => text.parse::<SocketAddr>().is_ok(),
            Self::HttpUrl => http_url(text),
            Self::Connection => text.is_empty() || connection(text),
            Self::QueueName => {
                (1..=64).contains(&text.len())
                    && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
            }
            Self::Word => {
                !text.is_empty() && text.len() <= 255 && !text.chars().any(|c| c.is_whitespace() || c.is_control())
            }
            Self::Path => !text.is_empty() && !text.contains('\0'),
            Self::ModuleLevel => match text.split_once('=') {
                Some((module, level)) => {
                    !module.is_empty()
                        && module.chars().all(|c| c.is_ascii_alphanumeric() || "_.:-".contains(c))
                        && level_of(level).is_some()
                }
                None => level_of(text).is_some(),
            },
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OneOf(words) => return write!(f, "one of {}", words.join(", ")),
            Self::Address => "an IP address and a port, such as 127.0.0.1:9070",
            Self::HttpUrl => "an address such as http://host:port, without query or user",
            Self::Connection => "empty, mongodb://host[:port][,…]/database or sqlite:///absolute/path",
            Self::QueueName => "a queue's name: 1 to 64 letters, digits, - and _",
            Self::Word => "a word of at most 255 characters, without space",
            Self::Path => "a path",
            Self::ModuleLevel => "module=LEVEL, the level being DEBUG, INFO, WARNING, ERROR or CRITICAL",
        })
    }
}

/// A level by the name that Python or Rust has for it; CRITICAL is told apart by nobody and counts as ERROR.
#[must_use]
pub fn level_of(name: &str) -> Option<tracing::Level> {
    match name.trim().to_ascii_uppercase().as_str() {
        "TRACE" => Some(tracing::Level::TRACE),
        "DEBUG" => Some(tracing::Level::DEBUG),
        "INFO" => Some(tracing::Level::INFO),
        "WARN" | "WARNING" => Some(tracing::Level::WARN),
        "ERROR" | "CRITICAL" | "FATAL" => Some(tracing::Level::ERROR),
        _ => None,
    }
}

fn http_url(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) else { return false };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let unfit = |c: char| c.is_whitespace() || c.is_control() || "?#@\"<>\\".contains(c);
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            if port.parse::<u16>().is_err() {
                return false;
            }
            host
        }
        _ => authority,
    };
    !host.is_empty() && !authority.contains(unfit) && !path.contains(unfit)
}

fn connection(text: &str) -> bool {
    if let Some(path) = text.strip_prefix("sqlite://") {
        return path.starts_with('/') && path.len() > 1;
    }
    let rest = text.strip_prefix("mongodb://").or_else(|| text.strip_prefix("mongodb+srv://"));
    let Some((hosts, database)) = rest.and_then(|rest| rest.split_once('/')) else { return false };
    let database = database.split('?').next().unwrap_or_default();
    !hosts.is_empty() && !database.is_empty() && !text.contains(char::is_whitespace)
}

/// An option whose value does not go with another's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The group of the option to change.
    pub group: &'static str,
    /// The option to change.
    pub option: &'static str,
    /// What it has to be.
    pub expected: String,
}

/// What each option allows, but all of them together do not.
#[must_use]
pub fn conflicts(config: &Config) -> Vec<Conflict> {
    let Config { api, worker, zaqar, standalone, .. } = config;
    let mut found = Vec::new();
    let mut require = |holds: bool, group, option, expected: String| {
        if !holds {
            found.push(Conflict { group, option, expected });
        }
    };
    require(
        api.default_limit <= api.max_limit,
        super::ApiOptions::GROUP,
        "default_limit",
        format!("at most max_limit, which is {}", api.max_limit),
    );
    let group = super::WorkerOptions::GROUP;
    require(
        worker.dead_after > 2.0 * worker.heartbeat_interval,
        group,
        "dead_after",
        // One beat may be late; a worker must not be declared dead for it.
        format!("more than twice heartbeat_interval, which is {}", worker.heartbeat_interval),
    );
    require(
        worker.retry_base <= worker.retry_max,
        group,
        "retry_base",
        format!("at most retry_max, which is {}", worker.retry_max),
    );
    require(
        worker.max_running_per_project <= worker.max_running,
        group,
        "max_running_per_project",
        format!("at most max_running, which is {}", worker.max_running),
    );
    let address = |text: &str| text.parse::<SocketAddr>().ok();
    let is_open = |address: &SocketAddr| address.ip().is_unspecified();
    let advertised = worker.gateway_advertise.as_deref().and_then(address);
    require(
        advertised.is_none_or(|address| !is_open(&address) && address.port() != 0),
        group,
        "gateway_advertise",
        "an address that others can dial, neither 0.0.0.0 nor [::] nor port 0".to_owned(),
    );
    require(
        advertised.is_some() || !address(&worker.gateway_bind).is_some_and(|address| is_open(&address)),
        group,
        "gateway_advertise",
        format!("set, because nobody can dial gateway_bind, which is {}", worker.gateway_bind),
    );
    let group = super::ZaqarOptions::GROUP;
    require(
        zaqar.poll_min_ms <= zaqar.poll_max_ms,
        group,
        "poll_min_ms",
        format!("at most poll_max_ms, which is {}", zaqar.poll_max_ms),
    );
    require(
        zaqar.queue_poll_min_ms <= zaqar.queue_poll_max_ms,
        group,
        "queue_poll_min_ms",
        format!("at most queue_poll_max_ms, which is {}", zaqar.queue_poll_max_ms),
    );
    require(
        zaqar.dead_letter_queue != zaqar.queue,
        group,
        "dead_letter_queue",
        // Dead letters would be taken as events, and die again, for ever.
        "another queue than the option queue names".to_owned(),
    );
    require(
        !zaqar.endpoint_override.as_deref().is_some_and(|url| url.trim_end_matches('/').ends_with("/v2")),
        group,
        "endpoint_override",
        "the address without /v2, which is added to it".to_owned(),
    );
    for (option, expected) in service_auth_gaps(&config.service_auth) {
        require(false, super::ServiceAuthOptions::GROUP, option, expected);
    }
    if api.auth_strategy == "keystone" {
        let asking = config.keystone_authtoken.over(&config.service_auth);
        require(
            asking.has_keystone(),
            super::ApiOptions::GROUP,
            "auth_strategy",
            "noauth, unless [keystone_authtoken] or [service_auth] has an auth_type".to_owned(),
        );
        if config.keystone_authtoken.auth_type.is_some() {
            for (option, expected) in service_auth_gaps(&asking) {
                require(false, super::KeystoneAuthtokenOptions::GROUP, option, expected);
            }
        }
    }
    let ephemeral = standalone.queue_bind.ends_with(":0");
    require(
        ephemeral || standalone.api_bind != standalone.queue_bind,
        super::StandaloneOptions::GROUP,
        "queue_bind",
        "another address than api_bind".to_owned(),
    );
    found
}

/// What is missing for the way to authenticate that was chosen.
fn service_auth_gaps(auth: &super::ServiceAuthOptions) -> Vec<(&'static str, String)> {
    let kind = auth.auth_type.as_str();
    if !auth.has_keystone() {
        return Vec::new();
    }
    let has = |option: &Option<String>| option.as_ref().is_some_and(|text| !text.is_empty());
    let is_credential = kind == "v3applicationcredential";
    let has_user = has(&auth.username) || has(&auth.user_id);
    let set = |other: &str| match other {
        "" => format!("set, because auth_type is {kind}"),
        other => format!("set, or {other}, because auth_type is {kind}"),
    };
    let named = has(&auth.application_credential_name);
    let mut gaps = Vec::new();
    let mut require = |holds: bool, option, expected: String| {
        if !holds {
            gaps.push((option, expected));
        }
    };
    require(has(&auth.auth_url), "auth_url", set(""));
    require(is_credential || has_user, "username", set("user_id"));
    require(is_credential || has(&auth.password), "password", set(""));
    require(is_credential || has(&auth.project_name) || has(&auth.project_id), "project_name", set("project_id"));
    require(
        !is_credential || has(&auth.application_credential_id) || named,
        "application_credential_id",
        set("application_credential_name with username or user_id"),
    );
    require(!is_credential || has(&auth.application_credential_secret), "application_credential_secret", set(""));
    require(!is_credential || has(&auth.application_credential_id) || !named || has_user, "username", set("user_id"));
    require(!has(&auth.keyfile) || has(&auth.certfile), "certfile", "set, because keyfile is".to_owned());
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_tell_good_from_bad() {
        let table: [(Form, &[&str], &[&str]); 8] = [
            (Form::OneOf(&["a", "b"]), &["a", "b"], &["", "c", "A"]),
            (Form::Address, &["127.0.0.1:0", "[::]:80"], &["localhost:80", "127.0.0.1", ":80", "1.2.3.4:70000"]),
            (
                Form::HttpUrl,
                &["http://a", "https://a.b:443/function", "http://[::1]:8888/", "http://[::1]"],
                &["", "a", "ftp://a", "http://", "http://:80", "http://a:x", "http://u@a", "http://a/?q", "http://a b"],
            ),
            (
                Form::Connection,
                &["", "sqlite:///x", "mongodb://h/d", "mongodb://u:p@h:1,i:2/d?replicaSet=r", "mongodb+srv://h/d"],
                &["sqlite://x", "sqlite:///", "mongodb://h", "mongodb://h/", "mongodb:///d", "mysql://h/d"],
            ),
            (Form::QueueName, &["lambda-events", "A_1"], &["", "a b", "a/b", "é", &"q".repeat(65)]),
            (Form::Word, &["demo", "d\u{e9}mo"], &["", "a b", "a\u{7}"]),
            (Form::Path, &["x", "/x y"], &["", "a\0b"]),
            (
                Form::ModuleLevel,
                &["a.b=INFO", "a::b=debug", "WARNING", "x-y=CRITICAL"],
                &["", "=INFO", "a=", "a=LOUD", "a b=INFO"],
            ),
        ];
        for (form, good, bad) in table {
            for text in good {
                assert!(form.accepts(text), "{form:?} refuses {text:?}");
            }
            for text in bad {
                assert!(!form.accepts(text), "{form:?} accepts {text:?}");
            }
        }
    }

    #[test]
    fn the_defaults_go_together() {
        assert_eq!(conflicts(&Config::default()), []);
    }

    #[test]
    fn what_is_missing_to_authenticate_is_found() {
        let given = |values: &[(&str, &str)]| {
            let mut auth = super::super::ServiceAuthOptions::default();
            for (option, value) in values {
                if *option == "auth_type" {
                    (*value).clone_into(&mut auth.auth_type);
                    continue;
                }
                let value = Some((*value).to_owned());
                match *option {
                    "auth_url" => auth.auth_url = value,
                    "username" => auth.username = value,
                    "user_id" => auth.user_id = value,
                    "password" => auth.password = value,
                    "project_id" => auth.project_id = value,
                    "application_credential_id" => auth.application_credential_id = value,
                    "application_credential_name" => auth.application_credential_name = value,
                    "application_credential_secret" => auth.application_credential_secret = value,
                    "keyfile" => auth.keyfile = value,
                    other => panic!("{other}"),
                }
            }
            service_auth_gaps(&auth).into_iter().map(|(option, _)| option).collect::<Vec<_>>()
        };
        let url = ("auth_url", "http://k/v3");
        let password = ("auth_type", "password");
        let credential = ("auth_type", "v3applicationcredential");
        let secret = ("application_credential_secret", "s");
        assert_eq!(given(&[]), [""; 0]);
        assert_eq!(given(&[("keyfile", "ignored without Keystone")]), [""; 0]);
        assert_eq!(given(&[password]), ["auth_url", "username", "password", "project_name"]);
        let whole = [password, url, ("user_id", "u"), ("password", "p"), ("project_id", "p")];
        assert_eq!(given(&whole), [""; 0]);
        assert_eq!(given(&[whole.as_slice(), &[("keyfile", "k")]].concat()), ["certfile"]);
        assert_eq!(given(&[credential]), ["auth_url", "application_credential_id", "application_credential_secret"]);
        assert_eq!(given(&[credential, url, secret, ("application_credential_id", "i")]), [""; 0]);
        assert_eq!(given(&[credential, url, secret, ("application_credential_name", "n")]), ["username"]);
    }

    #[test]
    fn each_conflict_is_found() {
        type Change = fn(&mut Config);
        let changes: [(&str, Change); 11] = [
            ("default_limit", |c| c.api.default_limit = c.api.max_limit + 1),
            ("dead_after", |c| c.worker.dead_after = 2.0 * c.worker.heartbeat_interval),
            ("retry_base", |c| c.worker.retry_base = c.worker.retry_max + 1.0),
            ("max_running_per_project", |c| c.worker.max_running_per_project = c.worker.max_running + 1),
            ("gateway_advertise", |c| c.worker.gateway_advertise = Some("0.0.0.0:9071".to_owned())),
            ("gateway_advertise", |c| c.worker.gateway_bind = "0.0.0.0:9071".to_owned()),
            ("poll_min_ms", |c| c.zaqar.poll_min_ms = c.zaqar.poll_max_ms + 1),
            ("queue_poll_min_ms", |c| c.zaqar.queue_poll_min_ms = c.zaqar.queue_poll_max_ms + 1),
            ("dead_letter_queue", |c| c.zaqar.dead_letter_queue = c.zaqar.queue.clone()),
            ("endpoint_override", |c| c.zaqar.endpoint_override = Some("http://z/v2/".to_owned())),
            ("queue_bind", |c| c.standalone.queue_bind = c.standalone.api_bind.clone()),
        ];
        for (option, change) in changes {
            let mut config = Config::default();
            change(&mut config);
            let found: Vec<_> = conflicts(&config).into_iter().map(|conflict| conflict.option).collect();
            assert_eq!(found, [option]);
        }
    }
}
