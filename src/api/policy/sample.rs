//! The sample of a policy file: every rule with its default, as comments, in the form of `oslopolicy-sample-generator`.

use std::fmt::Write as _;

use super::rules::{self, Rule};

/// Width of a line of help.
const WIDTH: usize = 70;

/// The text of `policy.yaml.sample`.
#[must_use]
pub fn policy_sample() -> String {
    rules::all().map(section).collect()
}

fn section(rule: &Rule) -> String {
    let mut text = String::new();
    let mut line = "#".to_owned();
    for word in rule.description.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = "#".to_owned();
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
    for operation in rule.operations {
        let _ = writeln!(text, "# {}  {}", operation.method, operation.path);
    }
    if !rule.scope_types.is_empty() {
        let _ = writeln!(text, "# Intended scope(s): {}", rule.scope_types.join(", "));
    }
    let _ = writeln!(text, "#\"{}\": \"{}\"\n", rule.name, rule.check_str);
    text
}
