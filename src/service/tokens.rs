//! The way to the Keystone that knows callers: `[keystone_authtoken]`, or where that says nothing `[service_auth]`, as what
//! the API asks about tokens.

use std::sync::Arc;

use async_trait::async_trait;

use super::cloud::Cloud;
use crate::api::{self, AccessRule, KeystoneDeps, Named, TokenFacts, TokenValidator, ValidationError};
use crate::config::Config;
use crate::model::Invalid;
use crate::openstack::OpenStackError;
use crate::openstack::keystone::{Client, Validated};
use crate::telemetry::metrics::Metrics;

/// What the API needs to know callers by their tokens; none where `[api] auth_strategy` is noauth.
///
/// # Errors
/// When an option does not do, or nobody says where Keystone is.
pub fn keystone_for_tokens(config: &Config, metrics: &Metrics) -> Result<Option<KeystoneDeps>, super::ServiceError> {
    if config.api.auth_strategy != "keystone" {
        return Ok(None);
    }
    let options = config.keystone_authtoken.clone();
    let auth = options.over(&config.service_auth);
    let www_authenticate_uri = options.www_authenticate_uri.clone().or_else(|| auth.auth_url.clone());
    let mut config = config.clone();
    config.service_auth = auth;
    let (Some(client), Some(www_authenticate_uri)) = (Cloud::new(&config, metrics)?.keystone()?, www_authenticate_uri)
    else {
        let reason = "keystone needs [service_auth], or [keystone_authtoken] with an auth_type";
        return Err(Invalid::new("[api] auth_strategy", reason).into());
    };
    Ok(Some(KeystoneDeps { options, www_authenticate_uri, validator: Arc::new(KeystoneValidator(client)) }))
}

/// Asks Keystone.
struct KeystoneValidator(Client);

#[async_trait]
impl TokenValidator for KeystoneValidator {
    async fn validate(&self, token: &str, allow_expired: bool) -> Result<Option<TokenFacts>, ValidationError> {
        let answer = if allow_expired { self.0.validate_expired(token).await } else { self.0.validate(token).await };
        match answer {
            Ok(validated) => Ok(validated.map(facts)),
            Err(error) => {
                if matches!(error, OpenStackError::Unauthorized(_) | OpenStackError::Forbidden(_)) {
                    tracing::error!(
                        "Keystone does not let the service ask about tokens: see that the user of [keystone_authtoken] \
                         or [service_auth] is right and has the role service"
                    );
                }
                Err(error.into())
            }
        }
    }
}

fn facts(validated: Validated) -> TokenFacts {
    TokenFacts {
        user: Named { id: validated.user.id, name: validated.user.name, domain_id: validated.user.domain.id },
        project: validated.project.map(|project| Named {
            id: project.id,
            name: project.name,
            domain_id: project.domain.id,
        }),
        domain_id: validated.domain.map(|domain| domain.id),
        is_system: validated.system.is_some(),
        roles: validated.roles.into_iter().map(|role| role.name).collect(),
        expires_at: validated.expires_at,
        access_rules: validated.application_credential.and_then(|credential| credential.access_rules).map(|rules| {
            rules
                .into_iter()
                .map(|rule| AccessRule { service: rule.service, method: rule.method, path: rule.path })
                .collect()
        }),
        knows_this_service: validated.catalog.has(api::SERVICE_TYPE),
        is_admin_project: validated.is_admin_project.unwrap_or(true),
    }
}
