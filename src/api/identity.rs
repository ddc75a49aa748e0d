//! Who calls. A layer in front of the handlers puts an [`Identity`] into the request; what follows never looks at the
//! headers again, so that Keystone's tokens change nothing behind this file.

mod access_rules;
mod tokens;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;
use tracing::Instrument as _;

use super::error::{ApiError, Code, Result};
use super::layers::RequestContext;
use super::policy::Granted;
use super::{Api, AuthStrategy};
pub use access_rules::AccessRule;
pub use tokens::{KeystoneDeps, Named, TokenFacts, TokenValidator, ValidationError};
pub(super) use tokens::{RawToken, Tokens};

use crate::model::ProjectId;
use crate::policy::check::Attributes;
use crate::store::{FunctionRef, Scope};

/// The caller, as the strategy found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// The project it acts in.
    pub project_id: ProjectId,
    /// The domain of the project.
    pub project_domain_id: Option<String>,
    /// The user, where one is known.
    pub user_id: Option<String>,
    /// The user's name.
    pub user_name: Option<String>,
    /// The domain of the user.
    pub user_domain_id: Option<String>,
    /// Its roles in the project.
    pub roles: Vec<String>,
    /// Whether the project is the one of administrators; it is where nobody says.
    pub is_admin_project: bool,
    /// The service that sends the request on for the user.
    pub service: Option<ServiceIdentity>,
    /// The token that it showed.
    pub token: Option<RawToken>,
}

/// A service that sends a user's request on, by its own token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServiceIdentity {
    /// Its user.
    pub user_id: String,
    /// The domain of its user.
    pub user_domain_id: String,
    /// The project of its token.
    pub project_id: Option<String>,
    /// The domain of that.
    pub project_domain_id: Option<String>,
    /// Its roles there.
    pub roles: Vec<String>,
}

impl Identity {
    /// What policy knows of the caller, by the names that oslo.context gives it.
    pub fn credentials(&self) -> Attributes {
        let service = self.service.as_ref();
        let text = |get: fn(&ServiceIdentity) -> Option<String>| Value::from(service.and_then(get));
        Attributes::from_iter([
            ("user_id".to_owned(), self.user_id.clone().into()),
            ("user_domain_id".to_owned(), self.user_domain_id.clone().into()),
            ("project_id".to_owned(), self.project_id.as_str().into()),
            ("project_domain_id".to_owned(), self.project_domain_id.clone().into()),
            // Nobody without a project comes this far.
            ("domain_id".to_owned(), Value::Null),
            ("system_scope".to_owned(), Value::Null),
            ("roles".to_owned(), self.roles.clone().into()),
            ("is_admin_project".to_owned(), self.is_admin_project.into()),
            ("service_user_id".to_owned(), text(|service| Some(service.user_id.clone()))),
            ("service_user_domain_id".to_owned(), text(|service| Some(service.user_domain_id.clone()))),
            ("service_project_id".to_owned(), text(|service| service.project_id.clone())),
            ("service_project_domain_id".to_owned(), text(|service| service.project_domain_id.clone())),
            ("service_roles".to_owned(), service.map(|service| service.roles.clone()).unwrap_or_default().into()),
        ])
    }
}

/// The layer.
pub(super) async fn authenticate(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let identity = match &api.auth {
        AuthStrategy::NoAuth => noauth(request.headers(), &api.default_project),
        AuthStrategy::Keystone(tokens) => {
            tokens::strip(request.headers_mut());
            tokens.identify(request.headers(), request.method().as_str(), request.uri().path()).await
        }
    };
    match identity {
        Ok(identity) => {
            // What is logged on the way names the caller in the place that oslo.log has for it.
            let span = tracing::info_span!(
                "request",
                request_id = request.extensions().get::<RequestContext>().map(|context| context.request_id.as_str()),
                user_id = identity.user_id,
                project_id = identity.project_id.as_str(),
            );
            tracing::debug!(parent: &span, user.name = identity.user_name, "the caller is known");
            let logged = LoggedIdentity { user_id: identity.user_id.clone(), project_id: identity.project_id.clone() };
            request.extensions_mut().insert(identity);
            let mut response = next.run(request).instrument(span).await;
            response.extensions_mut().insert(logged);
            response
        }
        Err(error) => error.into_response(),
    }
}

/// Who called, on the way back to the layer that logs the request.
#[derive(Clone, Debug)]
pub(super) struct LoggedIdentity {
    /// The user, where one is known.
    pub user_id: Option<String>,
    /// The project.
    pub project_id: ProjectId,
}

