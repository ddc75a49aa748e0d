//! The command line, and the environment in its place. Few options and no user but our own drivers and images, so no
//! library for it.

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
usage: lambda-agent run [--gateway ADDRESS:PORT|unix:PATH] [--fingerprint SHA256] [--instance ID] [--memory-mib N]
                        [--work-dir DIR] [--python PATH] [--uid-base N] [--die-with-parent] [--no-cgroups]
                        [--shared-tmp] [--patience-seconds N]
       lambda-agent clean --work-dir DIR [--uid-base N]
       lambda-agent guest-network FILE
       lambda-agent --version

run            dials the gateway and runs sandboxes until it is told to end
clean          kills what a killed agent left behind and removes its directory
guest-network  tells what a config drive's network_data.json says, for the init of a server's image

The one-time token is read from the environment variable LAMBDA_AGENT_TOKEN. What is not an argument is read from there
too: LAMBDA_AGENT_GATEWAY, LAMBDA_AGENT_FINGERPRINT, LAMBDA_AGENT_INSTANCE, LAMBDA_AGENT_MEMORY_MIB. With a fingerprint
the gateway has to speak TLS and to show that certificate. Otherwise the directory is /var/lib/lambda-agent, Python is
/usr/bin/python3, and the users of sandboxes are chosen by the instance's id.

LAMBDA_AGENT_LOG sets what is logged to standard error: error, warn, info (default), debug or trace.

exit codes: 0 asked to end, 64 wrong use, 69 the gateway is out of reach, 71 the machine refused something,
            73 the directory cannot be used, 77 the gateway refused the agent
";

/// Where everything is kept when nothing else is said: in an image there is one agent.
const WORK_DIR: &str = "/var/lib/lambda-agent";
/// Python when nothing else is said.
const PYTHON: &str = "/usr/bin/python3";
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
    /// Tell what the file says of a server's network.
    GuestNetwork(PathBuf),
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

