//! Against a real cloud: Keystone and the services that it has in its catalog, as accounts whose `openrc` files the
//! environment names. The ordinary run leaves these out by name (`--skip cloud::`); asked for without a cloud they fail
//! and say so.

mod cli;
mod isolation;
mod keystone;
mod nova;
mod nova_main_job;
mod operator;
mod pools;
mod stack;
mod tokens;
mod zaqar;
mod zun;
mod zun_main_job;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lambda_openstack::openstack::keystone::{
    self as identity, Credentials, Domain, KeystoneAuth, KeystoneOptions, Named, Scope,
};
use lambda_openstack::openstack::{Observer, Session, SessionOptions, TlsOptions};

/// An account of the cloud: the variables of its `openrc`.
#[derive(Clone)]
pub struct Account {
    variables: BTreeMap<String, String>,
}

/// An ordinary user: a member of its project.
pub fn env() -> Account {
    Account::read("openrc")
}

/// The user that our service is: `member` and `service` in the service project.
pub fn service() -> Account {
    Account::read("openrc-service")
}

/// Where the cloud's files are.
pub fn directory() -> PathBuf {
    std::env::var_os("LAMBDA_TEST_CLOUD").map_or_else(|| PathBuf::from("target/cloud"), PathBuf::from)
}

/// Counts the requests for a token.
#[derive(Clone, Default)]
pub struct Count(Arc<AtomicUsize>);

impl Count {
    pub fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Counts what it observes.
    pub fn observer(&self) -> Observer {
        let count = self.0.clone();
        Arc::new(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        })
    }
}

impl Account {
    fn read(file: &str) -> Self {
        let path = directory().join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| {
            panic!(
                "{} cannot be read ({error}): these tests need a cloud. `make cloud-up` brings one up; LAMBDA_TEST_CLOUD \
                 names the directory of another's openrc, openrc-admin and openrc-service",
                path.display()
            )
        });
        Self { variables: variables(&text) }
    }

    /// The variable of this name.
    pub fn var(&self, name: &str) -> &str {
        self.variables.get(name).unwrap_or_else(|| panic!("the openrc says nothing of {name}"))
    }

    /// All of them, for a program's environment.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The user and its password.
    pub fn credentials(&self) -> Credentials {
        Credentials::Password { user: self.user(), password: self.var("OS_PASSWORD").to_owned() }
    }

    pub fn user(&self) -> Named {
        Named::Name(self.var("OS_USERNAME").to_owned(), Domain::Name(self.var("OS_USER_DOMAIN_NAME").to_owned()))
    }

    /// The project.
    pub fn scope(&self) -> Scope {
        let domain = Domain::Name(self.var("OS_PROJECT_DOMAIN_NAME").to_owned());
        Scope::Project(Named::Name(self.var("OS_PROJECT_NAME").to_owned(), domain))
    }

    /// How Keystone is reached as this account.
    pub fn options(&self) -> KeystoneOptions {
        KeystoneOptions {
            auth_url: self.var("OS_AUTH_URL").to_owned(),
            credentials: self.credentials(),
            scope: self.scope(),
            timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
            tls: TlsOptions::default(),
            observer: None,
        }
    }

    /// This account to Keystone.
    pub fn auth(&self) -> KeystoneAuth {
        KeystoneAuth::new(self.options()).unwrap()
    }

    /// How a session finds endpoints.
    pub fn session_options(&self) -> SessionOptions {
        SessionOptions { region: Some(self.var("OS_REGION_NAME").to_owned()), ..SessionOptions::default() }
    }

    /// A session as this account.
    pub fn session(&self) -> Session {
        Session::new(Arc::new(self.auth()), self.session_options()).unwrap()
    }

    /// Keystone as this account.
    pub fn keystone(&self) -> identity::Client {
        let auth = self.auth();
        let options = SessionOptions { endpoint: Some(auth.base().to_string()), ..self.session_options() };
        identity::Client::new(Session::new(Arc::new(auth.clone()), options).unwrap(), auth)
    }
}

/// What a shell would get from `export A=b C='d e'`.
fn variables(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let Some(assignments) = line.trim().strip_prefix("export ") else { continue };
        let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
        for c in assignments.chars() {
            match quote {
                Some(mark) if c == mark => quote = None,
                None if c == '\'' || c == '"' => quote = Some(c),
                None if c.is_whitespace() => words.push(std::mem::take(&mut word)),
                Some(_) | None => word.push(c),
            }
        }
        words.push(word);
        found.extend(words.iter().filter_map(|word| word.split_once('=')).map(|(a, b)| (a.to_owned(), b.to_owned())));
    }
    found
}

#[test]
fn an_openrc_is_read_as_a_shell_would() {
    let read = variables("# comment\nexport A=b C='d e' X=\"y=z\"\n\nexport EMPTY=\nnot this");
    let expected = [("A", "b"), ("C", "d e"), ("EMPTY", ""), ("X", "y=z")];
    assert!(read.iter().map(|(a, b)| (a.as_str(), b.as_str())).eq(expected));
}
