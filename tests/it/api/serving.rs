//! The service on a real socket, and its end.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use lambda_openstack::api::serve;
use lambda_openstack::config::ApiOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::harness::Service;

async fn ask(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// A service with a route that says when it is reached and answers when it is told to.
async fn service_with_slow_route() -> (Service, mpsc::Receiver<()>, CancellationToken) {
    let (reached, reaching) = mpsc::channel(1);
    let go = CancellationToken::new();
    let wait = go.clone();
    let slow = move || {
        let (reached, wait) = (reached.clone(), wait.clone());
        async move {
            reached.send(()).await.unwrap();
            wait.cancelled().await;
            "done"
        }
    };
    let extra = Router::new().route("/slow", axum::routing::get(slow));
    (Service::with(ApiOptions::default(), Some(extra)).await, reaching, go)
}

#[tokio::test]
async fn a_request_that_is_under_way_is_answered_before_the_end() {
    let (service, mut reached, go) = service_with_slow_route().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let cancel = CancellationToken::new();
    let serving = serve(listener, service.router.clone(), cancel.clone(), Duration::from_secs(20));
    let asking = async {
        let healthy = ask(address, "/healthcheck").await.unwrap();
        assert!(healthy.starts_with("HTTP/1.1 200 OK") && healthy.ends_with("OK"), "{healthy}");
        let (answer, ()) = tokio::join!(ask(address, "/slow"), async {
            reached.recv().await.unwrap();
            cancel.cancel();
            go.cancel();
        });
        answer.unwrap()
    };
    let (all_done, answer) = tokio::join!(serving, asking);
    assert!(answer.ends_with("done"), "{answer}");
    assert!(all_done.unwrap());
    assert!(ask(address, "/").await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn the_end_does_not_wait_longer_than_the_grace() {
    let (service, mut reached, _go) = service_with_slow_route().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let cancel = CancellationToken::new();
    let serving = serve(listener, service.router.clone(), cancel.clone(), Duration::from_millis(50));
    let asking = async {
        let stop = async {
            reached.recv().await.unwrap();
            cancel.cancel();
        };
        tokio::join!(ask(address, "/slow"), stop)
    };
    let all_done = tokio::select! {
        all_done = serving => all_done.unwrap(),
        (answer, ()) = asking => panic!("{answer:?}"),
    };
    assert!(!all_done);
}

#[tokio::test]
async fn a_caller_that_hangs_up_ends_its_followed_log() {
    let options = ApiOptions { max_followers: 1, ..ApiOptions::default() };
    let service = Service::with(options, None).await;
    let function = service.function("f").await;
    let execution = service.execution(&function, lambda_openstack::clock::now()).await;
    service.log(&execution, 1, 0, &["first"]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let cancel = CancellationToken::new();
    let serving = serve(listener, service.router.clone(), cancel.clone(), Duration::from_secs(5));
    let path = format!("/v1/executions/{}/log?follow=true", execution.id);
    let asking = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n").as_bytes()).await.unwrap();
        let mut seen = String::new();
        let mut buffer = [0; 1024];
        while !seen.contains("first") {
            let read = stream.read(&mut buffer).await.unwrap();
            assert!(read > 0, "{seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        assert!(service.get(&path).await.status == 503, "the one place is taken");
        drop(stream);
        // Its place becomes free.
        loop {
            let again = axum::http::Request::builder().uri(&path).body(axum::body::Body::empty()).unwrap();
            let (status, _) = super::harness::Pieces::of(&service.router, again).await;
            if status == 200 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        service.shutdown.cancel();
        cancel.cancel();
    };
    let (all_done, ()) =
        tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(serving, asking) }).await.unwrap();
    assert!(all_done.unwrap());
}
