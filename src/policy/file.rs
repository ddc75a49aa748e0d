//! The operator's files over the defaults in code: `policy.yaml`, then the directories of `policy_dirs`, the later the
//! stronger. They are read at start and again when one of them has changed, which is looked for at a question that comes
//! a second or more after the last look. What is wrong then is logged, and the rules that were good stay.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use super::check::Attributes;
use super::parse::{self, NoRule};
use super::{DefaultRule, PolicyError, Rules};
use crate::config::OsloPolicyOptions;

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Which files there may be.
#[derive(Clone, Debug)]
pub struct Files {
    file: String,
    /// Whether the configuration names the file, so that it must be there.
    named: bool,
    directories: Vec<String>,
    default_rule: String,
    enforce_scope: bool,
    search: Vec<PathBuf>,
    look_every: Duration,
}

impl Files {
    /// Those of the options; paths that are not absolute are looked for in these directories, the first that has one
    /// counts.
    #[must_use]
    pub fn new(options: &OsloPolicyOptions, search: Vec<PathBuf>) -> Self {
        let defaults = OsloPolicyOptions::default();
        Self {
            named: options.policy_file != defaults.policy_file,
            file: options.policy_file.clone(),
            directories: options.policy_dirs.0.clone(),
            default_rule: options.policy_default_rule.clone(),
            enforce_scope: options.enforce_scope,
            search,
            look_every: LOOK_EVERY,
        }
    }

    /// Looks at the files with every question.
    #[must_use]
    pub const fn always_looking(mut self) -> Self {
        self.look_every = Duration::ZERO;
        self
    }

    fn find(&self, path: &str) -> Option<PathBuf> {
        let path = Path::new(path);
        if path.is_absolute() {
            return path.exists().then(|| path.to_owned());
        }
        self.search.iter().map(|directory| directory.join(path)).find(|path| path.exists())
    }

    /// The files that there are, in the order in which they count.
    fn list(&self) -> Result<Vec<PathBuf>, PolicyError> {
        let mut files = Vec::new();
        match self.find(&self.file) {
            Some(path) => files.push(path),
            None if self.named => return Err(PolicyError::Missing(self.file.clone())),
            None => {}
        }
        for directory in self.directories.iter().filter_map(|directory| self.find(directory)) {
            let wrong = |source| PolicyError::Unreadable { path: directory.clone(), source };
            let mut inside = Vec::new();
            for entry in std::fs::read_dir(&directory).map_err(wrong)? {
                let path = entry.map_err(wrong)?.path();
                let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
                if !hidden && path.is_file() {
                    inside.push(path);
                }
            }
            inside.sort();
            files.append(&mut inside);
        }
        Ok(files)
    }
}

/// What tells that files have changed: which there are, and each one's time, size and place on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen(Result<Vec<(PathBuf, Option<Mark>)>, String>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

fn seen(files: &Files) -> Seen {
    use std::os::unix::fs::MetadataExt as _;
    let mark = |path: PathBuf| {
        let metadata = std::fs::metadata(&path).ok();
        let mark = metadata.map(|metadata| Mark {
            modified: metadata.modified().ok(),
            length: metadata.len(),
            inode: metadata.ino(),
        });
        (path, mark)
    };
    let listed = files.list().map(|paths| paths.into_iter().map(mark).collect());
    Seen(listed.map_err(|error| error.to_string()))
}

/// Answers questions by the rules that hold at present.
#[derive(Debug)]
pub struct Enforcer {
    defaults: Vec<DefaultRule>,
    files: Option<Files>,
    rules: RwLock<Arc<Rules>>,
    look: Mutex<Look>,
}

#[derive(Debug)]
struct Look {
    at: Instant,
    seen: Option<Seen>,
}

impl Enforcer {
    /// Only the defaults, without any file.
    ///
    /// # Errors
    /// When the defaults are wrong: a fault of the code.
    pub fn of_defaults(defaults: Vec<DefaultRule>) -> Result<Self, PolicyError> {
        let rules = with_defaults(BTreeMap::new(), &defaults, "default", true)?;
        Ok(Self::new(defaults, None, rules, None))
    }

    /// The defaults and the files over them.
    ///
    /// # Errors
    /// When a file cannot be read or is wrong.
    pub fn open(defaults: Vec<DefaultRule>, files: Files) -> Result<Self, PolicyError> {
        let seen = seen(&files);
        let rules = load(&files, &defaults)?;
        Ok(Self::new(defaults, Some(files), rules, Some(seen)))
    }

    fn new(defaults: Vec<DefaultRule>, files: Option<Files>, rules: Rules, seen: Option<Seen>) -> Self {
        let look = Mutex::new(Look { at: Instant::now(), seen });
        Self { defaults, files, rules: RwLock::new(Arc::new(rules)), look }
    }

