//! `[service_auth]`.

use super::check::Form;

options! {
    /// Who this service is to Keystone, and how Keystone and the cloud's other services are reached. The user needs the
    /// roles service and member in its project, not admin.
    ServiceAuthOptions in "service_auth" {
        /// How the service authenticates; none: there is no Keystone, and every service is at its endpoint_override.
        [form(Form::OneOf(&["none", "password", "v3password", "v3applicationcredential"]))]
        auth_type: String = "none".to_owned();
        /// Address of Keystone, with or without /v3.
        [form(Form::HttpUrl)] auth_url: Option<String> = None;
        /// Name of the service's user.
        username: Option<String> = None;
        /// Id of the service's user, instead of its name.
        [form(Form::Word)] user_id: Option<String> = None;
        /// Password of the service's user.
        [secret()] password: Option<String> = None;
        /// Name of the user's domain.
        user_domain_name: Option<String> = None;
        /// Id of the user's domain, instead of its name; default where neither is set.
        [form(Form::Word)] user_domain_id: Option<String> = None;
        /// Name of the service's project.
        project_name: Option<String> = None;
        /// Id of the service's project, instead of its name.
        [form(Form::Word)] project_id: Option<String> = None;
        /// Name of the project's domain.
        project_domain_name: Option<String> = None;
        /// Id of the project's domain, instead of its name; default where neither is set.
        [form(Form::Word)] project_domain_id: Option<String> = None;
        /// Id of an application credential. It cannot act on trusts, so that triggers on tenants' queues need a password.
        [form(Form::Word)] application_credential_id: Option<String> = None;
        /// Name of an application credential of the user, instead of its id.
        application_credential_name: Option<String> = None;
        /// Secret of the application credential.
        [secret()] application_credential_secret: Option<String> = None;
        /// Region of the endpoints; the first that the catalog has when unset.
        [form(Form::Word)] region_name: Option<String> = None;
        /// Which of a service's endpoints: the first of these that it has.
        [form(Form::OneOf(&["public", "internal", "admin"]))]
        valid_interfaces: Vec<String> = vec!["internal".to_owned(), "public".to_owned()];
        /// Certificates (PEM) of the authorities to trust instead of the built-in ones.
        [form(Form::Path)] cafile: Option<String> = None;
        /// Our own certificate (PEM), for services that ask for one.
        [form(Form::Path)] certfile: Option<String> = None;
        /// Its private key (PEM); in certfile when unset.
        [form(Form::Path)] keyfile: Option<String> = None;
        /// Believe any certificate. For tests only: whoever is in between sees tokens and passwords.
        insecure: bool = false;
        /// Seconds that a request to Keystone, or to a service without a timeout of its own, may take.
        [range(1, 300)] timeout: u64 = 30;
        /// Seconds that a connection may take.
        [range(1, 60)] connect_timeout: u64 = 5;
    }
}

impl ServiceAuthOptions {
    /// Whether there is a Keystone.
    #[must_use]
    pub fn has_keystone(&self) -> bool {
        self.auth_type != "none"
    }
}
