//! Logging of a program: which levels, which format, where to, and how a running program changes that.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing_log::AsLog as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layered, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

use super::line::{Format, LineLayer};
use super::output::Output;
use crate::config::DefaultOptions;
use crate::config::check::level_of;

/// Modules that log whole requests below INFO, with user data and tokens in them, whatever the operator asks for.
const NEVER_BELOW_INFO: [&str; 2] = ["openstack", "osauth"];

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be opened for writing.
    #[error("the log file {} cannot be opened: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Logging was started before in this process.
    #[error("logging was started twice")]
    Twice,
    /// The levels cannot be changed any more, because the program ends.
    #[error("logging has ended")]
    Ended,
}

/// The log of the running program.
#[derive(Clone, Debug)]
pub struct Logs {
    filter: reload::Handle<Targets, Registry>,
    output: Arc<Output>,
    path: Option<PathBuf>,
}

/// Levels, and lines below them.
pub(crate) type Subscriber = Layered<LineLayer, Layered<reload::Layer<Targets, Registry>, Registry>>;

impl Logs {
    /// Starts logging for the whole process, records of the `log` crate included.
    ///
    /// # Errors
    /// When the log file cannot be opened, or when it was called before.
    pub fn start(options: &DefaultOptions, program: &str) -> Result<Self, LogError> {
        let (logs, subscriber) = Self::build(options, program)?;
        subscriber.try_init().map_err(|_| LogError::Twice)?;
        Ok(logs)
    }

    /// What [`Self::start`] installs.
    pub(crate) fn build(options: &DefaultOptions, program: &str) -> Result<(Self, Subscriber), LogError> {
        let path = path(options, program);
        let output = Output::open(path.clone())
            .map_err(|source| LogError::File { path: path.clone().unwrap_or_default(), source })?;
        let output = Arc::new(output);
        let format = if options.use_json { Format::Json } else { Format::Oslo };
        let (filter, handle) = reload::Layer::new(targets(options));
        let subscriber =
            tracing_subscriber::registry().with(filter).with(LineLayer { format, output: Arc::clone(&output) });
        Ok((Self { filter: handle, output, path }, subscriber))
    }

    /// Takes over new levels and opens the log file anew. For SIGHUP.
    ///
    /// # Errors
    /// When the file cannot be opened: then the old one is kept, the levels hold all the same.
    pub fn reload(&self, options: &DefaultOptions) -> Result<(), LogError> {
        self.filter.reload(targets(options)).map_err(|_| LogError::Ended)?;
        tracing_log::log::set_max_level(LevelFilter::current().as_log());
        self.output.reopen().map_err(|source| LogError::File { path: self.path.clone().unwrap_or_default(), source })
    }
}

/// The log file; none: standard error.
fn path(options: &DefaultOptions, program: &str) -> Option<PathBuf> {
    match (&options.log_file, &options.log_dir) {
        (None, None) => None,
        (Some(file), None) => Some(PathBuf::from(file)),
        // An absolute log_file wins over log_dir.
        (Some(file), Some(directory)) => Some(Path::new(directory).join(file)),
        (None, Some(directory)) => Some(Path::new(directory).join(format!("{program}.log"))),
    }
}

