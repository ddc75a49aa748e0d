//! Configuration held against the real oslo.config from PyPI: `tests/it/oslo/compare_ini.py` answers what it makes of
//! the same files. `LAMBDA_TEST_PYTHON` names an interpreter that has it; without one the test fails, unless
//! `LAMBDA_TEST_SKIP_CLIENTS=1` says that this is known.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use lambda_openstack::config::{self, Config, ConfigPath, Sources, ini};
use serde_json::{Value, json};

/// Files around every rule of the grammar.
const TEXTS: [&str; 26] = [
    "",
    "[DEFAULT]\na = 1\n",
    "[s]\na=1\nb: 2\nc = x:y\nd: x=y\n",
    "[s]\na = 1 # no comment\n; comment\n# comment\nb = 2",
    "[s]\na = 1\n  2\n\t3\nb = 4\n",
    "[s]\na = 1\n # data\n",
    "[s]\na = 1\n\n  2\n",
    "[s]\na = 1\n# c\n  2\n",
    "[s]\n  a = 1\n",
    "[s]\na = ' x '\nb = \"y\"\nc = 'z\"\nd = \"\ne = ''\n",
    "[s]\na = 'x'\n  'y'\n",
    "[s]\na =\nb:\n",
    "[s]\na = 1\na = 2\n[t]\na = 3\n[s]\na = 4\n[S]\na = 5\n",
    "a = 1\n",
    "[s]\nnonsense\n",
    "[s]\n= 1\n",
    "[s\na = 1\n",
    "[s] x\na = 1\n",
    "[]\na = 1\n",
    "[ s ]\n a = 1\n",
    "[s]\r\na = 1\r\n  2\r\n\r\nb = 3\r\n",
    "[s]\ra = 1\rb = 2",
    "[s]\na = 1   \n   \nb = 2\n",
    "[s]\n\u{a0}a = \u{2003}1\u{a0}\n\u{1c}b = 2\u{1d}\n",
    "[s]\na-b = 1\nA = 2\n\u{e9} = \u{e9}\n",
    "[s]\na = $b ${c} $$\n",
];

/// Files in their order, and the environment.
type Case = (&'static [&'static str], &'static [(&'static str, &'static str)]);

/// Configurations with options of ours.
/// (Not a number that is none: oslo lets it through every range, we do not.)
const CASES: [Case; 16] = [
    (&[], &[]),
    (&["[DEFAULT]\ndebug = Yes\nuse_json: ON\n[api]\nenable_proxy_headers_parsing = 1\n"], &[]),
    (&["[DEFAULT]\ndebug = maybe\n"], &[]),
    (&["[DEFAULT]\ndebug =\n"], &[]),
    (&["[api]\nmax_limit = 080\ndefault_limit = 7\n[API]\ndefault_limit = +8\n"], &[]),
    (&["[api]\nmax_limit = 0\n"], &[]),
    (&["[api]\nmax_limit = 1.0\n"], &[]),
    (&["[api]\nmax_limit = '7 '\ndefault_limit = 7\n"], &[]),
    (&["[worker]\nretry_base = 2\nretry_max = 1e3\ndead_after = 010.50\n"], &[]),
    (&["[DEFAULT]\ndefault_log_levels = a=INFO , b.c=WARNING,\n   d=ERROR,\n"], &[]),
    (&["[DEFAULT]\ndefault_log_levels =\n"], &[]),
    (
        &[
            "[DEFAULT]\nhost = h\ngraceful_shutdown_timeout = 07\n[zaqar]\nqueue = q\nproject_id = $host-${queue}-$$x-\\$y-$claims\n",
        ],
        &[],
    ),
    (
        &[
            "[api]\ndefault_project = p$public_endpoint\n[zaqar]\nproject_id = ${api.default_project}-$graceful_shutdown_timeout\n",
        ],
        &[],
    ),
    (&["[zaqar]\nproject_id = $nothing\n"], &[]),
    (
        &[
            "[worker]\nmax_running = 1\nmax_waiting = 1\nkeep_alive = 1\n",
            "[worker]\nmax_waiting = 2\nkeep_alive = 2\n",
        ],
        &[("OS_WORKER__KEEP_ALIVE", "3"), ("OS_DEFAULT__HOST", "e$$"), ("OS_ZAQAR__PROJECT_ID", "$host")],
    ),
    (&["[standalone]\ndata_dir = \"/with space\"\n[local]\nwork_dir = $standalone.data_dir/x\n"], &[]),
];

const LISTS: [&str; 9] = ["", " ", ",", "a", "a,b", " a , b ", "a,,b", "a,b,,", "a, ,"];
const MAPS: [&str; 11] =
    ["", "k:v", "k:v,k2:v2", " k : v , k2 : v:2 ", "k:v,x", "k", ":v", "k:v,k:w", "k:,l:", "k:v,", "x,k:v"];

