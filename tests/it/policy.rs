//! Policy held against the real oslo.policy from PyPI: `tests/it/oslo/compare_policy.py` says what it decides. And the
//! sample file, against the rules in code. `LAMBDA_TEST_PYTHON` names an interpreter that has oslo.policy; without one the
//! test fails, unless `LAMBDA_TEST_SKIP_CLIENTS=1` says that this is known.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use lambda_openstack::api;
use lambda_openstack::policy::check::Check;
use lambda_openstack::policy::{Rules, parse};
use serde_json::{Value, json};

/// The rules that others name, twice: with a rule that stands in for missing ones, and without.
fn named() -> [BTreeMap<&'static str, &'static str>; 2] {
    let mut without = BTreeMap::from([
        ("admin", "role:admin"),
        ("member_here", "role:member and project_id:%(project_id)s"),
        ("deep", "rule:admin or not (rule:member_here or rule:nothing)"),
        ("everybody", ""),
        ("broken", "role:a and"),
    ]);
    for rule in api::BASE_RULES {
        without.insert(rule.name, rule.check_str);
    }
    let mut with = without.clone();
    with.insert("default", "role:reader or 'p9':%(project_id)s");
    [with, without]
}

/// Checks around every rule of the language.
const CHECKS: [&str; 62] = [
    "role:member",
    "role:ADMIN",
    "ROLE:admin",
    "role:%(role_name)s",
    "role:%(nothing_here)s",
    "role:",
    "project_id:%(project_id)s",
    "project_id:p1",
    "project_id:%(target.project.id)s",
    "user_id:%(user_id)s",
    "user_id:%(missing)s",
    "missing:%(project_id)s",
    "nobody:None",
    "nobody:%(nothing)s",
    "'p1':%(project_id)s",
    "\"p1\":%(project_id)s",
    "'':%(empty)s",
    "True:%(enabled)s",
    "true:%(enabled)s",
    "None:%(nothing)s",
    "5:%(count)s",
    "1.5:%(ratio)s",
    "-1:-1",
    "+5:5",
    "0:0",
    "007:7",
    "1a:x",
    "is_admin:True",
    "is_admin:true",
    "age:42",
    "token.project.id:%(project_id)s",
    "token.roles.name:member",
    "token.roles:member",
    "token.project:p1",
    "token:x",
    "groups:g2",
    "groups:%(project_id)s",
    "groups.name:x",
    "user_id.name:x",
    "nobody.name:x",
    "a-b:c",
    "a-b:d",
    "is:x",
    "not:x",
    "a.class:x",
    ":x",
    "x:",
    "x:y:z",
    "'x:y':x:y",
    "role:%(x)",
    "role:100%",
    "role:100%%",
    "role:%(role_name)s%%",
    "member",
    "'a'",
    "@",
    "!",
    "rule:admin",
    "rule:deep",
    "rule:nothing",
    "rule:broken",
    "rule:project_member_or_admin",
];

/// Texts of the language and texts that are nearly of it; always the same ones.
fn texts() -> Vec<Value> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: usize| {
        // xorshift64: any sequence that is the same each time will do.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let mut texts: Vec<Value> = CHECKS.iter().flat_map(|check| [json!(check), json!(format!("not {check}"))]).collect();
    for text in ["", " ", "\t\n", "and", "()", "(", ")", "not", "not not role:member", "(((role:member)))", "@ @"] {
        texts.push(json!(text));
    }
    texts.extend([
        json!([]),
        json!([[]]),
        json!([[], ["role:admin"]]),
        json!([["role:admin"], ["role:member", "project_id:%(project_id)s"]]),
        json!(["role:admin", ["rule:member_here"]]),
        json!(["role:admin or role:member"]),
        json!([["!", "@"], ["is:x"]]),
        json!([["not role:admin"]]),
        json!(["", "role:reader"]),
    ]);
    texts.extend(api::RULES.iter().chain(api::ALL_PROJECTS_RULES).map(|rule| json!(rule.check_str)));
    for _ in 0..500 {
        let mut text = String::new();
        sentence(&mut text, &mut next, 3);
        texts.push(json!(text));
    }
    let pieces = ["(", ")", " and ", " or ", " not ", " AND ", "\tOr\n", "Not ", "  ", " ( ", " ) ", "'", "\""];
    for _ in 0..500 {
        let mut text = String::new();
        for _ in 0..=next(9) {
            text.push_str(if next(2) == 0 { pieces[next(pieces.len())] } else { CHECKS[next(CHECKS.len())] });
        }
        texts.push(json!(text));
    }
    texts
}

fn sentence(text: &mut String, next: &mut impl FnMut(usize) -> usize, depth: usize) {
    if depth == 0 || next(4) == 0 {
        text.push_str(CHECKS[next(CHECKS.len())]);
        return;
    }
    match next(4) {
        0 => {
            text.push_str(["not ", "NOT "][next(2)]);
            sentence(text, next, depth - 1);
        }
        1 => {
            text.push('(');
            sentence(text, next, depth - 1);
            text.push(')');
        }
        _ => {
            for place in 0..2 + next(2) {
                if place > 0 {
                    text.push_str([" and ", " or ", " And ", " OR "][next(4)]);
                }
                sentence(text, next, depth - 1);
            }
        }
    }
}