/// The level of each module. A name covers what lies below it; `a.b` is another way to write `a::b`.
fn targets(options: &DefaultOptions) -> Targets {
    let mut base = if options.debug { LevelFilter::DEBUG } else { LevelFilter::INFO };
    let mut modules: BTreeMap<String, LevelFilter> = NEVER_BELOW_INFO.map(|name| (name.to_owned(), base)).into();
    for rule in &options.default_log_levels {
        let (module, level) =
            rule.split_once('=').map_or((None, rule.as_str()), |(module, level)| (Some(module), level));
        let Some(level) = level_of(level).map(LevelFilter::from_level) else { continue };
        match module {
            Some(module) => {
                modules.insert(module.replace('.', "::"), level);
            }
            None => base = level,
        }
    }
    for (module, level) in &mut modules {
        if NEVER_BELOW_INFO.iter().any(|name| module.starts_with(name)) {
            *level = (*level).min(LevelFilter::INFO);
        }
    }
    Targets::new().with_default(base).with_targets(modules)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    fn options(levels: &[&str]) -> DefaultOptions {
        DefaultOptions {
            default_log_levels: levels.iter().map(|level| (*level).to_owned()).collect(),
            ..DefaultOptions::default()
        }
    }

    #[test]
    fn levels_of_modules_go_over_the_general_one() {
        let levels = targets(&DefaultOptions { debug: true, ..options(&["a.b=WARNING", "c=TRACE"]) });
        assert!(levels.would_enable("x", &Level::DEBUG) && !levels.would_enable("x", &Level::TRACE));
        assert!(levels.would_enable("a", &Level::DEBUG) && !levels.would_enable("a::b::c", &Level::INFO));
        assert!(levels.would_enable("c::d", &Level::TRACE));
        assert!(!targets(&options(&["ERROR"])).would_enable("x", &Level::WARN));
    }

    #[test]
    fn crates_that_log_request_bodies_never_go_below_info() {
        for levels in [&[][..], &["openstack=DEBUG", "osauth=TRACE", "openstack::compute=DEBUG", "DEBUG"][..]] {
            let levels = targets(&DefaultOptions { debug: true, ..options(levels) });
            for module in ["openstack", "openstack::compute::api", "osauth::session"] {
                assert!(levels.would_enable(module, &Level::INFO), "{module}");
                assert!(!levels.would_enable(module, &Level::DEBUG), "{module}");
            }
        }
        assert!(!targets(&options(&["openstack=ERROR"])).would_enable("openstack", &Level::INFO));
    }

    #[test]
    fn the_file_is_named_by_file_directory_and_program() {
        let path = |file: Option<&str>, directory: Option<&str>| {
            let options = DefaultOptions {
                log_file: file.map(str::to_owned),
                log_dir: directory.map(str::to_owned),
                ..DefaultOptions::default()
            };
            super::path(&options, "lambda-api").map(|path| path.to_str().unwrap().to_owned())
        };
        assert_eq!(path(None, None), None);
        assert_eq!(path(Some("a.log"), None).as_deref(), Some("a.log"));
        assert_eq!(path(Some("a.log"), Some("/d")).as_deref(), Some("/d/a.log"));
        assert_eq!(path(Some("/a.log"), Some("/d")).as_deref(), Some("/a.log"));
        assert_eq!(path(None, Some("/d")).as_deref(), Some("/d/lambda-api.log"));
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_said() {
        let options = DefaultOptions { log_file: Some("/nonexistent/x.log".to_owned()), ..DefaultOptions::default() };
        let error = Logs::build(&options, "p").unwrap_err();
        assert!(error.to_string().starts_with("the log file /nonexistent/x.log cannot be opened: "), "{error}");
    }

    #[test]
    fn events_carry_the_fields_of_their_spans_and_levels_and_files_change_on_reload() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x.log");
        let mut options =
            DefaultOptions { log_file: Some(file.to_str().unwrap().to_owned()), ..DefaultOptions::default() };
        let (logs, subscriber) = Logs::build(&options, "p").unwrap();
        tracing::subscriber::with_default(subscriber, || {
            let outer = tracing::info_span!("request", request_id = "req-1", project_id = tracing::field::Empty);
            outer.record("project_id", "p1");
            let _outer = outer.enter();
            let _inner = tracing::info_span!("execution", execution.id = "e1", count = 1).entered();
            tracing::info!(count = 2, "first");
            tracing::debug!("hidden");
            std::fs::rename(&file, directory.path().join("x.log.1")).unwrap();
            options.debug = true;
            logs.reload(&options).unwrap();
            tracing::debug!(target: "somewhere", "second");
        });
        let rotated = std::fs::read_to_string(directory.path().join("x.log.1")).unwrap();
        assert!(rotated.ends_with(" [None req-1 - p1 - - - -] first count=2 execution.id=e1\n"), "{rotated}");
        assert_eq!(rotated.lines().count(), 1, "{rotated}");
        let fresh = std::fs::read_to_string(&file).unwrap();
        assert!(fresh.contains(" DEBUG somewhere [None req-1 - p1 - - - -] second "), "{fresh}");
    }

    #[test]
    fn records_of_the_log_crate_are_written_under_their_own_module_and_level() {
        use tracing_log::log::{Level, Record};
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x.log");
        let path = Some(file.to_str().unwrap().to_owned());
        let (_logs, subscriber) =
            Logs::build(&DefaultOptions { debug: true, log_file: path, ..options(&[]) }, "p").unwrap();
        tracing::subscriber::with_default(subscriber, || {
            for (target, text) in [("openstack::compute", "secret user data"), ("some::crate", "shown")] {
                let arguments = format_args!("{text}");
                let record = Record::builder().level(Level::Debug).target(target).args(arguments).build();
                tracing_log::format_trace(&record).unwrap();
            }
        });
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.ends_with(" DEBUG some::crate [-] shown\n"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}
