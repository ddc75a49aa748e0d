//! Tokens of Keystone's: who a request is from by the token that it shows, as keystonemiddleware's `auth_token` finds out.
//!
//! A token is asked about once and remembered for a while by its digest; many requests with one token at once are one
//! question. Only good tokens are remembered, and whether they have run out is looked at each time. The consequence is
//! Keystone's own: a token that is revoked may still pass for as long as it is remembered.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use moka::future::Cache;
use sha2::{Digest as _, Sha256};

use super::access_rules::AccessRule;
use super::{Identity, ServiceIdentity};
use crate::api::SERVICE_TYPE;
use crate::api::error::{ApiError, Code, Result};
use crate::clock;
use crate::config::KeystoneAuthtokenOptions;
use crate::model::{Invalid, ProjectId, Timestamp};

/// Most tokens that are remembered.
const CACHE_MAX: u64 = 20_000;

/// Why it is not known whether a token is good.
pub type ValidationError = Box<dyn std::error::Error + Send + Sync>;

/// Asks Keystone about tokens.
#[async_trait]
pub trait TokenValidator: Send + Sync + 'static {
    /// What a token says; none: it is not good. With `allow_expired`, one that has run out not long ago is good too.
    async fn validate(
        &self,
        token: &str,
        allow_expired: bool,
    ) -> std::result::Result<Option<TokenFacts>, ValidationError>;
}

/// A project or user in a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The id of its domain.
    pub domain_id: String,
}

/// What a good token says, as far as we ask: without the catalog, which is most of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFacts {
    /// Whose it is.
    pub user: Named,
    /// The project that it is for.
    pub project: Option<Named>,
    /// The domain that it is for.
    pub domain_id: Option<String>,
    /// Whether it is for the system as a whole.
    pub is_system: bool,
    /// The names of the roles, implied ones too.
    pub roles: Vec<String>,
    /// When it runs out.
    pub expires_at: Timestamp,
    /// What the application credential may do that it was made with; none: what the roles may.
    pub access_rules: Option<Vec<AccessRule>>,
    /// Whether its catalog has this service, by its type.
    pub knows_this_service: bool,
    /// Whether its project is the one of administrators; where Keystone does not say, it is.
    pub is_admin_project: bool,
}

/// A token as it came. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::api) struct RawToken(Arc<str>);

impl RawToken {
    /// The token, to be sent to Keystone and to nobody else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RawToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawToken(****)")
    }
}

/// What is needed to know callers by their tokens.
#[derive(Clone)]
pub struct KeystoneDeps {
    /// `[keystone_authtoken]`.
    pub options: KeystoneAuthtokenOptions,
    /// Where callers get tokens; said to those who come without.
    pub www_authenticate_uri: String,
    /// The way to Keystone.
    pub validator: Arc<dyn TokenValidator>,
}

/// A token's digest, and whether it may have run out.
type Key = ([u8; 32], bool);

/// Knows callers by their tokens.
pub(in crate::api) struct Tokens {
    validator: Arc<dyn TokenValidator>,
    cache: Option<Cache<Key, Arc<TokenFacts>>>,
    challenge: HeaderValue,
    service_roles: BTreeSet<String>,
    service_roles_required: bool,
}

/// Why there is nothing to remember.
#[derive(Clone)]
enum NotGood {
    Invalid,
    Unknown(String),
}

impl Tokens {
    /// By these options.
    pub fn new(deps: KeystoneDeps) -> std::result::Result<Self, Invalid> {
        let KeystoneDeps { options, www_authenticate_uri, validator } = deps;
        let challenge = HeaderValue::try_from(format!("Keystone uri=\"{www_authenticate_uri}\""))
            .map_err(|_| Invalid::new("[keystone_authtoken] www_authenticate_uri", "must be an address"))?;
        // -1 is how keystonemiddleware is told not to remember.
        let remembered = u64::try_from(options.token_cache_time).ok().filter(|seconds| *seconds > 0);
        let cache = remembered
            .map(|seconds| Cache::builder().max_capacity(CACHE_MAX).time_to_live(Duration::from_secs(seconds)).build());
        if !options.service_token_roles_required {
            tracing::warn!(
                "[keystone_authtoken] service_token_roles_required is off: every good token passes for a service's, \
                 and lifts the access rules of application credentials"
            );
        }
        Ok(Self {
            validator,
            cache,
            challenge,
            service_roles: options.service_token_roles.iter().cloned().collect(),
            service_roles_required: options.service_token_roles_required,
        })
    }

