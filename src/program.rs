//! What all programs do alike: options of the command line, configuration, logs, signals, and the exit code.
//!
//! Exit codes: 0 stopped as asked, 1 failed while running, 2 cannot start with these options or this configuration. What
//! is wrong stands in one line on standard error.

pub mod signals;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Parser, value_parser};

use self::signals::{Reloads, Shutdown};
use crate::config::{self, Config, ConfigError, ConfigPath, Sources};
use crate::task::{TaskFailed, Tasks};
use crate::telemetry::{LogError, Logs, Metrics};

/// The exit code of a program that cannot start with what it was given.
const UNUSABLE: u8 = 2;

/// The options that every program has. Use it with `#[command(flatten)]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Common {
    /// `--config-file` and `--config-dir`, in the order of the command line, because the later one wins.
    pub paths: Vec<ConfigPath>,
    /// `--debug`.
    pub debug: bool,
}

const FILE: &str = "config-file";
const DIRECTORY: &str = "config-dir";
const DEBUG: &str = "debug";

/// By hand, because clap's derive forgets the order between two options.
impl Args for Common {
    fn augment_args(command: clap::Command) -> clap::Command {
        let path = |id: &'static str| {
            Arg::new(id).long(id).value_name("PATH").action(ArgAction::Append).value_parser(value_parser!(PathBuf))
        };
        command
            .arg(path(FILE).help(
                "Configuration file; may be given more than once, the later wins [default: lambda.conf and \
                 <program>.conf in ~/.lambda, ~, /etc/lambda or /etc]",
            ))
            .arg(
                path(DIRECTORY)
                    .help("Directory whose *.conf are read in the order of their names; may be given more than once"),
            )
            .arg(Arg::new(DEBUG).long(DEBUG).short('d').action(ArgAction::SetTrue).help("Log at DEBUG"))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Common {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut common = Self::default();
        common.update_from_arg_matches(matches)?;
        Ok(common)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let with_place = |id, kind: fn(PathBuf) -> ConfigPath| {
            let indices = matches.indices_of(id).into_iter().flatten();
            let values = matches.get_many::<PathBuf>(id).into_iter().flatten();
            indices.zip(values.map(move |path| kind(path.clone())))
        };
        let mut paths: Vec<_> =
            with_place(FILE, ConfigPath::File).chain(with_place(DIRECTORY, ConfigPath::Directory)).collect();
        paths.sort_by_key(|(index, _)| *index);
        self.paths = paths.into_iter().map(|(_, path)| path).collect();
        self.debug = matches.get_flag(DEBUG);
        Ok(())
    }
}

impl Common {
    /// The sources of the configuration of the program of this name. Add the program's own overrides to them.
    #[must_use]
    pub fn sources(&self, program: &str) -> Sources {
        let sources = Sources::of_process(program).with_paths(self.paths.iter().cloned());
        if self.debug { sources.with_override("DEFAULT", "debug", "true", "--debug") } else { sources }
    }
}

/// Why a program cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There can be no log.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// A program that has its configuration and its log.
#[derive(Debug)]
pub struct Started {
    /// What is configured.
    pub config: Config,
    /// Where that came from.
    pub sources: Sources,
    /// The log.
    pub logs: Logs,
}

/// Reads the configuration, starts the log, logs the configuration at debug, and makes ring the cryptography of TLS.
///
/// # Errors
/// When the configuration is wrong or the log cannot be written: exit with [`unusable`].
pub fn start(program: &'static str, sources: Sources) -> Result<Started, StartError> {
    let loaded = config::load(&sources)?;
    let logs = Logs::start(&loaded.config.default, program)?;
    // Two providers are compiled in by our dependencies, so rustls cannot choose by itself. An error means that one was
    // chosen before, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "{program} starts");
    config::log_all_values(&loaded.config);
    if !loaded.unread.is_empty() {
        tracing::info!("options that this release accepts and does not read: {}", loaded.unread.join(", "));
    }
    Ok(Started { config: loaded.config, sources, logs })
}

