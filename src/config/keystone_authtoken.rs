//! `[keystone_authtoken]`.

use super::ServiceAuthOptions;
use super::check::Form;

options! {
    /// How callers are known by their tokens, where [api] auth_strategy is keystone: the group and the names of
    /// keystonemiddleware, since deployment tools write them. Without an auth_type, the service asks Keystone as the user
    /// of [service_auth]. Asking about tokens takes the role service.
    KeystoneAuthtokenOptions in "keystone_authtoken" {
        /// Public address of Keystone, for clients that come without a token; auth_url when unset.
        [form(Form::HttpUrl)] www_authenticate_uri: Option<String> = None;
        /// How the service authenticates to ask about tokens; as [service_auth] says when unset.
        [form(Form::OneOf(&["password", "v3password", "v3applicationcredential"]))] auth_type: Option<String> = None;
        /// Address of Keystone, with or without /v3.
        [form(Form::HttpUrl)] auth_url: Option<String> = None;
        /// Name of the user that asks.
        username: Option<String> = None;
        /// Id of the user, instead of its name.
        [form(Form::Word)] user_id: Option<String> = None;
        /// Password of the user.
        [secret()] password: Option<String> = None;
        /// Name of the user's domain.
        user_domain_name: Option<String> = None;
        /// Id of the user's domain, instead of its name.
        [form(Form::Word)] user_domain_id: Option<String> = None;
        /// Name of the user's project.
        project_name: Option<String> = None;
        /// Id of the user's project, instead of its name.
        [form(Form::Word)] project_id: Option<String> = None;
        /// Name of the project's domain.
        project_domain_name: Option<String> = None;
        /// Id of the project's domain, instead of its name.
        [form(Form::Word)] project_domain_id: Option<String> = None;
        /// Id of an application credential.
        [form(Form::Word)] application_credential_id: Option<String> = None;
        /// Name of an application credential of the user, instead of its id.
        application_credential_name: Option<String> = None;
        /// Secret of the application credential.
        [secret()] application_credential_secret: Option<String> = None;
        /// Certificates (PEM) of the authorities to trust instead of the built-in ones.
        [form(Form::Path)] cafile: Option<String> = None;
        /// Our own certificate (PEM), where Keystone asks for one.
        [form(Form::Path)] certfile: Option<String> = None;
        /// Its private key (PEM); in certfile when unset.
        [form(Form::Path)] keyfile: Option<String> = None;
        /// Believe any certificate. For tests only: whoever is in between sees tokens and passwords.
        insecure: bool = false;
        /// Seconds that a question to Keystone may take; as [service_auth] says when unset.
        [range(1, 300)] http_connect_timeout: Option<u64> = None;
        /// Seconds for which a good token is remembered, and so for which one that is revoked may still pass; -1: none is
        /// remembered.
        [range(-1, 86_400)] token_cache_time: i64 = 300;
        /// Roles of which a service's token must have one.
        service_token_roles: Vec<String> = vec!["service".to_owned()];
        /// Whether X-Service-Token without such a role is refused. When not, any good token there lifts the access rules of
        /// application credentials.
        service_token_roles_required: bool = true;
    }
}

impl KeystoneAuthtokenOptions {
    /// As whom we ask: the user that this group names, if it says how to authenticate, else the service's own.
    #[must_use]
    pub fn over(&self, service: &ServiceAuthOptions) -> ServiceAuthOptions {
        let Some(auth_type) = self.auth_type.clone() else { return service.clone() };
        ServiceAuthOptions {
            auth_type,
            auth_url: self.auth_url.clone().or_else(|| service.auth_url.clone()),
            username: self.username.clone(),
            user_id: self.user_id.clone(),
            password: self.password.clone(),
            user_domain_name: self.user_domain_name.clone(),
            user_domain_id: self.user_domain_id.clone(),
            project_name: self.project_name.clone(),
            project_id: self.project_id.clone(),
            project_domain_name: self.project_domain_name.clone(),
            project_domain_id: self.project_domain_id.clone(),
            application_credential_id: self.application_credential_id.clone(),
            application_credential_name: self.application_credential_name.clone(),
            application_credential_secret: self.application_credential_secret.clone(),
            cafile: self.cafile.clone().or_else(|| service.cafile.clone()),
            certfile: self.certfile.clone().or_else(|| service.certfile.clone()),
            keyfile: self.keyfile.clone().or_else(|| service.keyfile.clone()),
            insecure: self.insecure || service.insecure,
            timeout: self.http_connect_timeout.unwrap_or(service.timeout),
            ..service.clone()
        }
    }
}
