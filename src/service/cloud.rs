//! From options to sessions: who the service is to the cloud, and how each of the cloud's services is reached.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Config, ServiceAuthOptions};
use crate::openstack::keystone::{self, Credentials, Domain, KeystoneAuth, KeystoneOptions, Named, Scope};
use crate::openstack::{
    Auth, CallObservation, Interface, NoAuth, Observer, OpenStackError, Session, SessionOptions, TlsOptions, zaqar,
};
use crate::telemetry::metrics::{CallStatus, Metrics, Service};

/// Where the messaging service is when nobody says and there is no Keystone.
const DEFAULT_QUEUE: &str = "http://127.0.0.1:8888";

/// What a group may say of one service.
#[derive(Clone, Debug, Default)]
struct Adapter {
    endpoint: Option<String>,
    region: Option<String>,
    interfaces: Vec<String>,
    timeout: Option<u64>,
}

/// Makes the way to a project's queues: of the project's id and a trust.
pub trait ProjectZaqar:
    Fn(&str, Option<&str>) -> Result<zaqar::Client, OpenStackError> + Send + Sync + 'static
{
}

impl<F> ProjectZaqar for F where
    F: Fn(&str, Option<&str>) -> Result<zaqar::Client, OpenStackError> + Send + Sync + 'static
{
}

/// The cloud as the service's own user sees it. Clones share one token.
#[derive(Clone)]
pub struct Cloud {
    config: Config,
    auth: Option<KeystoneAuth>,
    metrics: Metrics,
}

/// A session of the service's own user with one service. Where more than one is needed, a [`Cloud`] makes them on one
/// token.
///
/// # Errors
/// See [`Cloud::session`].
pub fn openstack_session(config: &Config, service: Service, metrics: &Metrics) -> Result<Session, OpenStackError> {
    Cloud::new(config, metrics)?.session(service)
}

impl Cloud {
    /// Nothing is sent yet: a Keystone that is away when the service starts is asked again with each call.
    ///
    /// # Errors
    /// [`OpenStackError::Invalid`] when an option does not do.
    pub fn new(config: &Config, metrics: &Metrics) -> Result<Self, OpenStackError> {
        let options = &config.service_auth;
        let auth = options
            .has_keystone()
            .then(|| KeystoneAuth::new(keystone_options(options, Some(observer(Service::Keystone, metrics)))))
            .transpose()?;
        Ok(Self { config: config.clone(), auth, metrics: metrics.clone() })
    }

    /// Who we are to Keystone; none: there is no Keystone.
    #[must_use]
    pub const fn auth(&self) -> Option<&KeystoneAuth> {
        self.auth.as_ref()
    }

    /// Keystone itself; none: there is none. It is asked where we authenticate, not where the catalog has it.
    ///
    /// # Errors
    /// [`OpenStackError::Invalid`] when an option does not do.
    pub fn keystone(&self) -> Result<Option<keystone::Client>, OpenStackError> {
        let Some(auth) = &self.auth else { return Ok(None) };
        let options = SessionOptions {
            endpoint: Some(auth.base().to_string()),
            ..self.options(Service::Keystone, &Adapter::default())?
        };
        let session = Session::new(Arc::new(auth.clone()), options)?;
        Ok(Some(keystone::Client::new(session, auth.clone())))
    }

    /// A session with one service. Without Keystone it must have an `endpoint_override`.
    ///
    /// # Errors
    /// [`OpenStackError::Invalid`] when an option does not do.
    pub fn session(&self, service: Service) -> Result<Session, OpenStackError> {
        let mut adapter = self.adapter(service);
        let auth: Arc<dyn Auth> = match &self.auth {
            Some(auth) => Arc::new(auth.clone()),
            None => {
                if service == Service::Zaqar {
                    adapter.endpoint.get_or_insert_with(|| DEFAULT_QUEUE.to_owned());
                }
                if adapter.endpoint.is_none() {
                    let name = service.as_str();
                    return Err(OpenStackError::Invalid(format!(
                        "[{name}] endpoint_override is not set, and without [service_auth] there is no catalog to find \
                         {name} in"
                    )));
                }
                Arc::new(NoAuth::new(&self.config.zaqar.project_id, [])?)
            }
        };
        Session::new(auth, self.options(service, &adapter)?)
    }

    /// What the service's own group says.
    fn adapter(&self, service: Service) -> Adapter {
        let Config { zaqar, zun, nova, neutron, glance, .. } = &self.config;
        macro_rules! adapter {
            ($group:ident, $timeout:expr) => {
                Adapter {
                    endpoint: $group.endpoint_override.clone(),
                    region: $group.region_name.clone(),
                    interfaces: $group.valid_interfaces.clone(),
                    timeout: $timeout,
                }
            };
        }
        match service {
            Service::Zaqar => adapter!(zaqar, Some(zaqar.timeout)),
            Service::Zun => adapter!(zun, Some(zun.timeout)),
            Service::Nova => adapter!(nova, Some(nova.timeout)),
            Service::Neutron => adapter!(neutron, None),
            Service::Glance => adapter!(glance, None),
            Service::Keystone | Service::Gateway => Adapter::default(),
        }
    }