impl Started {
    /// Reads the configuration again and takes over what may change; opens the log file anew. For SIGHUP. What is
    /// wrong is logged, and everything stays as it was.
    ///
    /// Whether options were taken over, so that those who hold copies are told.
    pub fn reload(&mut self) -> bool {
        let changed = match self.config.reload(&self.sources) {
            Err(error) => {
                tracing::error!("the configuration stays as it was, because it cannot be read again: {error}");
                false
            }
            Ok((config, differences)) => {
                self.config = config;
                for name in &differences.taken {
                    tracing::info!(option = name, "option {name} is changed");
                }
                for name in &differences.waiting {
                    tracing::warn!(option = name, "option {name} has changed, which needs a restart");
                }
                !differences.taken.is_empty()
            }
        };
        if let Err(error) = self.logs.reload(&self.config.default) {
            tracing::error!("{error}");
        }
        changed
    }
}

/// A program while it runs: its configuration, its tasks and numbers, and the signals that it listens to.
pub struct Life {
    /// What it was started with; reloaded on SIGHUP.
    pub started: Started,
    /// Its background work.
    pub tasks: Tasks,
    /// What it counts.
    pub metrics: Metrics,
    shutdown: Shutdown,
    reloads: Reloads,
}

impl Life {
    /// Begins to listen to signals, and counts tasks that are started again.
    ///
    /// # Errors
    /// When the operating system refuses to tell of signals.
    pub fn begin(program: &str, started: Started) -> std::io::Result<Self> {
        let (metrics, tasks) = (Metrics::new(program), Tasks::new());
        let restarts = metrics.clone();
        tasks.on_restart(move |task| restarts.task_restarted(task));
        Ok(Self { started, tasks, metrics, shutdown: Shutdown::listen()?, reloads: Reloads::listen()? })
    }

    /// How long running work may take to end.
    #[must_use]
    pub const fn grace(&self) -> Duration {
        Duration::from_secs(self.started.config.default.graceful_shutdown_timeout)
    }

    /// Lasts until the program is asked to stop, or a task ends without which it cannot go on. `reloaded` is told of
    /// options that were taken over meanwhile.
    pub async fn last(&mut self, reloaded: impl AsyncFn(&Config)) -> Option<TaskFailed> {
        loop {
            tokio::select! {
                signal = self.shutdown.recv() => {
                    tracing::info!("{signal}: stopping");
                    return None;
                }
                () = self.reloads.recv() => {
                    if self.started.reload() {
                        reloaded(&self.started.config).await;
                    }
                }
                failed = self.tasks.failed() => return Some(failed),
            }
        }
    }

    /// Waits for the tasks, which are told to end, and says how the program's life went.
    ///
    /// # Errors
    /// The task that ended it.
    pub async fn end(self, within: Duration, failed: Option<TaskFailed>) -> Result<(), TaskFailed> {
        if !self.tasks.stop(within).await {
            tracing::warn!("some tasks did not end in time");
        }
        match failed {
            Some(failed) => Err(failed),
            None => {
                tracing::info!("stopped");
                Ok(())
            }
        }
    }
}

/// Who else needs the machine that a program runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// Nobody to speak of.
    Own,
    /// The sandboxes that it starts. With fewer threads than processors, work that comes alone does not wake a second
    /// thread beside the one that does it.
    Shared,
}

impl Machine {
    /// Threads to carry the program's work, unless so many are configured.
    fn threads(self, configured: usize) -> usize {
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        match (configured, self) {
            (0, Self::Own) => processors,
            (0, Self::Shared) => processors.div_ceil(2),
            (configured, Self::Own | Self::Shared) => configured,
        }
    }
}

/// A program's `main`: reads the command line and the configuration, starts the log, runs, and says with the exit code
/// how that went.
pub fn main<A, F>(
    program: &'static str,
    machine: Machine,
    sources: impl FnOnce(&A) -> Sources,
    run: impl FnOnce(Started) -> F,
) -> ExitCode
where
    A: Parser,
    F: Future<Output = anyhow::Result<()>>,
{
    let options: A = match parse(program) {
        Ok(options) => options,
        Err(code) => return code,
    };
    let started = match start(program, sources(&options)) {
        Ok(started) => started,
        Err(error) => return unusable(program, &error),
    };
    let threads = machine.threads(started.config.default.threads);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(program, &error),
    };
    match runtime.block_on(run(started)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(program, &format!("{error:#}")),
    }
}

/// Reads the command line.
///
/// # Errors
/// With the exit code, after the help was printed or what is wrong was said in one line.
pub fn parse<A: Parser>(program: &str) -> Result<A, ExitCode> {
    A::try_parse().map_err(|error| refused(program, &error))
}

