//! What programs say and how they exit before they run.

use std::process::{Command, Output};

fn manage(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lambda-manage")).args(arguments).env_clear().output().unwrap()
}

fn refused(arguments: &[&str]) -> String {
    let output = manage(arguments);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.matches('\n').count(), 1, "not one line: {said}");
    said
}

#[test]
fn the_sample_that_is_printed_is_the_one_in_the_tree() {
    let output = manage(&["config-sample"]);
    assert!(output.status.success(), "{output:?}");
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/lambda/lambda.conf.sample");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), std::fs::read_to_string(kept).unwrap());
}

#[test]
fn wrong_options_and_files_are_refused_in_one_line_with_code_2() {
    assert_eq!(refused(&["--banana"]), "lambda-manage: unexpected argument '--banana' found (try --help)\n");
    assert_eq!(refused(&[]), "lambda-manage: a subcommand is missing (try --help)\n");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lambda.conf");
    std::fs::write(&file, "[database]\nconnection = mysql://root:hunter2@h/d\n[api]\nbind = x\n").unwrap();
    let file = file.to_str().unwrap();
    let said = refused(&["--config-file", file, "config-check"]);
    assert!(said.contains(&format!("{file}:2: database.connection is not readable")), "{said}");
    assert!(said.contains(&format!("{file}:4: api.bind is \"x\", but has to be an IP address")), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn the_configuration_that_holds_is_shown_without_its_secrets() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.conf"), "[database]\nconnection = mongodb://u:hunter2@h/d\n").unwrap();
    let output = manage(&["--config-dir", directory.path().to_str().unwrap(), "config-show"]);
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(
        shown.contains("database.connection = ****\n") && shown.contains("api.public_endpoint = <None>\n"),
        "{shown}"
    );
}
