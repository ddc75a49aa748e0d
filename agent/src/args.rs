//! The command line. Few options and no user but our own drivers, so no library for it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::agent::Config;
use crate::launch::Launch;
use crate::private::Private;

/// Where the one-time token comes from: the environment, because others can read arguments.
pub const TOKEN: &str = "LAMBDA_AGENT_TOKEN";
/// The gateway's address and port, where the agent is given no arguments.
pub const GATEWAY: &str = "LAMBDA_AGENT_GATEWAY";
/// SHA-256 of the certificate that the gateway must show, in hexadecimal digits.
pub const FINGERPRINT: &str = "LAMBDA_AGENT_FINGERPRINT";
/// The instance's id.
pub const INSTANCE: &str = "LAMBDA_AGENT_INSTANCE";
/// Memory for sandboxes, in MiB.
pub const MEMORY: &str = "LAMBDA_AGENT_MEMORY_MIB";

/// How the program is used.
pub const USAGE: &str = "\
usage: lambda-agent run --gateway ADDRESS:PORT --instance ID --work-dir DIR --memory-mib N --python PATH
                        [--uid-base N] [--die-with-parent] [--no-cgroups] [--shared-tmp] [--patience-seconds N]
       lambda-agent clean --work-dir DIR [--uid-base N]
       lambda-agent --version

run    dials the gateway and runs sandboxes until it is told to end; the one-time token is read from the environment
       variable LAMBDA_AGENT_TOKEN
clean  kills what a killed agent left behind and removes its directory

LAMBDA_AGENT_LOG sets what is logged to standard error: error, warn, info (default), debug or trace.

exit codes: 0 asked to end, 64 wrong use, 69 the gateway is out of reach, 71 the machine refused something,
            73 the directory cannot be used, 77 the gateway refused the agent
";

/// First user of sandboxes when nothing else is said.
const UID_BASE: u32 = 200_000;
const PATIENCE: u64 = 300;

/// What is asked for.
#[derive(Debug)]
pub enum Command {
    /// Run an agent.
    Run(Box<Config>),
    /// Clean up after one.
    Clean {
        /// Its directory.
        work_dir: PathBuf,
        /// First of its users, for a directory that no longer tells.
        uid_base: Option<u32>,
    },
    /// Become a sandbox's program. Not for people.
    Launch(Launch),
    /// Tell the usage.
    Help,
    /// Tell the version.
    Version,
}

/// A command line that is not understood; the text says why.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Misused(String);

/// Reads a command line, the program's name excluded.
///
/// # Errors
/// When it is not understood.
pub fn parse(arguments: impl IntoIterator<Item = OsString>, token: Option<String>) -> Result<Command, Misused> {
    let mut arguments = arguments.into_iter();
    let command = arguments.next().unwrap_or_default();
    match command.to_str() {
        Some("run") => {
            let flags = ["--die-with-parent", "--no-cgroups", "--shared-tmp"];
            let known = [
                "--gateway",
                "--instance",
                "--work-dir",
                "--memory-mib",
                "--python",
                "--uid-base",
                "--patience-seconds",
            ];
            let mut options = Options::read(arguments, &known, &flags)?;
            let instance: String = options.needed("--instance")?;
            if instance.is_empty() || !instance.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
                return Err(Misused("--instance must be letters, digits and '-'".to_owned()));
            }
            let token = token.filter(|token| !token.is_empty());
            Ok(Command::Run(Box::new(Config {
                gateway: options.needed("--gateway")?,
                instance,
                token: token.ok_or_else(|| Misused(format!("the environment has no {TOKEN}")))?,
                work_dir: options.path("--work-dir")?,
                memory_mib: options.needed("--memory-mib")?,
                python: options.path("--python")?,
                uid_base: options.given("--uid-base")?.unwrap_or(UID_BASE),
                dies_with_parent: options.flags.contains(&"--die-with-parent"),
                has_private_views: !options.flags.contains(&"--shared-tmp"),
                may_use_cgroups: !options.flags.contains(&"--no-cgroups"),
                patience: Duration::from_secs(options.given("--patience-seconds")?.unwrap_or(PATIENCE)),
            })))
        }
        Some("clean") => {
            let mut options = Options::read(arguments, &["--work-dir", "--uid-base"], &[])?;
            Ok(Command::Clean { work_dir: options.path("--work-dir")?, uid_base: options.given("--uid-base")? })
        }
        Some("launch") => {
            let known =
                ["--parent", "--uid", "--cgroup", "--temporary", "--work-dir", "--limit", "--directory", "--program"];
            let mut options = Options::read(arguments, &known, &[])?;
            let limits = options.values.remove("--limit").unwrap_or_default();
            let limit = |text: OsString| {
                let text = text.into_string().ok()?;
                let (name, value) = text.split_once('=')?;
                Some((name.to_owned(), value.parse().ok()?))
            };
            let limits = limits.into_iter().map(limit).collect::<Option<_>>();
            Ok(Command::Launch(Launch {
                parent: options.needed("--parent")?,
                user: options.given("--uid")?,
                entrance: options.values.contains_key("--cgroup").then(|| options.path("--cgroup")).transpose()?,
                private: match options.last("--temporary").map(PathBuf::from) {
                    Some(temporary) => Some(Private { temporary, work_dir: options.path("--work-dir")? }),
                    None => None,
                },
                limits: limits.ok_or_else(|| Misused("--limit must be NAME=VALUE".to_owned()))?,
                directory: options.path("--directory")?,
                program: options.path("--program")?,
            }))
        }
        Some("--version" | "-V") => Ok(Command::Version),
        Some("--help" | "-h" | "help") => Ok(Command::Help),
        Some("") => Err(Misused("a command is missing".to_owned())),
        _ => Err(Misused(format!("there is no command {}", command.display()))),
    }
}