    /// The rules that hold now, after a look at the files when it is time for one.
    pub fn rules(&self) -> Arc<Rules> {
        if let Some(files) = &self.files {
            self.look(files);
        }
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a caller may do to a target what a rule is for.
    pub fn allow(&self, rule: &str, target: &Attributes, caller: &Attributes) -> bool {
        self.rules().allow(rule, target, caller)
    }

    fn look(&self, files: &Files) {
        // Who finds it taken answers by the rules that are there.
        let Ok(mut look) = self.look.try_lock() else { return };
        if look.at.elapsed() < files.look_every {
            return;
        }
        look.at = Instant::now();
        let now = Some(seen(files));
        if look.seen == now {
            return;
        }
        look.seen = now;
        match load(files, &self.defaults) {
            Ok(rules) => {
                *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
                tracing::info!("the policy files have changed and are read again");
            }
            Err(error) => {
                let chain = crate::task::chain(&error);
                tracing::error!("the policy stays as it was, because its files cannot be read again: {chain}");
            }
        }
    }
}

/// Reads the files; says what is strange in them.
fn load(files: &Files, defaults: &[DefaultRule]) -> Result<Rules, PolicyError> {
    let mut values = BTreeMap::new();
    for path in files.list()? {
        let text =
            std::fs::read_to_string(&path).map_err(|source| PolicyError::Unreadable { path: path.clone(), source })?;
        for (name, value) in parse_file(&path, &text)? {
            values.insert(name, (path.clone(), value));
        }
    }
    with_defaults(values, defaults, &files.default_rule, files.enforce_scope)
}

fn parse_file(path: &Path, text: &str) -> Result<BTreeMap<String, Value>, PolicyError> {
    let value: Value =
        serde_yaml_ng::from_str(text).map_err(|source| PolicyError::NotYaml { path: path.to_owned(), source })?;
    match value {
        Value::Null => Ok(BTreeMap::new()),
        Value::Object(rules) => Ok(rules.into_iter().collect()),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(PolicyError::NotRules(path.to_owned()))
        }
    }
}

