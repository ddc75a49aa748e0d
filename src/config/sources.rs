//! Where values come from: the command line, the environment, files. It finds and reads them; it knows no option.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::error::{Origin, Problem};
use super::ini;

/// The project's name in paths, as oslo.config looks for it.
const PROJECT: &str = "lambda";

/// A `--config-file` or `--config-dir`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigPath {
    /// One file, which must be there.
    File(PathBuf),
    /// A directory, which must be there; its `*.conf` are read in the order of their names.
    Directory(PathBuf),
}

/// Where files are looked for when none is named.
#[derive(Clone, Debug)]
struct Search {
    program: String,
    home: Option<PathBuf>,
    etc: PathBuf,
}

/// All that a configuration is made of. Kept by a program, which reads it again on SIGHUP.
#[derive(Clone)]
pub struct Sources {
    paths: Vec<ConfigPath>,
    search: Option<Search>,
    environment: BTreeMap<String, String>,
    overrides: Vec<(&'static str, &'static str, Located)>,
}

/// Environment variables may hold secrets; their names do not.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("paths", &self.paths)
            .field("search", &self.search)
            .field("environment", &self.environment.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// A text and where it stands.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Located {
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// An assignment in a file or the environment, before anybody has asked whether there is such an option.
pub(super) struct Entry {
    pub(super) group: String,
    pub(super) option: String,
    pub(super) value: Located,
}

impl Sources {
    /// No source at all: the defaults. For tests, and to build upon.
    #[must_use]
    pub const fn none() -> Self {
        Self { paths: Vec::new(), search: None, environment: BTreeMap::new(), overrides: Vec::new() }
    }

    /// The sources of a running program: its environment and, as long as no file is named, `lambda.conf` and
    /// `<program>.conf`, each from the first of `~/.lambda/`, `~/`, `/etc/lambda/` and `/etc/` that has it, then the
    /// directories `lambda.conf.d` and `<program>.conf.d` likewise.
    #[must_use]
    pub fn of_process(program: &str) -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with("OS_") && name.contains("__"))
            .collect();
        let search = Search { program: program.to_owned(), home: std::env::home_dir(), etc: PathBuf::from("/etc") };
        Self { search: Some(search), environment, ..Self::none() }
    }

    /// Reads these files and directories; the later one wins. Where no file is among them, the default files are read
    /// before them, and where no directory is, the default directories.
    #[must_use]
    pub fn with_paths(mut self, paths: impl IntoIterator<Item = ConfigPath>) -> Self {
        self.paths.extend(paths);
        self
    }

    /// Sets an option from the command line, where it is called `flag`. It wins over everything else.
    #[must_use]
    pub fn with_override(
        mut self,
        group: &'static str,
        option: &'static str,
        value: impl Into<String>,
        flag: &'static str,
    ) -> Self {
        let value = Located { text: value.into(), origin: Origin::CommandLine(flag) };
        self.overrides.push((group, option, value));
        self
    }

    /// Takes these for environment variables of the process.
    #[must_use]
    pub fn with_environment<K: Into<String>, V: Into<String>>(
        mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.environment.extend(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// Where a file is looked for that the configuration names by a path which is not absolute: the directories that are
    /// named, those of the files that are named, the last one first, then where files are looked for by default.
    #[must_use]
    pub fn directories(&self) -> Vec<PathBuf> {
        let named = self.paths.iter().filter_map(|path| match path {
            ConfigPath::Directory(path) => Some(path.clone()),
            ConfigPath::File(_) => None,
        });
        let beside = self.paths.iter().rev().filter_map(|path| match path {
            ConfigPath::File(path) => path.parent().map(Path::to_owned),
            ConfigPath::Directory(_) => None,
        });
        named.chain(beside).chain(self.search.iter().flat_map(Search::directories)).collect()
    }

    /// What the command line set, the later the stronger.
    pub(super) fn overrides(&self) -> &[(&'static str, &'static str, Located)] {
        &self.overrides
    }

    /// What the environment sets: `OS_<GROUP>__<OPTION>`. Group and option are in lower case.
    pub(super) fn environment(&self) -> impl Iterator<Item = Entry> {
        self.environment.iter().filter_map(|(name, text)| {
            let (group, option) = name.strip_prefix("OS_")?.split_once("__")?;
            let value = Located { text: text.clone(), origin: Origin::Environment(name.clone()) };
            Some(Entry { group: group.to_ascii_lowercase(), option: option.to_ascii_lowercase(), value })
        })
    }

    /// The assignments of all files, the later the stronger. What cannot be read is noted.
    pub(super) fn file_entries(&self, problems: &mut Vec<Problem>) -> Vec<Entry> {
        let mut entries = Vec::new();
        for path in self.files(problems) {
            let text = match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(source) => {
                    problems.push(Problem::Unreadable { path, source });
                    continue;
                }
            };
            match ini::parse(&text) {
                Err(error) => problems.push(Problem::Syntax { path, error }),
                Ok(assignments) => entries.extend(assignments.into_iter().map(|assignment| Entry {
                    group: assignment.section,
                    option: assignment.key,
                    value: Located {
                        text: assignment.value,
                        origin: Origin::File { path: path.clone(), line: assignment.line },
                    },
                })),
            }
        }
        entries
    }

    /// The files to read, in order.
    fn files(&self, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
        let mut files = Vec::new();
        if let Some(search) = &self.search {
            if !self.paths.iter().any(|path| matches!(path, ConfigPath::File(_))) {
                files.extend(search.find(".conf"));
            }
            if !self.paths.iter().any(|path| matches!(path, ConfigPath::Directory(_))) {
                for directory in search.find(".conf.d") {
                    list(&directory, &mut files, problems);
                }
            }
        }
        for path in &self.paths {
            match path {
                ConfigPath::File(path) => files.push(path.clone()),
                ConfigPath::Directory(path) => list(path, &mut files, problems),
            }
        }
        files
    }
}

