//! `lambda-agent`: arguments to configuration, one runtime on the main thread, exit code.

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;

use lambda_agent::agent::{self, AgentError, Config};
use lambda_agent::args::{self, Command};
use lambda_agent::{clean, guest, secret};

fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1), |name| std::env::var_os(name)) {
        Ok(Command::Run(config)) => run(*config),
        Ok(Command::Clean { work_dir, uid_base }) => match clean::clean(&work_dir, uid_base) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(&format!("{}: {error}", work_dir.display()), 71),
        },
        Ok(Command::GuestNetwork(file)) => match std::fs::read(&file).map(|json| guest::network(&json)) {
            Ok(Ok(lines)) => tell(&lines),
            Ok(Err(error)) => complain(&format!("{}: {error}", file.display()), 65),
            Err(error) => complain(&format!("{}: {error}", file.display()), 66),
        },
        Ok(Command::Launch(launch)) => ExitCode::from(launch.become_program()),
        Ok(Command::Help) => tell(args::USAGE),
        Ok(Command::Version) => tell(concat!("lambda-agent ", env!("CARGO_PKG_VERSION"), "\n")),
        Err(misused) => complain(&format!("{misused}\n{}", args::USAGE.trim_end()), 64),
    }
}

fn run(config: Config) -> ExitCode {
    close_inherited();
    #[expect(clippy::disallowed_methods, reason = "for whoever looks for a fault, where there is no configuration")]
    let level = std::env::var("LAMBDA_AGENT_LOG").ok().and_then(|level| level.parse().ok());
    tracing_subscriber::fmt()
        .with_max_level(level.unwrap_or(tracing::Level::INFO))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    // Before anything else is started.
    if let Err(error) = secret::keep(args::TOKEN) {
        tracing::warn!(error = %error, "the token could not be removed from the environment: {error}");
    }
    // One thread: children die with the thread that started them.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("no runtime: {error}"), 71),
    };
    // As a task among the others: the future that a runtime is blocked on is woken by a system call.
    let run = runtime.spawn(agent::run(config));
    let ended = runtime.block_on(run);
    let ended = ended.unwrap_or_else(|panic| Err(AgentError::System("go on", std::io::Error::other(panic))));
    // Whatever still blocks has nothing to say any more.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = match &error {
                AgentError::WorkDir(_) => 73,
                AgentError::Gateway(lambda_agent::ConnectError::Refused(_) | lambda_agent::ConnectError::Stranger) => {
                    77
                }
                AgentError::Gateway(lambda_agent::ConnectError::Unreachable(_)) => 69,
                AgentError::System(..) => 71,
            };
            complain(&chain(&error), code)
        }
    }
}

/// Closes what our parent left open, before anything of ours is: sandboxes would inherit it.
fn close_inherited() {
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let open: Vec<i32> = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        // The directory's own is among them and closed already.
        let _ = nix::unistd::close(descriptor);
    }
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn tell(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn complain(text: &str, code: u8) -> ExitCode {
    // There is nobody left to tell when this fails.
    let _ = writeln!(std::io::stderr(), "lambda-agent: {text}");
    ExitCode::from(code)
}
