//! The command line for users and operators.

use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    lambda_openstack::cli::main(std::env::args_os()).await
}
