//! Who may do what, in the words of oslo.policy: rules with names, each a check string. Their defaults are in the code of
//! those who ask (`api`); an operator's files override them. This room knows the language, the files and how a question
//! is answered, and no rule of its own.
//!
//! It answers what oslo.policy answers, but for three things that oslo.policy lets pass: rules that lead back to
//! themselves, a rule without any text, and a check that asks a server are refused when a file is read.

pub mod check;
pub mod parse;

mod file;

use std::collections::BTreeMap;
use std::path::PathBuf;

use self::check::{Attributes, Check};

pub use file::{Enforcer, Files};

/// A rule as the code has it.
#[derive(Clone, Copy, Debug)]
pub struct DefaultRule {
    /// What it is called in files.
    pub name: &'static str,
    /// Its check string, where no file has another.
    pub check_str: &'static str,
    /// The scopes of tokens that it is for; none: every scope.
    pub scope_types: &'static [&'static str],
}

/// What is wrong with rules or with the files that they stand in.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A file or directory is not there or cannot be read.
    #[error("the policy file {} cannot be read", .path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: std::io::Error,
    },
    /// A file that is named in the configuration is nowhere.
    #[error("[oslo_policy] policy_file: there is no {0}")]
    Missing(String),
    /// A file is no YAML.
    #[error("the policy file {} is no YAML", .path.display())]
    NotYaml {
        /// Which.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_yaml_ng::Error,
    },
    /// A file is YAML, but no rules.
    #[error("the policy file {} must map names of rules to check strings", .0.display())]
    NotRules(PathBuf),
    /// A rule has no check string.
    #[error("the policy file {}: rule '{name}'", .path.display())]
    NoRule {
        /// The file.
        path: PathBuf,
        /// The rule.
        name: String,
        /// What is wrong.
        #[source]
        source: parse::NoRule,
    },
    /// Rules lead back to themselves.
    #[error("the policy rules {} lead back to themselves", .0.join(", "))]
    Cyclic(Vec<String>),
}

/// Rules by name.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    checks: BTreeMap<String, Check>,
    scope_types: BTreeMap<String, &'static [&'static str]>,
    /// The rule that stands in for one that is not there, if it is there itself.
    default_rule: String,
}

impl Rules {
    /// Puts checks together.
    ///
    /// # Errors
    /// When rules lead back to themselves.
    pub fn new(checks: BTreeMap<String, Check>, default_rule: &str) -> Result<Self, PolicyError> {
        let rules = Self { checks, scope_types: BTreeMap::new(), default_rule: default_rule.to_owned() };
        let cyclic = rules.cyclic();
        if cyclic.is_empty() { Ok(rules) } else { Err(PolicyError::Cyclic(cyclic)) }
    }

    /// Whether a caller may do to a target what a rule is for. A rule that is not there is what the default rule says, or
    /// a refusal.
    #[must_use]
    pub fn allow(&self, rule: &str, target: &Attributes, caller: &Attributes) -> bool {
        let Some(check) = self.find(rule) else { return false };
        let allowed_scopes = self.scope_types.get(rule).copied().unwrap_or_default();
        if !allowed_scopes.is_empty() && !allowed_scopes.contains(&scope_of(caller)) {
            return false;
        }
        check.holds(target, caller, &|name| self.find(name)) == Ok(true)
    }

    fn find(&self, name: &str) -> Option<&Check> {
        self.checks.get(name).or_else(|| self.checks.get(&self.default_rule))
    }

    /// Names of rules from which the way leads back to themselves, the stand-in for missing ones included.
    fn cyclic(&self) -> Vec<String> {
        let mut closed = BTreeMap::new();
        for name in self.checks.keys() {
            self.visit(name, &mut closed);
        }
        closed.into_iter().filter_map(|(name, state)| (state == Visit::Cyclic).then_some(name)).collect()
    }

    /// Depth first, without recursion: names of rules may be many.
    fn visit(&self, start: &str, states: &mut BTreeMap<String, Visit>) {
        let resolved = |name: &str| {
            if self.checks.contains_key(name) {
                Some(name.to_owned())
            } else {
                self.checks.contains_key(&self.default_rule).then(|| self.default_rule.clone())
            }
        };
        let mut way = vec![(start.to_owned(), None::<Vec<String>>)];
        while let Some((name, children)) = way.last_mut() {
            let name = name.clone();
            if children.is_none() {
                if states.contains_key(&name) {
                    way.pop();
                    continue;
                }
                states.insert(name.clone(), Visit::Open);
                let mut named = Vec::new();
                if let Some(check) = self.checks.get(&name) {
                    check.rules(&mut named);
                }
                *children = Some(named.iter().filter_map(|name| resolved(name)).collect());
            }
            match children.as_mut().and_then(Vec::pop) {
                Some(child) => match states.get(&child) {
                    Some(Visit::Open | Visit::Cyclic) if way.iter().any(|(name, _)| *name == child) => {
                        let from = way.iter().position(|(name, _)| *name == child).unwrap_or(0);
                        for (name, _) in &way[from..] {
                            states.insert(name.clone(), Visit::Cyclic);
                        }
                    }
                    Some(_) => {}
                    None => way.push((child, None)),
                },
                None => {
                    states.entry(name).and_modify(|state| {
                        if *state == Visit::Open {
                            *state = Visit::Closed;
                        }
                    });
                    way.pop();
                }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Visit {
    Open,
    Closed,
    Cyclic,
}

/// What a token is for, by the caller's attributes.
fn scope_of(caller: &Attributes) -> &'static str {
    let given = |name: &str| {
        caller.get(name).is_some_and(|value| !matches!(value.as_str(), Some("")) && !value.is_null() && value != false)
    };
    if given("system") || given("system_scope") {
        "system"
    } else if given("domain_id") {
        "domain"
    } else {
        "project"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(texts: &[(&str, &str)]) -> Result<Rules, PolicyError> {
        let checks = texts.iter().map(|(name, text)| ((*name).to_owned(), parse::parse(text).unwrap().check));
        Rules::new(checks.collect(), "default")
    }

    #[test]
    fn rules_that_lead_back_to_themselves_are_refused_however_they_do() {
        for texts in [
            &[("a", "rule:a")] as &[_],
            &[("a", "rule:b"), ("b", "not rule:c"), ("c", "role:x or (role:y and rule:a)")],
            // oslo.policy sees neither of these, and fails when it is asked.
            &[("a", "not rule:a")],
            &[("default", "rule:missing")],
        ] {
            assert!(matches!(rules(texts), Err(PolicyError::Cyclic(_))), "{texts:?}");
        }
        let Err(PolicyError::Cyclic(names)) = rules(&[("a", "rule:b"), ("b", "rule:b"), ("c", "@")]) else { panic!() };
        assert_eq!(names, ["b"]);
        assert!(rules(&[("a", "rule:b and rule:b"), ("b", "rule:c"), ("c", "@"), ("d", "rule:c or rule:a")]).is_ok());
    }

    #[test]
    fn a_part_that_cannot_be_evaluated_refuses_even_behind_not() {
        let rules = rules(&[("a", "not is:x"), ("b", "not user.id:%(x"), ("c", "not role:%(x)s")]).unwrap();
        let caller = serde_json::json!({"roles": ["x"], "user": "u"});
        for (name, allowed) in [("a", false), ("b", false), ("c", true), ("missing", false)] {
            assert_eq!(rules.allow(name, &Attributes::new(), caller.as_object().unwrap()), allowed, "{name}");
        }
    }
}
