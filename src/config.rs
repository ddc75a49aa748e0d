//! Every option of every program: one file per group, whose doc comments are the operator's help, and one way from the
//! command line, the environment and oslo-style INI files to a [`Config`] that is checked.
//!
//! Precedence: command line, then `OS_<GROUP>__<OPTION>` of the environment, then the files (the later wins), then the
//! defaults. What nobody knows is refused with file and line, except what other libraries' tools write into every
//! service's file (`foreign`).

#[macro_use]
mod macros;

pub mod api;
pub mod check;
pub mod database;
pub mod default;
pub mod ini;
pub mod keystone_authtoken;
pub mod local;
pub mod nova;
pub mod oslo_policy;
pub mod sample;
pub mod service_auth;
pub mod standalone;
pub mod substitute;
pub mod worker;
pub mod zaqar;
pub mod zun;

mod error;
mod foreign;
mod load;
mod option;
mod provider;
mod sources;

pub use api::ApiOptions;
pub use database::DatabaseOptions;
pub use default::DefaultOptions;
pub use error::{ConfigError, Origin, Problem};
pub use keystone_authtoken::KeystoneAuthtokenOptions;
pub use load::{Loaded, Reader, load};
pub use local::LocalOptions;
pub use nova::{GlanceOptions, NeutronOptions, NovaOptions};
pub use option::{Differences, Group, Multi, OptionHelp, OptionValue, Shape};
pub use oslo_policy::OsloPolicyOptions;
pub use provider::{list, map};
pub use service_auth::ServiceAuthOptions;
pub use sources::{ConfigPath, Sources};
pub use standalone::StandaloneOptions;
pub use worker::WorkerOptions;
pub use zaqar::ZaqarOptions;
pub use zun::ZunOptions;

/// What the sample says of a group.
#[derive(Clone, Copy, Debug)]
pub struct GroupHelp {
    /// Its name.
    pub name: &'static str,
    /// The lines of its doc comment.
    pub help: &'static [&'static str],
}

macro_rules! config {
    ($( $(#[doc = $doc:literal])* $field:ident : $type:ty ),* $(,)?) => {
        /// All groups of options. What a program does not use stays at its defaults.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Config {
            $( $(#[doc = $doc])* pub $field: $type, )*
        }

        impl Config {
            /// All groups with what is known of their options, in the order of the sample.
            #[must_use]
            pub fn help() -> Vec<(GroupHelp, Vec<OptionHelp>)> {
                vec![ $(
                    (GroupHelp { name: <$type>::GROUP, help: <$type>::HELP }, <$type>::help()),
                )* ]
            }

            /// All values in words, as [`Self::help`] orders them; none: unset.
            fn show(&self) -> Vec<Vec<Option<String>>> {
                vec![ $( self.$field.show(), )* ]
            }

            fn read(reader: &mut Reader<'_>) -> Self {
                Self { $( $field: <$type>::read(reader), )* }
            }

            fn adopt(&mut self, newer: &Self) -> Differences {
                let mut differences = Differences::default();
                $( self.$field.adopt(&newer.$field, &mut differences); )*
                differences
            }
        }
    };
}

config! {
    /// `[DEFAULT]`.
    default: DefaultOptions,
    /// `[api]`.
    api: ApiOptions,
    /// `[database]`.
    database: DatabaseOptions,
    /// `[glance]`.
    glance: GlanceOptions,
    /// `[keystone_authtoken]`.
    keystone_authtoken: KeystoneAuthtokenOptions,
    /// `[local]`.
    local: LocalOptions,
    /// `[neutron]`.
    neutron: NeutronOptions,
    /// `[nova]`.
    nova: NovaOptions,
    /// `[oslo_policy]`.
    oslo_policy: OsloPolicyOptions,
    /// `[service_auth]`.
    service_auth: ServiceAuthOptions,
    /// `[standalone]`.
    standalone: StandaloneOptions,
    /// `[worker]`.
    worker: WorkerOptions,
    /// `[zaqar]`.
    zaqar: ZaqarOptions,
    /// `[zun]`.
    zun: ZunOptions,
}

impl Config {
    /// Reads and checks everything. [`load`] tells besides what was set but is not read.
    ///
    /// # Errors
    /// With all that is wrong.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        load(sources).map(|loaded| loaded.config)
    }

    /// Reads the sources again. The answer is this configuration with the options taken over that may change while the
    /// program runs, and what else has changed but needs a restart.
    ///
    /// # Errors
    /// When what the sources say now is wrong; then everything stays as it is.
    pub fn reload(&self, sources: &Sources) -> Result<(Self, Differences), ConfigError> {
        let newer = Self::load(sources)?;
        let mut next = self.clone();
        let differences = next.adopt(&newer);
        Ok((next, differences))
    }

    /// All values as `group.option` and text, secrets masked; none: unset.
    #[must_use]
    pub fn values(&self) -> Vec<(String, Option<String>)> {
        let mut values = Vec::new();
        for ((group, options), shown) in Self::help().iter().zip(self.show()) {
            for (option, value) in options.iter().zip(shown) {
                let value = value.map(|value| option.masked(&value).to_owned());
                values.push((format!("{}.{}", group.name, option.name), value));
            }
        }
        values
    }

    /// One value in words, masked if it is a secret; none: unset.
    fn shown(&self, group: &str, option: &str) -> Option<String> {
        let name = format!("{group}.{option}");
        self.values().into_iter().find(|(known, _)| *known == name).and_then(|(_, value)| value)
    }
}

/// Logs every value at debug, as oslo.config does at start. Secrets are masked.
pub fn log_all_values(config: &Config) {
    for (name, value) in config.values() {
        tracing::debug!("{name} = {}", value.as_deref().unwrap_or("<None>"));
    }
}

#[cfg(test)]
mod tests;