/// Texts of the characters that matter to the grammar, always the same ones.
fn made_up(count: usize) -> Vec<String> {
    const PIECES: [&str; 22] = [
        "[", "]", "[s]\n", "[t]\n", "a", "b", " ", "  ", "\t", "\n", "\n\n", "=", ":", " = ", "'", "\"", "#", ";", "$",
        "\\", "\r\n", "a = 1\n",
    ];
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move |below: u64| {
        // xorshift64: any sequence that is the same each time will do.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below).unwrap()
    };
    (0..count)
        .map(|_| {
            let pieces = 1 + next(16);
            let body: String = (0..pieces).map(|_| PIECES[next(PIECES.len() as u64)]).collect();
            format!("[s]\n{body}")
        })
        .collect()
}

fn oslo(question: &Value) -> Option<Value> {
    let Some(python) = std::env::var_os("LAMBDA_TEST_PYTHON") else {
        assert_eq!(
            std::env::var_os("LAMBDA_TEST_SKIP_CLIENTS").as_deref(),
            Some("1".as_ref()),
            "LAMBDA_TEST_PYTHON must name a Python that has oslo.config, or LAMBDA_TEST_SKIP_CLIENTS be 1"
        );
        return None;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/oslo/compare_ini.py");
    let mut child = Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // The script reads all of it before it writes.
    child.stdin.take().unwrap().write_all(question.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{script} failed: {}", output.status);
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// Our reading in the form in which oslo.config keeps it.
fn parsed(text: &str) -> Option<BTreeMap<(String, String), Vec<String>>> {
    let mut sections: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for assignment in ini::parse(text).ok()? {
        sections.entry((assignment.section, assignment.key)).or_default().push(assignment.value);
    }
    Some(sections)
}

fn loaded(files: &[&str], environment: &[(&str, &str)]) -> Result<BTreeMap<String, Option<String>>, String> {
    let directory = tempfile::tempdir().unwrap();
    let paths = files.iter().enumerate().map(|(index, text)| {
        let path = directory.path().join(format!("{index}.conf"));
        std::fs::write(&path, text).unwrap();
        ConfigPath::File(path)
    });
    let sources = Sources::none().with_paths(paths.collect::<Vec<_>>()).with_environment(environment.iter().copied());
    Config::load(&sources).map(|config| config.values().into_iter().collect()).map_err(|error| error.to_string())
}

/// Options as the script registers them. Secrets are left out, because we do not show them.
fn options() -> Vec<Value> {
    let mut options = Vec::new();
    for (group, help) in Config::help() {
        for option in help.into_iter().filter(|option| !option.secret) {
            let default = option.default.map(|text| text.replace('$', "$$"));
            let (min, max) = option.range.unzip();
            options.push(json!({
                "group": group.name, "name": option.name, "kind": option.kind, "default": default, "min": min, "max": max,
            }));
        }
    }
    options
}

/// Equal as texts or as numbers: Python writes 10.0 where we write 10.
fn same(ours: Option<&str>, theirs: Option<&str>) -> bool {
    ours == theirs
        || match (ours.and_then(|text| text.parse::<f64>().ok()), theirs.and_then(|text| text.parse::<f64>().ok())) {
            (Some(ours), Some(theirs)) => ours.to_bits() == theirs.to_bits(),
            _ => false,
        }
}

#[test]
fn files_are_read_as_oslo_config_reads_them() {
    let mut texts: Vec<String> = TEXTS.map(str::to_owned).into();
    texts.extend(made_up(3000));
    let cases: Vec<_> = CASES
        .iter()
        .map(|(files, environment)| json!({"files": files, "environment": environment.iter().copied().collect::<BTreeMap<_, _>>()}))
        .collect();
    let question = json!({"texts": texts, "options": options(), "cases": cases, "lists": LISTS, "maps": MAPS});
    let Some(answer) = oslo(&question) else { return };

    let mut accepted = 0;
    for (text, theirs) in texts.iter().zip(answer["parsed"].as_array().unwrap()) {
        let theirs = theirs.as_array().map(|entries| {
            let entry = |entry: &Value| serde_json::from_value::<(String, String, Vec<String>)>(entry.clone()).unwrap();
            entries.iter().map(entry).map(|(section, key, values)| ((section, key), values)).collect::<BTreeMap<_, _>>()
        });
        accepted += usize::from(theirs.is_some());
        assert_eq!(parsed(text), theirs, "{text:?}");
    }
    assert!(accepted > 300 && accepted < texts.len() - 300, "the texts are all of one kind: {accepted} accepted");

    for ((files, environment), theirs) in CASES.iter().zip(answer["loaded"].as_array().unwrap()) {
        match (loaded(files, environment), theirs.as_object()) {
            (Ok(ours), Some(theirs)) => {
                for (name, theirs) in theirs {
                    let ours = ours[name].as_deref();
                    assert!(same(ours, theirs.as_str()), "{name} of {files:?} is {ours:?}, for oslo {theirs}");
                }
            }
            (Err(_), None) => {}
            (ours, theirs) => panic!("{files:?}: ours {ours:?}, for oslo {theirs:?}"),
        }
    }

    for (text, theirs) in LISTS.iter().zip(answer["lists"].as_array().unwrap()) {
        assert_eq!(json!(config::list(text)), *theirs, "{text:?}");
    }
    for (text, theirs) in MAPS.iter().zip(answer["maps"].as_array().unwrap()) {
        assert_eq!(json!(config::map(text)), *theirs, "{text:?}");
    }
}