/// Reads a command line, the program's name excluded, with a look into the environment for what is not in it.
///
/// # Errors
/// When it is not understood.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, Misused> {
    // An image that sets a variable to nothing does not set it.
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    let mut arguments = arguments.into_iter();
    let command = arguments.next().unwrap_or_default();
    match command.to_str() {
        Some("run") => {
            let flags = ["--die-with-parent", "--no-cgroups", "--shared-tmp"];
            let known = [
                "--gateway",
                "--fingerprint",
                "--instance",
                "--work-dir",
                "--memory-mib",
                "--python",
                "--uid-base",
                "--patience-seconds",
            ];
            let mut options = Options::read(arguments, &known, &flags)?;
            let from_environment = [
                ("--gateway", GATEWAY),
                ("--fingerprint", FINGERPRINT),
                ("--instance", INSTANCE),
                ("--memory-mib", MEMORY),
            ];
            for (name, from) in from_environment {
                options.complete(name, from, variable(from));
            }
            let instance: String = options.needed("--instance")?;
            if instance.is_empty() || !instance.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
                return Err(Misused("--instance must be letters, digits and '-'".to_owned()));
            }
            let token = variable(TOKEN).and_then(|token| token.into_string().ok());
            Ok(Command::Run(Box::new(Config {
                gateway: options.needed("--gateway")?,
                fingerprint: options.given("--fingerprint")?,
                instance,
                token: token.ok_or_else(|| Misused(format!("the environment has no {TOKEN}")))?,
                work_dir: options.last("--work-dir").map_or_else(|| WORK_DIR.into(), PathBuf::from),
                memory_mib: options.needed("--memory-mib")?,
                python: options.last("--python").map_or_else(|| PYTHON.into(), PathBuf::from),
                uid_base: options.given("--uid-base")?,
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
        Some("guest-network") => match (arguments.next(), arguments.next()) {
            (Some(file), None) => Ok(Command::GuestNetwork(file.into())),
            _ => Err(Misused("guest-network needs one file".to_owned())),
        },
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
    /// Which variables stand in for options, for complaints.
    variables: BTreeMap<&'static str, &'static str>,
    flags: Vec<&'static str>,
}

impl Options {
    fn read(
        mut arguments: impl Iterator<Item = OsString>,
        known: &[&'static str],
        flags: &[&'static str],
    ) -> Result<Self, Misused> {
        let mut options = Self { values: BTreeMap::new(), variables: BTreeMap::new(), flags: Vec::new() };
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

    /// Takes an option from a variable where it was not given.
    fn complete(&mut self, name: &'static str, variable: &'static str, value: Option<OsString>) {
        if !self.values.contains_key(name) {
            self.variables.insert(name, variable);
            self.values.extend(value.map(|value| (name, vec![value])));
        }
    }

    /// What an option is called in complaints.
    fn called(&self, name: &'static str) -> String {
        match self.variables.get(name) {
            Some(variable) => format!("{name} ({variable})"),
            None => name.to_owned(),
        }
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
        parsed.map(Some).ok_or_else(|| Misused(format!("{} cannot be {}", self.called(name), value.display())))
    }

    fn needed<T: std::str::FromStr>(&mut self, name: &'static str) -> Result<T, Misused> {
        self.given(name)?.ok_or_else(|| Misused(format!("{} is missing", self.called(name))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str =
        "run --gateway 127.0.0.1:9071 --instance i-1 --work-dir /w --memory-mib 512 --python /usr/bin/python3";

    fn read(line: &str, token: Option<&str>) -> Result<Command, String> {
        let variables: Vec<_> = token.map(|token| (TOKEN, token)).into_iter().collect();
        read_with(line, &variables)
    }

    fn read_with(line: &str, variables: &[(&str, &str)]) -> Result<Command, String> {
        let variable = |name: &str| Some(variables.iter().find(|(known, _)| *known == name)?.1.into());
        parse(line.split_whitespace().map(OsString::from), variable).map_err(|error| error.0)
    }

    #[test]
    fn a_whole_command_line_is_understood() {
        let Ok(Command::Run(config)) = read(&format!("{RUN} --die-with-parent --uid-base 5"), Some("t")) else {
            panic!("run")
        };
        assert_eq!(config.gateway.to_string(), "127.0.0.1:9071");
        assert!(config.dies_with_parent && config.may_use_cgroups);
        assert_eq!((config.memory_mib, config.uid_base, config.token.as_str()), (512, Some(5), "t"));
        let launch =
            "launch --parent 7 --uid 9 --cgroup /c --limit core=0 --limit nofile=5 --directory /d --program /p";
        let Ok(Command::Launch(launch)) = read(launch, None) else { panic!("launch") };
        assert_eq!(launch.limits, [("core".to_owned(), 0), ("nofile".to_owned(), 5)]);
        assert_eq!((launch.user, launch.entrance), (Some(9), Some(PathBuf::from("/c"))));
    }

    #[test]
    fn what_is_no_argument_comes_from_the_environment() {
        let environment = [(GATEWAY, "10.0.0.1:9071"), (INSTANCE, "i-2"), (MEMORY, "128"), (TOKEN, "t")];
        let Ok(Command::Run(config)) = read_with("run", &environment) else { panic!("run") };
        assert_eq!((config.gateway.to_string(), config.instance.as_str()), ("10.0.0.1:9071".to_owned(), "i-2"));
        assert_eq!((config.memory_mib, config.uid_base), (128, None));
        assert_eq!((config.work_dir.as_path(), config.python.as_path()), (WORK_DIR.as_ref(), PYTHON.as_ref()));
        let Ok(Command::Run(config)) = read_with(RUN, &environment) else { panic!("run") };
        assert_eq!(
            (config.gateway.to_string(), config.memory_mib),
            ("127.0.0.1:9071".to_owned(), 512),
            "arguments come first"
        );
        let error = read_with("run", &[(GATEWAY, "here"), (INSTANCE, "i"), (TOKEN, "t")]).unwrap_err();
        assert!(error.contains("--gateway (LAMBDA_AGENT_GATEWAY) cannot be here"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, token, why) in [
            ("", None, "a command is missing"),
            ("walk", None, "no command walk"),
            (RUN, None, "no LAMBDA_AGENT_TOKEN"),
            ("run --instance i", Some("t"), "--gateway (LAMBDA_AGENT_GATEWAY) is missing"),
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