    fn options(&self, service: Service, adapter: &Adapter) -> Result<SessionOptions, OpenStackError> {
        let options = &self.config.service_auth;
        let words = if adapter.interfaces.is_empty() { &options.valid_interfaces } else { &adapter.interfaces };
        Ok(SessionOptions {
            timeout: Duration::from_secs(adapter.timeout.unwrap_or(options.timeout)),
            connect_timeout: Duration::from_secs(options.connect_timeout),
            observer: Some(observer(service, &self.metrics)),
            tls: tls(options),
            endpoint: adapter.endpoint.clone(),
            region: adapter.region.clone().or_else(|| options.region_name.clone()),
            interfaces: words.iter().filter_map(|word| Interface::from_word(word)).collect(),
            ..SessionOptions::default()
        })
    }

    /// The way to the queue service, in the service's own project.
    ///
    /// # Errors
    /// [`OpenStackError::Invalid`] when an option does not do.
    pub fn zaqar(&self) -> Result<zaqar::Client, OpenStackError> {
        self.session(Service::Zaqar).map(zaqar::Client::new)
    }

    /// Makes ways to the queue service in projects, each on the trust of somebody there; without Keystone by the
    /// project's id alone. All share connections.
    ///
    /// # Errors
    /// [`OpenStackError::Invalid`] when an option does not do.
    pub fn zaqar_of_projects(&self) -> Result<impl ProjectZaqar + use<>, OpenStackError> {
        let (session, auth) = (self.session(Service::Zaqar)?, self.auth.clone());
        Ok(move |project: &str, trust_id: Option<&str>| {
            let auth: Arc<dyn Auth> = match (&auth, trust_id) {
                (None, _) => Arc::new(NoAuth::new(project, [])?),
                (Some(auth), Some(trust_id)) => Arc::new(auth.with_trust(trust_id)?),
                (Some(_), None) => {
                    let why = format!("there is no trust to act on in project '{project}'");
                    return Err(OpenStackError::Invalid(why));
                }
            };
            Ok(zaqar::Client::new(session.with_auth(auth)))
        })
    }
}

fn observer(service: Service, metrics: &Metrics) -> Observer {
    let metrics = metrics.clone();
    Arc::new(move |call: &CallObservation| {
        let status = match call.status {
            Some(status) => CallStatus::Answered(status),
            None => CallStatus::Unreachable,
        };
        metrics.external_call(service, call.operation, status, call.duration);
    })
}

fn tls(options: &ServiceAuthOptions) -> TlsOptions {
    let path = |option: &Option<String>| option.as_ref().map(PathBuf::from);
    TlsOptions {
        cafile: path(&options.cafile),
        certfile: path(&options.certfile),
        keyfile: path(&options.keyfile),
        insecure: options.insecure,
    }
}

/// What the options say of who we are. The configuration has been checked: what is missing for the way to authenticate
/// was refused then.
fn keystone_options(options: &ServiceAuthOptions, observer: Option<Observer>) -> KeystoneOptions {
    let text = |option: &Option<String>| option.clone().unwrap_or_default();
    let named = |id: &Option<String>, name: &Option<String>, domain: Domain| match id {
        Some(id) => Named::Id(id.clone()),
        None => Named::Name(text(name), domain),
    };
    let user = named(&options.user_id, &options.username, domain(&options.user_domain_id, &options.user_domain_name));
    let project = named(
        &options.project_id,
        &options.project_name,
        domain(&options.project_domain_id, &options.project_domain_name),
    );
    let secret = text(&options.application_credential_secret);
    let (credentials, scope) = match (options.auth_type.as_str(), &options.application_credential_id) {
        ("v3applicationcredential", Some(id)) => {
            (Credentials::ApplicationCredential { id: id.clone(), secret }, Scope::Unscoped)
        }
        ("v3applicationcredential", None) => {
            let name = text(&options.application_credential_name);
            (Credentials::NamedApplicationCredential { name, user, secret }, Scope::Unscoped)
        }
        _ => (Credentials::Password { user, password: text(&options.password) }, Scope::Project(project)),
    };
    KeystoneOptions {
        auth_url: text(&options.auth_url),
        credentials,
        scope,
        timeout: Duration::from_secs(options.timeout),
        connect_timeout: Duration::from_secs(options.connect_timeout),
        tls: tls(options),
        observer,
    }
}

fn domain(id: &Option<String>, name: &Option<String>) -> Domain {
    match (id, name) {
        (Some(id), _) => Domain::Id(id.clone()),
        (None, Some(name)) => Domain::Name(name.clone()),
        (None, None) => Domain::Id("default".to_owned()),
    }
}