/// Believes what the headers say. Without `X-Roles` the caller may do everything: there is nobody to ask.
fn noauth(headers: &HeaderMap, default_project: &ProjectId) -> Result<Identity> {
    let text = |name: &str| -> Result<Option<&str>> {
        headers
            .get(name)
            .map(|value| value.to_str().map(str::trim))
            .transpose()
            .map_err(|_| ApiError::new(Code::IdentityInvalid, format!("{name}: must be plain text")))
    };
    let project_id = match text("X-Project-Id")? {
        None | Some("") => default_project.clone(),
        Some(project) => ProjectId::parse(project)
            .map_err(|invalid| ApiError::new(Code::IdentityInvalid, format!("X-Project-Id: {}", invalid.reason)))?,
    };
    let roles = match text("X-Roles")? {
        None => with_implied(["admin".to_owned()]),
        Some(roles) => with_implied(roles.split(',').map(|role| role.trim().to_ascii_lowercase())),
    };
    Ok(Identity {
        project_id,
        project_domain_id: None,
        user_id: text("X-User-Id")?.map(str::to_owned),
        user_name: None,
        user_domain_id: None,
        roles,
        is_admin_project: true,
        service: None,
        token: None,
    })
}

/// Adds the roles that Keystone's default roles imply, which it lists in tokens by itself.
fn with_implied(roles: impl IntoIterator<Item = String>) -> Vec<String> {
    const IMPLIED: [&str; 4] = ["admin", "manager", "member", "reader"];
    let mut all: Vec<String> = roles.into_iter().collect();
    if let Some(first) = IMPLIED.iter().position(|role| all.iter().any(|has| has == role)) {
        for role in &IMPLIED[first..] {
            if !all.iter().any(|has| has == role) {
                all.push((*role).to_owned());
            }
        }
    }
    all
}

/// The caller and its request, as handlers see them.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    identity: Identity,
    granted: Granted,
    /// What links in the answer begin with.
    pub base: String,
}

impl Caller {
    /// The project that the caller acts in.
    pub const fn project(&self) -> &ProjectId {
        &self.identity.project_id
    }

    /// The user, where one is known.
    pub fn user_id(&self) -> Option<&str> {
        self.identity.user_id.as_deref()
    }

    /// The token that the caller showed; none: there is no Keystone.
    pub const fn token(&self) -> Option<&RawToken> {
        self.identity.token.as_ref()
    }

    /// Whose documents the operation may touch, where they are named by their id: the project's, or everybody's if policy
    /// allows the operation to this caller whatever the project.
    pub fn scope(&self) -> Scope {
        if self.granted.anywhere { Scope::All } else { self.own() }
    }

    /// As [`Self::scope`], but a name is unique in a project only: it is always one of the caller's own.
    pub fn scope_for(&self, function: &FunctionRef) -> Scope {
        match function {
            FunctionRef::Id(_) => self.scope(),
            FunctionRef::Name(_) => self.own(),
        }
    }

    /// The documents of the caller's project.
    fn own(&self) -> Scope {
        Scope::Project(self.identity.project_id.clone())
    }

    /// What a list may show: everybody's documents to who asks for them and may.
    pub fn list_scope(&self, all_projects: Option<bool>) -> Result<Scope> {
        if all_projects != Some(true) {
            return Ok(self.own());
        }
        self.granted.all_projects(&self.identity).map(|()| Scope::All)
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let missing =
            || ApiError::internal("the layers that name the request, its caller and what it may are not in place");
        let context = parts.extensions.get::<RequestContext>().ok_or_else(missing)?;
        let identity = parts.extensions.get::<Identity>().ok_or_else(missing)?;
        let granted = parts.extensions.get::<Granted>().ok_or_else(missing)?;
        Ok(Self { identity: identity.clone(), granted: granted.clone(), base: context.base.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(headers: &[(&'static str, &'static str)]) -> Result<Identity> {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        noauth(&headers, &ProjectId::parse("demo").unwrap())
    }

    #[test]
    fn without_headers_the_caller_is_the_default_project_and_may_all() {
        let identity = identity(&[]).unwrap();
        assert_eq!(identity.project_id.as_str(), "demo");
        assert_eq!(identity.roles, ["admin", "manager", "member", "reader"]);
    }

    #[test]
    fn roles_imply_those_below_them_and_ignore_case() {
        let member = identity(&[("x-project-id", "p1"), ("x-roles", "Member, other")]).unwrap();
        assert_eq!(member.project_id.as_str(), "p1");
        assert_eq!(member.roles, ["member", "other", "reader"]);
        assert_eq!(identity(&[("x-roles", "")]).unwrap().roles, [""]);
    }

    #[test]
    fn a_project_that_is_none_is_refused() {
        assert_eq!(identity(&[("x-project-id", "a/b")]).unwrap_err().code(), Code::IdentityInvalid);
    }
}
