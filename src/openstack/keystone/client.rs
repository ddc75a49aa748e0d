//! What we ask of Keystone: whether a token is good, and trusts.

use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Catalog, KeystoneAuth, SERVICE, UserAuth};
use crate::model::Timestamp;
use crate::openstack::{Answer, OpenStackError, Request, Session};

/// A domain.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Domain {
    /// Its id.
    pub id: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
}

/// A user or project, with its domain.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Owned {
    /// Its id.
    pub id: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Where it belongs.
    pub domain: Domain,
}

/// A role.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Role {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// One thing that an application credential may do. With rules, it may do nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct AccessRule {
    /// The service's type.
    pub service: String,
    /// The HTTP method.
    pub method: String,
    /// The path, in which `*` and `{name}` stand for one segment and `**` for all that follow.
    pub path: String,
}

/// The application credential that a token was got with.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ApplicationCredential {
    /// Its id.
    pub id: String,
    /// Whether it may not be used to make others, or trusts.
    #[serde(default)]
    pub restricted: bool,
    /// What it may do; none: whatever its roles may.
    #[serde(default)]
    pub access_rules: Option<Vec<AccessRule>>,
}

/// The trust that a token acts on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TokenTrust {
    /// Its id.
    pub id: String,
}

/// What Keystone says of a token that is good.
#[derive(Clone, Debug, Deserialize)]
pub struct Validated {
    /// Whose it is.
    pub user: Owned,
    /// The project that it is for.
    #[serde(default)]
    pub project: Option<Owned>,
    /// The domain that it is for.
    #[serde(default)]
    pub domain: Option<Domain>,
    /// Set when it is for the whole system.
    #[serde(default)]
    pub system: Option<serde_json::Value>,
    /// The roles in what it is for, with those that they imply.
    #[serde(default)]
    pub roles: Vec<Role>,
    /// Until when it is good.
    pub expires_at: Timestamp,
    /// Since when.
    pub issued_at: Timestamp,
    /// How it was got.
    #[serde(default)]
    pub methods: Vec<String>,
    /// By which Keystone's own log tells it from others; the second is that of the token that it was got with.
    #[serde(default)]
    pub audit_ids: Vec<String>,
    /// The application credential that it was got with.
    #[serde(default)]
    pub application_credential: Option<ApplicationCredential>,
    /// The trust that it acts on.
    #[serde(default, rename = "OS-TRUST:trust")]
    pub trust: Option<TokenTrust>,
    /// The services that there are for it.
    #[serde(default)]
    pub catalog: Catalog,
    /// Whether its project is the admin project, where the cloud has one.
    #[serde(default)]
    pub is_admin_project: Option<bool>,
}

/// A trust to be made: whoever makes it lets another act in a project with some of its roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTrust {
    /// The id of whoever makes it, and of nobody else.
    pub trustor_user_id: String,
    /// The id of who will act.
    pub trustee_user_id: String,
    /// The id of the project.
    pub project_id: String,
    /// The names of the roles, which the trustor must have.
    pub roles: Vec<String>,
}

/// A trust.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Trust {
    /// Its id.
    pub id: String,
    /// Who made it.
    pub trustor_user_id: String,
    /// Who may act on it.
    pub trustee_user_id: String,
    /// In which project.
    pub project_id: Option<String>,
    /// Which deployment of ours asked for it, if one did.
    #[serde(default)]
    pub lambda_deployment: Option<String>,
    /// Which trigger it is for, if it is for one.
    #[serde(default)]
    pub lambda_trigger: Option<String>,
}

/// What a trust says of itself beside what Keystone asks for. Keystone keeps it and shows it in every list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustLabels {
    /// Which deployment of ours asks for it.
    pub lambda_deployment: Option<String>,
    /// Which trigger it is for.
    pub lambda_trigger: Option<String>,
}

/// Talks to Keystone.
#[derive(Clone, Debug)]
pub struct Client {
    session: Session,
    auth: KeystoneAuth,
}

impl Client {
    /// On this session, whose requests go to Keystone itself, as the user of `auth`.
    #[must_use]
    pub const fn new(session: Session, auth: KeystoneAuth) -> Self {
        Self { session, auth }
    }

    /// As whom we ask.
    #[must_use]
    pub const fn auth(&self) -> &KeystoneAuth {
        &self.auth
    }