    /// Who a request is from.
    pub async fn identify(&self, headers: &HeaderMap, method: &str, path: &str) -> Result<Identity> {
        let service = match token(headers, &["x-service-token"]) {
            None => None,
            Some(token) => {
                let facts = self.facts(token, false).await?.ok_or_else(|| self.refused(AUTHENTICATE))?;
                let has_role = facts.roles.iter().any(|role| self.service_roles.contains(role));
                if !has_role && self.service_roles_required {
                    return Err(self.refused(AUTHENTICATE));
                }
                Some((facts, has_role))
            }
        };
        let Some(token) = token(headers, &["x-auth-token", "x-storage-token"]) else {
            return Err(self.refused(AUTHENTICATE));
        };
        // A service may bring a user's request to its end after the user's token has.
        let allow_expired = service.as_ref().is_some_and(|(_, has_role)| *has_role);
        let facts = self.facts(token, allow_expired).await?.ok_or_else(|| self.refused(AUTHENTICATE))?;
        if let Some(rules) = &facts.access_rules {
            // A request that a service sends on is not the one that the rules are about.
            let allowed = service.is_some() || rules.iter().any(|rule| rule.allows(SERVICE_TYPE, method, path));
            if !facts.knows_this_service || !allowed {
                return Err(self.refused("the access rules of the application credential do not allow this request"));
            }
        }
        let Some(project) = &facts.project else {
            let what = if facts.is_system {
                "for the system"
            } else if facts.domain_id.is_some() {
                "for a domain"
            } else {
                "for nothing"
            };
            return Err(ApiError::new(
                Code::IdentityWithoutProject,
                format!("the token is {what}; get one for the project that you want to work in"),
            ));
        };
        let project_id = ProjectId::parse(&project.id)
            .map_err(|invalid| ApiError::internal(format!("Keystone named a project that is none: {invalid}")))?;
        Ok(Identity {
            project_id,
            project_domain_id: Some(project.domain_id.clone()),
            user_id: Some(facts.user.id.clone()),
            user_name: Some(facts.user.name.clone()),
            user_domain_id: Some(facts.user.domain_id.clone()),
            roles: facts.roles.clone(),
            is_admin_project: facts.is_admin_project,
            service: service.map(|(facts, _)| ServiceIdentity {
                user_id: facts.user.id.clone(),
                user_domain_id: facts.user.domain_id.clone(),
                project_id: facts.project.as_ref().map(|project| project.id.clone()),
                project_domain_id: facts.project.as_ref().map(|project| project.domain_id.clone()),
                roles: facts.roles.clone(),
            }),
            token: Some(RawToken(Arc::from(token))),
        })
    }

    /// What a token says now; none: it is not good.
    async fn facts(&self, token: &str, allow_expired: bool) -> Result<Option<Arc<TokenFacts>>> {
        let known = match &self.cache {
            None => self.ask(token, allow_expired).await,
            Some(cache) => {
                let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
                let in_time = if allow_expired { cache.get(&(digest, false)).await } else { None };
                match in_time {
                    Some(facts) => Ok(facts),
                    None => cache
                        .try_get_with((digest, allow_expired), self.ask(token, allow_expired))
                        .await
                        .map_err(|why| NotGood::clone(&why)),
                }
            }
        };
        match known {
            Ok(facts) if allow_expired || facts.expires_at > clock::now() => Ok(Some(facts)),
            Ok(_) | Err(NotGood::Invalid) => Ok(None),
            Err(NotGood::Unknown(error)) => {
                Err(ApiError::new(Code::IdentityUnavailable, "The Keystone service is temporarily unavailable.")
                    .retry_after(5)
                    .caused_by(error))
            }
        }
    }

    async fn ask(&self, token: &str, allow_expired: bool) -> std::result::Result<Arc<TokenFacts>, NotGood> {
        match self.validator.validate(token, allow_expired).await {
            Ok(Some(facts)) => Ok(Arc::new(facts)),
            Ok(None) => Err(NotGood::Invalid),
            Err(error) => Err(NotGood::Unknown(crate::task::chain(error.as_ref()))),
        }
    }

    /// The answer to who is not known. keystonemiddleware's body is `{"error": {…}}`; ours is that of all our errors,
    /// with the request id in it, since clients go by the status and the header.
    fn refused(&self, detail: &str) -> ApiError {
        ApiError::new(Code::IdentityRequired, detail).header(header::WWW_AUTHENTICATE, self.challenge.clone())
    }
}

const AUTHENTICATE: &str = "The request you have made requires authentication.";

/// The first of the headers that is there, without space around it.
fn token<'a>(headers: &'a HeaderMap, names: &[&str]) -> Option<&'a str> {
    let value = names.iter().find_map(|name| headers.get(*name))?;
    value.to_str().ok().map(str::trim).filter(|token| !token.is_empty())
}

/// Headers by which the services behind keystonemiddleware are told who calls. From outside they mean nothing.
const IDENTITY_HEADERS: [&str; 12] = [
    "x-identity-status",
    "x-service-identity-status",
    "x-is-admin-project",
    "x-service-catalog",
    "openstack-system-scope",
    "x-role",
    "x-roles",
    "x-service-roles",
    "x-user",
    "x-tenant",
    "x-tenant-id",
    "x-tenant-name",
];

/// And those that begin so, with or without `service-` in front.
const IDENTITY_PREFIXES: [&str; 3] = ["project-", "user-", "domain-"];

/// Removes what nobody may say of himself, so that nothing behind this file can come to believe it.
pub(in crate::api) fn strip(headers: &mut HeaderMap) {
    let claims = |name: &HeaderName| {
        let name = name.as_str();
        IDENTITY_HEADERS.contains(&name)
            || name.strip_prefix("x-").is_some_and(|rest| {
                let rest = rest.strip_prefix("service-").unwrap_or(rest);
                IDENTITY_PREFIXES.iter().any(|prefix| rest.starts_with(prefix))
            })
    };
    let names: Vec<_> = headers.keys().filter(|name| claims(name)).cloned().collect();
    for name in names {
        headers.remove(&name);
    }
}
