//! `lambda-manage status upgrade-check` on a real cloud.

use std::process::{Command, Output};

use super::Account;

/// With what an account's openrc says, and a store of its own.
async fn upgrade_check(account: &Account) -> (Output, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lambda.conf");
    let text = format!(
        "[database]\nconnection = sqlite://{}\n[api]\nauth_strategy = keystone\n[service_auth]\nauth_type = password\n\
         auth_url = {}\nusername = {}\npassword = {}\nuser_domain_id = default\nproject_name = {}\n\
         project_domain_id = default\nvalid_interfaces = public\n",
        directory.path().join("lambda.db").display(),
        account.var("OS_AUTH_URL"),
        account.var("OS_USERNAME"),
        account.var("OS_PASSWORD"),
        account.var("OS_PROJECT_NAME"),
    );
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lambda-manage"));
    command.arg("--config-file").arg(&file).args(["status", "upgrade-check"]).env_clear();
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let table = String::from_utf8(output.stdout.clone()).unwrap();
    (output, table)
}

/// The block of one check, on one line.
fn block(table: &str, check: &str) -> String {
    let lines: Vec<_> = table.lines().map(|line| line.trim_matches(['|', ' '])).collect();
    let from = lines.iter().position(|line| *line == format!("Check: {check}")).unwrap_or_else(|| panic!("{table}"));
    lines[from + 1..].iter().take_while(|line| !line.starts_with('+')).copied().collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_services_user_can_do_what_the_service_needs() {
    let (output, table) = upgrade_check(&super::service()).await;
    // A warning is the store, which has no shape yet.
    assert_eq!(output.status.code(), Some(1), "{table}");
    let keystone = block(&table, "Keystone");
    assert!(
        keystone.starts_with("Result: Success") && keystone.contains("with the roles service and member"),
        "{table}"
    );
    assert!(!block(&table, "Catalog").starts_with("Result: Failure"), "{table}");
    assert!(block(&table, "Queue").starts_with("Result: Success"), "{table}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_the_role_is_told_how_to_get_it() {
    let account = super::env();
    let (output, table) = upgrade_check(&account).await;
    assert_eq!(output.status.code(), Some(2), "{table}");
    let (project, user) = (account.var("OS_PROJECT_NAME"), account.var("OS_USERNAME"));
    let command = format!("openstack role add --project {project} --user {user} service");
    assert!(block(&table, "Keystone").contains(&command), "{table}");
    assert!(!table.contains("OS_PASSWORD"), "{table}");
}
