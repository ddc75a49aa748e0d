//! From sources to a checked [`Config`], or to everything that is wrong with them.

use figment::Figment;

use super::check;
use super::error::{ConfigError, Problem};
use super::option::{OptionHelp, OptionValue};
use super::provider::Resolved;
use super::{Config, GroupHelp, Sources};

/// A configuration, and what was set but is not read.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Options of other libraries and of later releases, as `group.option (file:line)`.
    pub unread: Vec<String>,
}

/// Reads options one by one, so that one wrong value does not hide the next.
pub struct Reader<'a> {
    figment: Figment,
    resolved: &'a Resolved,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    /// The value of an option, or its default where nobody set it or what was set is wrong, which is noted.
    pub fn option<T: OptionValue>(&mut self, group: &'static str, help: Option<OptionHelp>, default: T) -> T {
        let Some(help) = help else { return default };
        let path = format!("{group}.{}", help.name);
        if !self.figment.contains(&path) {
            return default;
        }
        let read = self.figment.extract_inner_lossy::<T>(&path).map_err(|_| help.expected());
        let checked = read.and_then(|value| match value.elements() {
            Some(elements) => help.check(&elements).map(|()| value),
            None => Ok(value),
        });
        checked.unwrap_or_else(|expected| {
            self.problems.push(Problem::Value {
                origin: self.resolved.origin(group, help.name),
                group,
                option: help.name,
                value: (!help.secret).then(|| self.resolved.text(group, help.name).unwrap_or_default()),
                expected,
            });
            default
        })
    }
}

/// Reads, resolves and checks everything.
///
/// # Errors
/// With all that is wrong, not only the first.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let (config, resolved) = read(sources, &Config::help(), Config::read)?;
    // Only values that are right by themselves are held against each other.
    let problems: Vec<Problem> = check::conflicts(&config)
        .into_iter()
        .map(|check::Conflict { group, option, expected }| Problem::Value {
            origin: resolved.origin(group, option),
            group,
            option,
            value: Some(config.shown(group, option).unwrap_or_default()),
            expected,
        })
        .collect();
    if problems.is_empty() { Ok(Loaded { config, unread: resolved.unread }) } else { Err(ConfigError { problems }) }
}

/// Reads groups of options.
pub(super) fn read<T>(
    sources: &Sources,
    known: &[(GroupHelp, Vec<OptionHelp>)],
    make: impl FnOnce(&mut Reader<'_>) -> T,
) -> Result<(T, Resolved), ConfigError> {
    let mut problems = Vec::new();
    let resolved = Resolved::read(sources, known, &mut problems);
    let mut reader = Reader { figment: Figment::from(&resolved), resolved: &resolved, problems };
    let made = make(&mut reader);
    let problems = reader.problems;
    if problems.is_empty() { Ok((made, resolved)) } else { Err(ConfigError { problems }) }
}
