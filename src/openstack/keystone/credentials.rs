//! Who somebody is to Keystone and what for: the body of a request for a token.

use std::fmt;

use serde_json::{Value, json};

/// A user, project or what else has a name within a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// By its id.
    Id(String),
    /// By its name in a domain.
    Name(String, Domain),
}

/// A domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Domain {
    /// By its id.
    Id(String),
    /// By its name.
    Name(String),
}

/// What shows who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user's password.
    Password {
        /// The user.
        user: Named,
        /// The password.
        password: String,
    },
    /// An application credential; it has its project in itself.
    ApplicationCredential {
        /// Its id.
        id: String,
        /// Its secret.
        secret: String,
    },
    /// An application credential by its name.
    NamedApplicationCredential {
        /// Its name.
        name: String,
        /// Whose it is.
        user: Named,
        /// Its secret.
        secret: String,
    },
    /// A token. What is got for it lives no longer than it.
    Token(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => f.debug_struct("Password").field("user", user).finish_non_exhaustive(),
            Self::ApplicationCredential { id, .. } => {
                f.debug_struct("ApplicationCredential").field("id", id).finish_non_exhaustive()
            }
            Self::NamedApplicationCredential { name, user, .. } => f
                .debug_struct("NamedApplicationCredential")
                .field("name", name)
                .field("user", user)
                .finish_non_exhaustive(),
            Self::Token(_) => f.write_str("Token"),
        }
    }
}

/// What a token is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A project.
    Project(Named),
    /// What the trust of this id allows, in the name of who made it.
    Trust(String),
    /// Nothing but to ask Keystone for others.
    Unscoped,
}

impl Credentials {
    /// Whether the credentials have their project in themselves and take no other scope.
    #[must_use]
    pub const fn is_scoped(&self) -> bool {
        match self {
            Self::ApplicationCredential { .. } | Self::NamedApplicationCredential { .. } => true,
            Self::Password { .. } | Self::Token(_) => false,
        }
    }

    /// The body that asks for a token.
    pub(super) fn request(&self, scope: &Scope) -> Value {
        let (method, shown) = match self {
            Self::Password { user, password } => {
                let mut user = user.json();
                user["password"] = json!(password);
                ("password", json!({"user": user}))
            }
            Self::ApplicationCredential { id, secret } => {
                ("application_credential", json!({"id": id, "secret": secret}))
            }
            Self::NamedApplicationCredential { name, user, secret } => {
                ("application_credential", json!({"name": name, "user": user.json(), "secret": secret}))
            }
            Self::Token(token) => ("token", json!({"id": token})),
        };
        let mut auth = json!({"identity": {"methods": [method]}});
        auth["identity"][method] = shown;
        match scope {
            // An application credential with a scope is refused, even with the right one.
            Scope::Project(_) if self.is_scoped() => {}
            Scope::Project(project) => auth["scope"] = json!({"project": project.json()}),
            // No project beside it: that is the trust's.
            Scope::Trust(id) => auth["scope"] = json!({"OS-TRUST:trust": {"id": id}}),
            // Without a word Keystone would take the user's default project.
            Scope::Unscoped if self.is_scoped() => {}
            Scope::Unscoped => auth["scope"] = json!("unscoped"),
        }
        json!({"auth": auth})
    }
}

impl Named {
    fn json(&self) -> Value {
        match self {
            Self::Id(id) => json!({"id": id}),
            Self::Name(name, Domain::Id(domain)) => json!({"name": name, "domain": {"id": domain}}),
            Self::Name(name, Domain::Name(domain)) => json!({"name": name, "domain": {"name": domain}}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Named {
        Named::Name(name.to_owned(), Domain::Name("Default".to_owned()))
    }

    #[test]
    fn a_request_says_who_and_what_for() {
        let password = Credentials::Password { user: named("lambda"), password: "s".to_owned() };
        let project = Scope::Project(Named::Id("p".to_owned()));
        assert_eq!(
            password.request(&project),
            json!({"auth": {
                "identity": {"methods": ["password"], "password": {
                    "user": {"name": "lambda", "domain": {"name": "Default"}, "password": "s"}}},
                "scope": {"project": {"id": "p"}}}})
        );
        let trust = password.request(&Scope::Trust("t".to_owned()));
        assert_eq!(trust["auth"]["scope"], json!({"OS-TRUST:trust": {"id": "t"}}));
        assert_eq!(password.request(&Scope::Unscoped)["auth"]["scope"], "unscoped");
        let credential = Credentials::ApplicationCredential { id: "i".to_owned(), secret: "s".to_owned() };
        assert_eq!(
            credential.request(&project),
            json!({"auth": {"identity": {"methods": ["application_credential"],
                "application_credential": {"id": "i", "secret": "s"}}}})
        );
        let credential =
            Credentials::NamedApplicationCredential { name: "n".to_owned(), user: named("u"), secret: "s".to_owned() };
        assert_eq!(
            credential.request(&project)["auth"]["identity"]["application_credential"],
            json!({"name": "n", "secret": "s", "user": {"name": "u", "domain": {"name": "Default"}}})
        );
        let token = Credentials::Token("t".to_owned()).request(&project);
        assert_eq!(token["auth"]["identity"], json!({"methods": ["token"], "token": {"id": "t"}}));
    }

    #[test]
    fn no_secret_is_shown() {
        let secret = "hunter2".to_owned();
        for credentials in [
            Credentials::Password { user: named("u"), password: secret.clone() },
            Credentials::ApplicationCredential { id: "i".to_owned(), secret: secret.clone() },
            Credentials::NamedApplicationCredential { name: "n".to_owned(), user: named("u"), secret: secret.clone() },
            Credentials::Token(secret),
        ] {
            assert!(!format!("{credentials:?}").contains("hunter2"));
        }
    }
}