fn callers() -> Value {
    json!([
        {},
        {"user_id": "u1", "project_id": "p1", "roles": ["reader"]},
        {"user_id": "u1", "project_id": "p1", "roles": ["Member", "reader"], "is_admin": true, "nobody": null,
         "a-b": "c", "groups": ["g1", "g2"], "age": 42,
         "token": {"project": {"id": "p1"}, "roles": [{"name": "reader"}, {"name": "member"}]}},
        {"user_id": "u2", "project_id": "p2", "roles": ["admin", "manager", "member", "reader"], "is_admin": false,
         "groups": [], "token": {"project": {"id": "p2"}, "roles": []}},
        {"user_id": "u3", "project_id": "p9", "roles": [], "token": null, "groups": [{"name": "x"}], "x": ""},
        {"user_id": "u4", "project_id": null, "roles": ["service", "100%", ""], "token": "x", "x": "y:z"}
    ])
}

fn targets() -> Value {
    json!([
        {},
        {"project_id": "p1", "user_id": "u1", "role_name": "Admin", "enabled": true, "nothing": null, "count": 5,
         "ratio": 1.5, "empty": ""},
        {"project_id": "p2", "user_id": "u1", "target.project.id": "p2", "role_name": "member", "enabled": false},
        {"project_id": "p9", "user_id": "u3", "enabled": "True", "count": "5", "role_name": "100"}
    ])
}

fn oslo(question: &Value) -> Option<Value> {
    let Some(python) = std::env::var_os("LAMBDA_TEST_PYTHON") else {
        assert_eq!(
            std::env::var_os("LAMBDA_TEST_SKIP_CLIENTS").as_deref(),
            Some("1".as_ref()),
            "LAMBDA_TEST_PYTHON must name a Python that has oslo.policy, or LAMBDA_TEST_SKIP_CLIENTS be 1"
        );
        return None;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/oslo/compare_policy.py");
    let mut child = Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // The script reads all of it before it writes.
    child.stdin.take().unwrap().write_all(question.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{script} failed: {}", output.status);
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn verdicts_are_those_of_oslo_policy() {
    let (texts, callers, targets) = (texts(), callers(), targets());
    let question = json!({"rules": named(), "texts": texts, "callers": callers, "targets": targets});
    let Some(answers) = oslo(&question) else { return };
    let (mut compared, mut allowed, mut differences) = (0, 0, Vec::new());
    for (rules, answers) in named().iter().zip(answers.as_array().unwrap()) {
        let checks: BTreeMap<String, Check> =
            rules.iter().map(|(name, text)| ((*name).to_owned(), parse::value(&json!(text)).unwrap().check)).collect();
        for (text, answer) in texts.iter().zip(answers.as_array().unwrap()) {
            let mut checks = checks.clone();
            checks.insert("asked".to_owned(), parse::value(text).unwrap().check);
            let rules = Rules::new(checks, "default").unwrap();
            for (c, caller) in callers.as_array().unwrap().iter().enumerate() {
                for (t, target) in targets.as_array().unwrap().iter().enumerate() {
                    let ours = rules.allow("asked", target.as_object().unwrap(), caller.as_object().unwrap());
                    compared += 1;
                    allowed += usize::from(ours);
                    if json!(ours) != answer[c][t] {
                        differences.push(format!("{text} for {caller} on {target}: {ours}, oslo.policy otherwise"));
                    }
                }
            }
        }
    }
    assert!(texts.len() > 1000 && compared > 50_000, "{} texts, {compared} verdicts", texts.len());
    assert!(allowed > compared / 10 && allowed < compared * 9 / 10, "{allowed} of {compared} are permissions");
    assert!(
        differences.is_empty(),
        "{} of {compared}:\n{}",
        differences.len(),
        differences[..differences.len().min(40)].join("\n")
    );
}

#[test]
fn the_sample_is_the_one_in_etc() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/lambda/policy.yaml.sample");
    let generated = api::policy_sample();
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(path, &generated).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == generated,
        "run this test with UPDATE_SNAPSHOTS=1, or lambda-manage policy-sample, to write {path}"
    );
}

#[test]
fn the_sample_without_its_comments_is_the_rules_in_code() {
    let text: String = api::policy_sample()
        .lines()
        .filter_map(|line| line.strip_prefix('#').filter(|rest| rest.starts_with('"')))
        .map(|line| format!("{line}\n"))
        .collect();
    let written: BTreeMap<String, String> = serde_yaml_ng::from_str(&text).unwrap();
    let code: BTreeMap<String, String> =
        api::default_rules().iter().map(|rule| (rule.name.to_owned(), rule.check_str.to_owned())).collect();
    assert_eq!(written, code);
    assert_eq!(
        code.len(),
        api::BASE_RULES.len() + api::RULES.len() + api::ALL_PROJECTS_RULES.len(),
        "names are unique"
    );
}