impl Search {
    fn directories(&self) -> Vec<PathBuf> {
        let mut directories = Vec::new();
        if let Some(home) = &self.home {
            directories.extend([home.join(format!(".{PROJECT}")), home.clone()]);
        }
        directories.extend([self.etc.join(PROJECT), self.etc.clone()]);
        directories
    }

    /// For the project and for the program, the first path that exists.
    fn find(&self, extension: &str) -> Vec<PathBuf> {
        let directories = self.directories();
        [PROJECT, &self.program]
            .into_iter()
            .filter_map(|name| {
                directories.iter().map(|path| path.join(format!("{name}{extension}"))).find(|path| path.exists())
            })
            .collect()
    }
}

/// Adds the `*.conf` of a directory, but not those that are hidden.
fn list(directory: &Path, files: &mut Vec<PathBuf>, problems: &mut Vec<Problem>) {
    let names: std::io::Result<Vec<PathBuf>> =
        std::fs::read_dir(directory).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    match names {
        Err(source) => problems.push(Problem::Unreadable { path: directory.to_owned(), source }),
        Ok(mut paths) => {
            paths.retain(|path| {
                path.file_name()
                    .and_then(|name| name.to_str())
                    .is_some_and(|name| !name.starts_with('.') && name.ends_with(".conf"))
            });
            paths.sort();
            files.extend(paths);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn sources(root: &Path) -> Sources {
        let search = Search { program: "lambda-api".to_owned(), home: Some(root.join("home")), etc: root.join("etc") };
        Sources { search: Some(search), ..Sources::none() }
    }

    fn touch(root: &Path, names: &[&str]) {
        for name in names {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
    }

    fn found(sources: &Sources, root: &Path) -> Vec<String> {
        let mut problems = Vec::new();
        let files = sources.files(&mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        files.iter().map(|path| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn default_files_are_the_first_of_each_name_and_the_program_s_comes_last() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        touch(
            root,
            &[
                "etc/lambda/lambda.conf",
                "etc/lambda.conf",
                "etc/lambda/lambda-api.conf",
                "home/.lambda/lambda-api.conf",
                "etc/lambda/lambda.conf.d/20-b.conf",
                "etc/lambda/lambda.conf.d/10-a.conf",
                "etc/lambda/lambda.conf.d/.hidden.conf",
                "etc/lambda/lambda.conf.d/readme.txt",
            ],
        );
        assert_eq!(
            found(&sources(root), root),
            [
                "etc/lambda/lambda.conf",
                "home/.lambda/lambda-api.conf",
                "etc/lambda/lambda.conf.d/10-a.conf",
                "etc/lambda/lambda.conf.d/20-b.conf"
            ]
        );
    }

    #[test]
    fn files_and_directories_that_are_named_come_in_their_order_and_replace_the_defaults() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        touch(root, &["etc/lambda.conf", "a.conf", "d/x.conf", "b.conf"]);
        let named = sources(root).with_paths([
            ConfigPath::File(root.join("b.conf")),
            ConfigPath::Directory(root.join("d")),
            ConfigPath::File(root.join("a.conf")),
        ]);
        assert_eq!(found(&named, root), ["b.conf", "d/x.conf", "a.conf"]);
        let directory_only = sources(root).with_paths([ConfigPath::Directory(root.join("d"))]);
        assert_eq!(found(&directory_only, root), ["etc/lambda.conf", "d/x.conf"]);
    }

    #[test]
    fn a_named_directory_that_is_not_there_is_a_problem() {
        let mut problems = Vec::new();
        let none = Sources::none().with_paths([ConfigPath::Directory("/nonexistent/d".into())]);
        assert!(none.files(&mut problems).is_empty());
        assert!(problems[0].to_string().starts_with("/nonexistent/d: cannot be read"), "{problems:?}");
    }

    #[test]
    fn debug_shows_no_value_of_the_environment() {
        let shown = format!("{:?}", Sources::none().with_environment([("OS_DATABASE__CONNECTION", "hunter2")]));
        assert!(shown.contains("OS_DATABASE__CONNECTION") && !shown.contains("hunter2"), "{shown}");
    }
}