fn with_defaults(
    values: BTreeMap<String, (PathBuf, Value)>,
    defaults: &[DefaultRule],
    default_rule: &str,
    enforce_scope: bool,
) -> Result<Rules, PolicyError> {
    let mut checks = BTreeMap::new();
    let wrong = |path: &Path, name: &str, source: NoRule| PolicyError::NoRule {
        path: path.to_owned(),
        name: name.to_owned(),
        source,
    };
    for rule in defaults {
        let parsed = parse::parse(rule.check_str).map_err(|source| wrong(Path::new("(code)"), rule.name, source))?;
        checks.insert(rule.name.to_owned(), parsed.check);
    }
    let mut added = BTreeSet::new();
    for (name, (path, value)) in &values {
        let parsed = parse::value(value).map_err(|source| wrong(path, name, source))?;
        if let Some(complaint) = parsed.complaint {
            tracing::error!("policy rule '{name}' in {}: {complaint}", path.display());
        }
        if checks.insert(name.clone(), parsed.check).is_none() {
            added.insert(name.as_str());
        }
    }
    let mut named = Vec::new();
    checks.values().for_each(|check| check.rules(&mut named));
    for name in added.iter().filter(|name| **name != default_rule && !named.iter().any(|used| used == *name)) {
        tracing::warn!("policy rule '{name}' is unknown and named by no other rule: it has no effect");
    }
    for name in named.iter().filter(|name| !checks.contains_key(*name)).collect::<BTreeSet<_>>() {
        tracing::warn!("policy rule '{name}' is named by other rules and is not there");
    }
    let mut rules = Rules::new(checks, default_rule)?;
    if enforce_scope {
        rules.scope_types = defaults.iter().map(|rule| (rule.name.to_owned(), rule.scope_types)).collect();
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::config::Multi;

    const DEFAULTS: [DefaultRule; 2] = [
        DefaultRule { name: "admin", check_str: "role:admin", scope_types: &[] },
        DefaultRule { name: "things:list", check_str: "role:reader", scope_types: &["project"] },
    ];

    fn open(options: &OsloPolicyOptions, directory: &Path) -> Result<Enforcer, PolicyError> {
        let search = vec![directory.join("nowhere"), directory.to_owned()];
        Enforcer::open(DEFAULTS.to_vec(), Files::new(options, search).always_looking())
    }

    fn may(enforcer: &Enforcer, role: &str) -> bool {
        let caller = serde_json::json!({"roles": [role]});
        enforcer.allow("things:list", &Attributes::new(), caller.as_object().unwrap())
    }

    /// What is logged meanwhile.
    fn logged(directory: &Path, work: impl FnOnce()) -> String {
        let log = directory.join("x.log");
        let options = crate::config::DefaultOptions {
            log_file: Some(log.display().to_string()),
            ..crate::config::DefaultOptions::default()
        };
        let (_logs, subscriber) = crate::telemetry::Logs::build(&options, "p").unwrap();
        tracing::subscriber::with_default(subscriber, work);
        fs::read_to_string(log).unwrap_or_default()
    }

    #[test]
    fn files_override_the_code_and_the_later_the_earlier() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let options = OsloPolicyOptions::default();
        assert!(may(&open(&options, path).unwrap(), "reader"), "no file has to be there");
        fs::write(path.join("policy.yaml"), "# comment\n\"things:list\": \"role:x\"\n").unwrap();
        let enforcer = open(&options, path).unwrap();
        assert!(may(&enforcer, "x") && !may(&enforcer, "reader"));
        fs::create_dir(path.join("policy.d")).unwrap();
        for (name, text) in [
            ("20-b.yaml", "things:list: role:b"),
            ("10-a.yaml", "things:list: role:a"),
            (".hidden.yaml", "nonsense: ["),
            ("30-empty.yaml", ""),
        ] {
            fs::write(path.join("policy.d").join(name), text).unwrap();
        }
        let enforcer = open(&options, path).unwrap();
        assert!(may(&enforcer, "b") && !may(&enforcer, "a") && !may(&enforcer, "x"));
        let options = OsloPolicyOptions { policy_dirs: Multi(Vec::new()), ..options };
        assert!(may(&open(&options, path).unwrap(), "x"));
    }

    #[test]
    fn what_is_wrong_at_the_start_says_where_and_why() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let file = path.join("policy.yaml");
        let error = |text: &str| {
            fs::write(&file, text).unwrap();
            let error = open(&OsloPolicyOptions::default(), path).unwrap_err();
            crate::task::chain(&error)
        };
        assert!(error("a: [").contains("policy.yaml is no YAML: "));
        assert!(error("- a").contains("must map names of rules to check strings"));
        let null = error("things:list:");
        assert!(null.contains("policy.yaml: rule 'things:list': must be a text"), "{null}");
        assert!(error("a: rule:b\nb: rule:a").contains("rules a, b lead back to themselves"));
        assert!(error("a: http://x/").contains("asks a server"));
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert!(crate::task::chain(&open(&OsloPolicyOptions::default(), path).unwrap_err()).contains("cannot be read"));
        let named = OsloPolicyOptions { policy_file: "other.yaml".to_owned(), ..OsloPolicyOptions::default() };
        assert!(matches!(open(&named, path), Err(PolicyError::Missing(_))));
    }

    #[test]
    fn changed_files_are_read_again_and_wrong_ones_leave_everything_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let file = path.join("policy.yaml");
        let log = logged(path, || {
            let enforcer = open(&OsloPolicyOptions::default(), path).unwrap();
            assert!(may(&enforcer, "reader"));
            fs::write(&file, "things:list: role:x").unwrap();
            assert!(may(&enforcer, "x") && !may(&enforcer, "reader"));
            fs::write(&file, "things:list: [[").unwrap();
            assert!(may(&enforcer, "x") && !may(&enforcer, "reader"));
            // Another file in its place, of the same length.
            fs::write(path.join("new"), "things:list: role:y").unwrap();
            fs::rename(path.join("new"), &file).unwrap();
            assert!(may(&enforcer, "y") && !may(&enforcer, "x"));
            fs::remove_file(&file).unwrap();
            assert!(may(&enforcer, "reader"));
        });
        let has = |level: &str, text: &str| log.lines().any(|line| line.contains(level) && line.contains(text));
        assert!(has(" ERROR ", "the policy stays as it was"), "{log}");
        assert!(has(" INFO ", "are read again"), "{log}");
    }

    #[test]
    fn what_is_strange_in_a_file_is_logged() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::write(
            path.join("policy.yaml"),
            "things:lst: role:x\nhelper: role:y\nthings:list: rule:helper or rule:helpr\nodd: role:a and\n",
        )
        .unwrap();
        let log = logged(path, || {
            open(&OsloPolicyOptions::default(), path).unwrap();
        });
        let has = |level: &str, text: &str| log.lines().any(|line| line.contains(level) && line.contains(text));
        assert!(has(" WARNING ", "policy rule 'things:lst' is unknown"), "{log}");
        assert!(!log.contains("'helper'"), "{log}");
        assert!(has(" WARNING ", "policy rule 'helpr' is named by other rules and is not there"), "{log}");
        assert!(has(" ERROR ", "policy rule 'odd'"), "{log}");
    }

    #[test]
    fn a_token_of_another_scope_is_refused_unless_scopes_do_not_matter() {
        let caller = serde_json::json!({"roles": ["reader"], "system_scope": "all"});
        let asked = |enforce_scope| {
            let directory = tempfile::tempdir().unwrap();
            let options = OsloPolicyOptions { enforce_scope, ..OsloPolicyOptions::default() };
            let enforcer = open(&options, directory.path()).unwrap();
            enforcer.allow("things:list", &Attributes::new(), caller.as_object().unwrap())
        };
        assert!(!asked(true));
        assert!(asked(false));
    }
}