    /// Whether Keystone answers and lets us in. Changes nothing.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn ping(&self) -> Result<(), OpenStackError> {
        self.session.send(&request("ping", Method::GET, &[])).await.map(|_| ())
    }

    /// Whether a token is good, and what for; none: it is not (any more). That takes the role `service`.
    ///
    /// # Errors
    /// See [`OpenStackError`]: it is unknown then. [`OpenStackError::Unauthorized`] and
    /// [`OpenStackError::Forbidden`] are about our own token, not about the one in question.
    pub async fn validate(&self, token: &str) -> Result<Option<Validated>, OpenStackError> {
        self.look(token, false).await
    }

    /// As [`Self::validate`], but a token that ran out not long ago (by Keystone's `allow_expired_window`) is good too:
    /// for requests that a service sends on for a user, with its own token beside the user's.
    ///
    /// # Errors
    /// As [`Self::validate`].
    pub async fn validate_expired(&self, token: &str) -> Result<Option<Validated>, OpenStackError> {
        self.look(token, true).await
    }

    async fn look(&self, token: &str, allow_expired: bool) -> Result<Option<Validated>, OpenStackError> {
        // What cannot be in a header cannot be a token.
        let Ok(mut subject) = HeaderValue::from_str(token) else { return Ok(None) };
        if token.is_empty() {
            return Ok(None);
        }
        subject.set_sensitive(true);
        let mut request = request("validate", Method::GET, &["auth", "tokens"]);
        request.headers.insert(HeaderName::from_static("x-subject-token"), subject);
        // Without it, Keystone does not know a token with access rules: it could not be sure that we keep to them.
        request
            .headers
            .insert(HeaderName::from_static("openstack-identity-access-rules"), HeaderValue::from_static("1.0"));
        if allow_expired {
            request.query.push(("allow_expired", "1".to_owned()));
        }
        #[derive(Deserialize)]
        struct Body {
            token: Validated,
        }
        match self.session.send(&request).await {
            Ok(answer) => read::<Body>(&answer).map(|body| Some(body.token)),
            Err(OpenStackError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Revokes a token: nobody takes it any more, but whoever has it cached.
    ///
    /// # Errors
    /// See [`OpenStackError`]. One that is not good succeeds.
    pub async fn revoke(&self, token: &str) -> Result<(), OpenStackError> {
        let Ok(mut subject) = HeaderValue::from_str(token) else { return Ok(()) };
        subject.set_sensitive(true);
        let mut request = request("revoke", Method::DELETE, &["auth", "tokens"]);
        request.headers.insert(HeaderName::from_static("x-subject-token"), subject);
        match self.session.send(&request).await {
            Ok(_) | Err(OpenStackError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes a trust with the token of who makes it. It lasts until it is deleted, or the trustor is, or loses a role of
    /// it. Not repeated: what is made twice is two trusts.
    ///
    /// # Errors
    /// See [`OpenStackError`]. [`OpenStackError::Forbidden`] also for a role that the trustor has not, and for a token
    /// that is itself got by a trust or a restricted application credential.
    pub async fn create_trust(&self, user_token: &str, trust: &NewTrust) -> Result<Trust, OpenStackError> {
        self.create_labelled_trust(user_token, trust, &TrustLabels::default()).await
    }

    /// As [`Self::create_trust`], with labels by which it is found again.
    ///
    /// # Errors
    /// As [`Self::create_trust`].
    pub async fn create_labelled_trust(
        &self,
        user_token: &str,
        trust: &NewTrust,
        labels: &TrustLabels,
    ) -> Result<Trust, OpenStackError> {
        let NewTrust { trustor_user_id, trustee_user_id, project_id, roles } = trust;
        let roles: Vec<_> = roles.iter().map(|name| json!({"name": name})).collect();
        let body = json!({"trust": {
            "trustor_user_id": trustor_user_id,
            "trustee_user_id": trustee_user_id,
            "project_id": project_id,
            "impersonation": true,
            "allow_redelegation": false,
            "roles": roles,
            "lambda_deployment": labels.lambda_deployment,
            "lambda_trigger": labels.lambda_trigger,
        }});
        let mut request = request("create_trust", Method::POST, &["OS-TRUST", "trusts"]);
        request.is_idempotent = false;
        request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request.body = Some(body.to_string().into());
        #[derive(Deserialize)]
        struct Body {
            trust: Trust,
        }
        match self.as_user(user_token)?.send(&request).await {
            Ok(answer) => read::<Body>(&answer).map(|body| body.trust),
            // Of a role that the trustor has not, Keystone says that there is no such role.
            Err(OpenStackError::NotFound(text)) => Err(OpenStackError::Forbidden(text)),
            Err(error) => Err(error),
        }
    }

    /// The trusts on which we may act, whoever made them.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn trusts_to_us(&self) -> Result<Vec<Trust>, OpenStackError> {
        let mut request = request("list_trusts", Method::GET, &["OS-TRUST", "trusts"]);
        request.query.push(("trustee_user_id", self.auth.user_id().await?));
        #[derive(Deserialize)]
        struct Body {
            trusts: Vec<Trust>,
        }
        read::<Body>(&self.session.send(&request).await?).map(|body| body.trusts)
    }

    /// Deletes a trust with the token of who made it; every token on it is dead at once. Succeeds when it is not there.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn delete_trust(&self, user_token: &str, trust_id: &str) -> Result<(), OpenStackError> {
        gone(self.as_user(user_token)?.send(&deletion(trust_id)).await)
    }

    /// Deletes a trust that was made for us, without its maker: by the trust itself, on which we act as the trustor.
    /// Succeeds when it is not there.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn give_up_trust(&self, trust_id: &str) -> Result<(), OpenStackError> {
        let session = self.session.with_auth(std::sync::Arc::new(self.auth.with_trust(trust_id)?));
        match gone(session.send(&deletion(trust_id)).await) {
            // Keystone gives no token on a trust that is not there.
            Err(OpenStackError::Unauthorized(_)) => Ok(()),
            other => other,
        }
    }

    fn as_user(&self, token: &str) -> Result<Session, OpenStackError> {
        Ok(self.session.with_auth(std::sync::Arc::new(UserAuth::new(token, self.auth.clone())?)))
    }
}

fn gone(result: Result<Answer, OpenStackError>) -> Result<(), OpenStackError> {
    match result {
        Ok(_) | Err(OpenStackError::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

fn deletion(trust_id: &str) -> Request {
    request("delete_trust", Method::DELETE, &["OS-TRUST", "trusts", trust_id])
}

/// A request below `/v3`.
fn request(operation: &'static str, method: Method, path: &[&str]) -> Request {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let path = ["v3"].iter().chain(path).map(|segment| (*segment).to_owned()).collect();
    Request { service: SERVICE, operation, method, path, query: Vec::new(), headers, body: None, is_idempotent: true }
}

fn read<T: for<'a> Deserialize<'a>>(answer: &Answer) -> Result<T, OpenStackError> {
    serde_json::from_slice(&answer.body)
        .map_err(|error| OpenStackError::protocol(SERVICE.name(), format!("a body that cannot be read: {error}")))
}