fn refused(program: &str, error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // Fails where nobody reads.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    unusable(program, &first_line(error))
}

/// What clap says is wrong, without its usage and hints.
fn first_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let mut lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    let said = lines.by_ref().collect::<Vec<_>>().join(" ");
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a subcommand is missing (try --help)".to_owned();
    }
    format!("{} (try --help)", said.strip_prefix("error: ").unwrap_or(&said))
}

/// Says in one line why the program cannot start; its exit code.
pub fn unusable(program: &str, why: &dyn std::fmt::Display) -> ExitCode {
    say(program, why);
    ExitCode::from(UNUSABLE)
}

/// Says in one line why the program failed while it ran; its exit code.
pub fn failed(program: &str, why: &dyn std::fmt::Display) -> ExitCode {
    say(program, why);
    ExitCode::FAILURE
}

fn say(program: &str, why: &dyn std::fmt::Display) {
    eprintln!("{program}: {}", why.to_string().replace('\n', " "));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    struct Options {
        #[command(flatten)]
        common: Common,
        #[arg(long)]
        data_dir: Option<String>,
    }

    fn parsed(arguments: &[&str]) -> Result<Options, clap::Error> {
        Options::try_parse_from(std::iter::once("lambda-api").chain(arguments.iter().copied()))
    }

    #[test]
    fn files_and_directories_keep_the_order_of_the_command_line() {
        let options =
            parsed(&["--config-file", "a", "--config-dir=b", "--data-dir", "d", "--config-file=c", "--debug"]).unwrap();
        let file = |name: &str| ConfigPath::File(name.into());
        assert_eq!(options.common.paths, [file("a"), ConfigPath::Directory("b".into()), file("c")]);
        assert!(options.common.debug);
        assert_eq!(options.data_dir.as_deref(), Some("d"));
        assert_eq!(parsed(&[]).unwrap().common, Common::default());
    }

    #[test]
    fn debug_on_the_command_line_wins() {
        let common = Common { paths: Vec::new(), debug: true };
        let sources = common.sources("lambda-api").with_environment([("OS_DEFAULT__DEBUG", "false")]);
        assert!(Config::load(&sources).unwrap().default.debug);
    }

    #[test]
    fn what_is_wrong_with_the_command_line_fits_in_one_line() {
        let error = parsed(&["--banana"]).unwrap_err();
        assert_eq!(first_line(&error), "unexpected argument '--banana' found (try --help)");
        let error = parsed(&["--config-file"]).unwrap_err();
        assert_eq!(
            first_line(&error),
            "a value is required for '--config-file <PATH>' but none was supplied (try --help)"
        );
    }

    #[test]
    fn a_reload_tells_what_changed_and_keeps_everything_when_the_file_is_wrong() {
        let directory = tempfile::tempdir().unwrap();
        let (file, log) = (directory.path().join("lambda.conf"), directory.path().join("x.log"));
        let write = |worker: &str| {
            let text = format!("[DEFAULT]\nlog_file = {}\n[worker]\n{worker}", log.display());
            std::fs::write(&file, text).unwrap();
        };
        write("keep_alive = 1\n");
        let sources = Sources::none().with_paths([ConfigPath::File(file.clone())]);
        let config = Config::load(&sources).unwrap();
        let (logs, subscriber) = Logs::build(&config.default, "p").unwrap();
        let mut started = Started { config, sources, logs };
        tracing::subscriber::with_default(subscriber, || {
            assert!(!started.reload());
            write("keep_alive = 2\nmax_running = 3\n");
            assert!(started.reload());
            assert_eq!((started.config.worker.keep_alive, started.config.worker.max_running), (2, 64));
            write("keep_alive = x\n");
            assert!(!started.reload());
            assert_eq!(started.config.worker.keep_alive, 2);
        });
        let logged = std::fs::read_to_string(&log).unwrap();
        let has = |level: &str, text: &str| logged.lines().any(|line| line.contains(level) && line.contains(text));
        assert!(has(" INFO ", "option worker.keep_alive is changed"), "{logged}");
        assert!(has(" WARNING ", "option worker.max_running has changed, which needs a restart"), "{logged}");
        assert!(has(" ERROR ", "worker.keep_alive is \"x\", but has to be a whole number"), "{logged}");
    }
}