struct Options {
    values: BTreeMap<&'static str, Vec<OsString>>,
    flags: Vec<&'static str>,
}

impl Options {
    fn read(
        mut arguments: impl Iterator<Item = OsString>,
        known: &[&'static str],
        flags: &[&'static str],
    ) -> Result<Self, Misused> {
        let mut options = Self { values: BTreeMap::new(), flags: Vec::new() };
        while let Some(argument) = arguments.next() {
            let is_it = |name: &&&str| argument == **name;
            if let Some(flag) = flags.iter().find(is_it) {
                options.flags.push(flag);
            } else if let Some(name) = known.iter().find(is_it) {
                let value = arguments.next().ok_or_else(|| Misused(format!("{name} needs a value")))?;
                options.values.entry(name).or_default().push(value);
            } else {
                return Err(Misused(format!("there is no option {}", argument.display())));
            }
        }
        Ok(options)
    }

    fn last(&mut self, name: &'static str) -> Option<OsString> {
        self.values.get_mut(name)?.pop()
    }

    fn path(&mut self, name: &'static str) -> Result<PathBuf, Misused> {
        self.last(name).map(PathBuf::from).ok_or_else(|| Misused(format!("{name} is missing")))
    }

    fn given<T: std::str::FromStr>(&mut self, name: &'static str) -> Result<Option<T>, Misused> {
        let Some(value) = self.last(name) else { return Ok(None) };
        let parsed = value.to_str().and_then(|text| text.parse().ok());
        parsed.map(Some).ok_or_else(|| Misused(format!("{name} cannot be {}", value.display())))
    }

    fn needed<T: std::str::FromStr>(&mut self, name: &'static str) -> Result<T, Misused> {
        self.given(name)?.ok_or_else(|| Misused(format!("{name} is missing")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str =
        "run --gateway 127.0.0.1:9071 --instance i-1 --work-dir /w --memory-mib 512 --python /usr/bin/python3";

    fn read(line: &str, token: Option<&str>) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from), token.map(str::to_owned)).map_err(|error| error.0)
    }

    #[test]
    fn a_whole_command_line_is_understood() {
        let Ok(Command::Run(config)) = read(&format!("{RUN} --die-with-parent --uid-base 5"), Some("t")) else {
            panic!("run")
        };
        assert_eq!(config.gateway, ([127, 0, 0, 1], 9071).into());
        assert!(config.dies_with_parent && config.may_use_cgroups);
        assert_eq!((config.memory_mib, config.uid_base, config.token.as_str()), (512, 5, "t"));
        let launch =
            "launch --parent 7 --uid 9 --cgroup /c --limit core=0 --limit nofile=5 --directory /d --program /p";
        let Ok(Command::Launch(launch)) = read(launch, None) else { panic!("launch") };
        assert_eq!(launch.limits, [("core".to_owned(), 0), ("nofile".to_owned(), 5)]);
        assert_eq!((launch.user, launch.entrance), (Some(9), Some(PathBuf::from("/c"))));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, token, why) in [
            ("", None, "a command is missing"),
            ("walk", None, "no command walk"),
            (RUN, None, "no LAMBDA_AGENT_TOKEN"),
            ("run --instance i", Some("t"), "--gateway is missing"),
            ("run --instance ../i", Some("t"), "--instance must be"),
            ("run --gateway", Some("t"), "--gateway needs a value"),
            ("run --instance i --gateway localhost:1", Some("t"), "--gateway cannot be localhost:1"),
            ("clean --force", None, "no option --force"),
            ("launch --parent 1 --limit core --directory / --program /", None, "NAME=VALUE"),
        ] {
            let error = read(line, token).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}
