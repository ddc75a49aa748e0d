//! What is wrong with a configuration, said so that it can be mended: which option, where it was set, what was found and
//! what is expected. Secrets are not quoted.

use std::fmt;
use std::path::PathBuf;

use super::ini::SyntaxError;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A line of a file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable, by its name.
    Environment(String),
    /// An option of the command line, by its name.
    CommandLine(&'static str),
    /// Nobody set it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::CommandLine(name) => write!(f, "command line option {name}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A file or directory that was asked for cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line is not in the grammar.
    #[error("{}:{}: {}", path.display(), error.line, error.what)]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line and what is wrong with it.
        error: SyntaxError,
    },
    /// There is no such group.
    #[error("{origin}: there is no group [{group}]{}", hint(nearest.as_deref()))]
    UnknownGroup {
        /// Where it is.
        origin: Origin,
        /// What it is called there.
        group: String,
        /// What may have been meant.
        nearest: Option<String>,
    },
    /// There is no such option.
    #[error("{origin}: the group [{group}] has no option '{option}'{}", hint(nearest.as_deref()))]
    UnknownOption {
        /// Where it is.
        origin: Origin,
        /// The group.
        group: String,
        /// What it is called there.
        option: String,
        /// What may have been meant.
        nearest: Option<String>,
    },
    /// A value names an option that is not there, or that needs this one for its own value.
    #[error("{origin}: {group}.{option} refers to '${name}', {why}")]
    Reference {
        /// Where the value is.
        origin: Origin,
        /// The group of the option whose value it is.
        group: String,
        /// The option whose value it is.
        option: String,
        /// The name after the `$`.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A value is not what it has to be.
    #[error("{origin}: {group}.{option} is {}, but has to be {expected}", found(value.as_deref()))]
    Value {
        /// Where it is.
        origin: Origin,
        /// The group.
        group: &'static str,
        /// The option.
        option: &'static str,
        /// What was found; none: a secret.
        value: Option<String>,
        /// What is expected.
        expected: String,
    },
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!(", did you mean '{name}'?"))
}

fn found(value: Option<&str>) -> String {
    /// As much of a value as a message needs.
    const SHOWN: usize = 200;
    match value {
        None => "not readable (a secret, not shown)".to_owned(),
        Some("") => "empty".to_owned(),
        Some(value) if value.chars().count() > SHOWN => {
            format!("{:?}…", value.chars().take(SHOWN).collect::<String>())
        }
        Some(value) => format!("{value:?}"),
    }
}

/// A configuration that cannot be used, with everything that is wrong with it.
#[derive(Debug)]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Which of `names` a misspelled `word` was probably meant to be.
pub(super) fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let word = word.to_ascii_lowercase().replace('-', "_");
    names
        .map(|name| (distance(&word, &name.to_ascii_lowercase()), name))
        .filter(|(distance, name)| *distance <= 2 && *distance < name.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name.to_owned())
}

/// Levenshtein's distance: the fewest letters to add, drop or change.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_guessed_and_another_word_is_not() {
        let names = ["log_file", "log_dir", "debug", "host"];
        let guess = |word| nearest(word, names.into_iter());
        assert_eq!(guess("log-file").as_deref(), Some("log_file"));
        assert_eq!(guess("DEBUG").as_deref(), Some("debug"));
        assert_eq!(guess("debgu").as_deref(), Some("debug"));
        assert_eq!(guess("transport"), None);
    }

    #[test]
    fn several_problems_stand_in_one_line() {
        let problem = |line| Problem::UnknownGroup {
            origin: Origin::File { path: "/etc/lambda/lambda.conf".into(), line },
            group: "apii".to_owned(),
            nearest: Some("api".to_owned()),
        };
        let error = ConfigError { problems: vec![problem(1), problem(7)] };
        assert_eq!(
            error.to_string(),
            "/etc/lambda/lambda.conf:1: there is no group [apii], did you mean 'api'?; \
             /etc/lambda/lambda.conf:7: there is no group [apii], did you mean 'api'?"
        );
    }
}
