//! How fast client and server are together. The bounds are far below what is measured on a quiet machine: they find a
//! flush per message or a scan of the whole queue, not a slow day.

use std::time::{Duration, Instant};

use lambda_openstack::openstack::zaqar::Held;
use serde_json::json;

use super::{Service, message};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posting_and_claiming_do_not_wait_for_one_another() {
    let service = Service::start().await;
    let client = service.client();
    let body = json!({"specversion": "1.0", "id": "x", "source": "/s", "type": "t", "data": {"text": "y".repeat(200)}});

    let one = message(&body);
    let begun = Instant::now();
    for _ in 0..500 {
        client.post("one", std::slice::from_ref(&one)).await.unwrap();
    }
    let one_by_one = 500.0 / begun.elapsed().as_secs_f64();

    let begun = Instant::now();
    futures::future::join_all((0..16).map(|_| async {
        for _ in 0..100 {
            client.post("many", std::slice::from_ref(&one)).await.unwrap();
        }
    }))
    .await;
    let sixteen = 1600.0 / begun.elapsed().as_secs_f64();

    let twenty: Vec<_> = (0..20).map(|_| message(&body)).collect();
    let begun = Instant::now();
    for _ in 0..200 {
        client.post("q", &twenty).await.unwrap();
    }
    let twenties = 4000.0 / begun.elapsed().as_secs_f64();

    let begun = Instant::now();
    let mut taken = 0;
    while let Some(claim) = client.claim("q", 20, Duration::from_secs(300), Duration::from_secs(60)).await.unwrap() {
        let ids: Vec<String> = claim.messages.iter().map(|message| message.id.clone()).collect();
        assert_eq!(client.delete_claimed("q", &ids, &claim.id).await.unwrap(), Held::Done);
        taken += ids.len();
    }
    let claimed = 4000.0 / begun.elapsed().as_secs_f64();
    assert_eq!(taken, 4000);

    let begun = Instant::now();
    for _ in 0..500 {
        assert!(client.claim("q", 20, Duration::from_secs(300), Duration::from_secs(60)).await.unwrap().is_none());
    }
    let empty = 500.0 / begun.elapsed().as_secs_f64();
    println!(
        "messages/s: post one by one {one_by_one:.0}, by 16 at once {sixteen:.0}, 20 a request {twenties:.0}; \
         claim(20) + bulk delete {claimed:.0}; empty claims/s {empty:.0}"
    );
    // On a machine with four times as much to do as it has cores, a third of the quiet rates was seen.
    for (rate, least) in [(one_by_one, 10.0), (sixteen, 20.0), (twenties, 200.0), (claimed, 100.0), (empty, 20.0)] {
        assert!(rate > least, "{rate} is not over {least}");
    }
}
