//! What the local driver promises where it runs as root: sandboxes are users of their own. A function tries the rest. The
//! gateway is where other hosts reach it, so that agents and the API come by TLS.

use std::net::UdpSocket;

use serde_json::json;

use super::Service;
use crate::support::isolation;

#[tokio::test(flavor = "multi_thread")]
async fn a_function_cannot_get_at_what_is_not_its_own() {
    if !nix::unistd::geteuid().is_root() {
        assert!(
            std::env::var_os("LAMBDA_TEST_SKIP_ROOT").is_some_and(|value| value == "1"),
            "only root can show this; LAMBDA_TEST_SKIP_ROOT=1 leaves out all tests that need it"
        );
        eprintln!("SKIPPED, needs root: LAMBDA_TEST_SKIP_ROOT=1");
        return;
    }
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // Nothing is sent: only the way is looked up.
    let way = socket.connect("198.51.100.1:9").and_then(|()| socket.local_addr());
    let address = way.expect("this test needs a network: a default route, no matter where it leads").ip();
    assert!(!address.is_loopback(), "{address}");
    let service = Service::start_with(&format!("[worker]\ngateway_bind = {address}:0\n"));
    let (secret, event) = ("kept-in-environment-package-and-log", "kept-in-memory-and-files");
    service.ok("POST", "/v1/functions", Some(&isolation::victim("victim", secret))).await;
    let call = json!({ "secret": event });
    assert_eq!(service.ok("POST", "/v1/functions/victim/invocations", Some(&call)).await, true);
    let gateway = service.ok("GET", "/v1/workers", None).await["workers"][0]["gateway"].clone();
    assert!(gateway.as_str().unwrap().starts_with(&format!("{address}:")), "{gateway}");
    let data = service.data_dir();
    let files: Vec<_> = std::fs::read_dir(&data).unwrap().flatten().map(|entry| entry.path()).collect();
    let files: Vec<_> = files.iter().filter(|path| path.is_file()).map(|path| path.display().to_string()).collect();
    assert!(!files.is_empty(), "the store is among them");
    for runtime in ["python3", "provided"] {
        let name = format!("spy-{runtime}");
        service.ok("POST", "/v1/functions", Some(&isolation::function(&name, runtime))).await;
        let event_of_spy = json!({ "gateway": gateway, "files": files });
        let path = format!("/v1/functions/{name}/invocations");
        let report = service.ok("POST", &path, Some(&event_of_spy)).await;
        isolation::assert_kept(&report, &[secret, event]);
    }
    // The victim is as it was.
    assert_eq!(service.ok("POST", "/v1/functions/victim/invocations", Some(&call)).await, true);
}
