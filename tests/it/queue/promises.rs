//! What the queue promises beside its statuses: exclusive claims, order, lives, delays, dead letters, durability.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::future::join_all;
use lambda_openstack::standalone::queue;
use serde_json::{Value, json};

use super::{Service, message};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_claimers_get_every_message_once_and_in_order() {
    let service = Service::start().await;
    let bodies: Vec<_> = (0..2000).map(|n| message(&json!(n))).collect();
    let posted = service.client().post("q", &bodies).await.unwrap();
    let claimers = (0..8).map(|claimer| {
        let client = service.client();
        async move {
            let mut taken: Vec<(String, u64)> = Vec::new();
            // Different sizes, and some claims are given back, so that the claimers get in each other's way.
            let mut round = claimer;
            while let Some(claim) =
                client.claim("q", 1 + round % 20, Duration::from_secs(300), Duration::from_secs(60)).await.unwrap()
            {
                round += 7;
                if round % 5 == 0 {
                    client.release("q", &claim.id).await.unwrap();
                    continue;
                }
                let bodies: Vec<u64> = claim.messages.iter().map(|message| message.body.as_u64().unwrap()).collect();
                assert!(bodies.is_sorted(), "{bodies:?}");
                taken.extend(claim.messages.iter().map(|message| message.id.clone()).zip(bodies));
            }
            taken
        }
    });
    let taken: Vec<(String, u64)> = join_all(claimers).await.into_iter().flatten().collect();
    let distinct: HashSet<&String> = taken.iter().map(|(id, _)| id).collect();
    assert_eq!(distinct.len(), taken.len(), "a message was under two claims");
    // A claimer may have seen an empty queue while another held what it gave back afterwards.
    let mut left = 0;
    while let Some((_, messages)) = service.claim("q", 20).await {
        left += messages.len();
    }
    assert_eq!(taken.len() + left, posted.len(), "a message was lost");
}

#[tokio::test]
async fn a_claim_s_end_frees_its_messages_for_others() {
    let service = Service::start().await;
    service.post("q", &[json!(1)]).await;
    let (first, _) = service.claim("q", 1).await.unwrap();
    service.advance(299);
    assert!(service.claim("q", 1).await.is_none());
    service.advance(1);
    // Nobody has claimed it since, but the claim is over.
    let late = service.send("PATCH", &format!("/v2/queues/q/claims/{first}"), r#"{"ttl":60}"#).await;
    assert_eq!(late.status, 404);
    let stats = service.send("GET", "/v2/queues/q/stats", "").await.body;
    assert_eq!((&stats["messages"]["free"], &stats["messages"]["claimed"]), (&json!(1), &json!(0)));
    let (second, messages) = service.claim("q", 1).await.unwrap();
    assert_ne!(first, second);
    let id = messages[0]["id"].as_str().unwrap();
    let stale = service.send("DELETE", &format!("/v2/queues/q/messages/{id}?claim_id={first}"), "").await;
    assert_eq!(stale.status, 400);
}

#[tokio::test]
async fn a_message_ends_with_its_ttl_but_not_under_a_claim() {
    let service = Service::start().await;
    let post = |ttl: i64| json!({"messages": [{"ttl": ttl, "body": ttl}]}).to_string();
    for ttl in [60, 100] {
        service.send("POST", "/v2/queues/q/messages", &post(ttl)).await;
    }
    service.advance(59);
    assert_eq!(service.send("GET", "/v2/queues/q/stats", "").await.body["messages"]["total"], 2);
    service.advance(1);
    let (_, messages) = service.claim("q", 20).await.unwrap();
    // It would have ended before its claim, so it was given the claim's time and the grace.
    assert_eq!((messages.len(), &messages[0]["body"], &messages[0]["ttl"]), (1, &json!(100), &json!(360)));
    service.advance(299);
    assert_eq!(service.send("GET", "/v2/queues/q/stats", "").await.body["messages"]["claimed"], 1);
    service.advance(60);
    assert_eq!(service.send("GET", "/v2/queues/q/stats", "").await.body["messages"]["free"], 1);
    service.advance(1);
    assert!(service.claim("q", 20).await.is_none());
    assert_eq!(service.send("GET", "/v2/queues/q/stats", "").await.body["messages"]["total"], 0);
}

#[tokio::test]
async fn what_has_expired_leaves_the_file() {
    let service = Service::start().await;
    let bodies: Vec<_> = (0..1500).map(|n| message(&json!(n))).collect();
    service.client().post("q", &bodies).await.unwrap();
    service.claim("q", 20).await.unwrap();
    service.advance(3600);
    let file = rusqlite::Connection::open(&service.file).unwrap();
    let count = || -> i64 {
        file.query_row("SELECT (SELECT count(*) FROM messages) + (SELECT count(*) FROM claims)", [], |row| row.get(0))
            .unwrap()
    };
    tokio::time::timeout(Duration::from_secs(20), async {
        while count() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_queue_s_defaults_reach_its_messages() {
    let service = Service::start().await;
    let metadata = json!({"_default_message_ttl": 120, "_default_message_delay": 30, "_max_messages_post_size": 100});
    service.send("PUT", "/v2/queues/q", &metadata.to_string()).await;
    let post = |body: Value| {
        let body = body.to_string();
        let service = &service;
        async move { service.send("POST", "/v2/queues/q/messages", &body).await.status }
    };
    assert_eq!(post(json!({"messages": [{"body": "later"}]})).await, 201);
    assert_eq!(post(json!({"messages": [{"body": "now", "delay": 0}]})).await, 201);
    assert_eq!(post(json!({"messages": [{"body": "x", "delay": 901}]})).await, 400);
    assert_eq!(post(json!({"messages": [{"body": "x", "delay": "1"}]})).await, 400);
    assert_eq!(post(json!({"messages": [{"body": "x".repeat(100)}]})).await, 400);
    let listed = |path: &'static str| async { service.send("GET", path, "").await.body["messages"].clone() };
    assert_eq!(listed("/v2/queues/q/messages?echo=true").await.as_array().unwrap().len(), 1);
    assert_eq!(listed("/v2/queues/q/messages?echo=true&include_delayed=true").await.as_array().unwrap().len(), 2);
    let (_, messages) = service.claim("q", 20).await.unwrap();
    assert_eq!((messages.len(), &messages[0]["body"]), (1, &json!("now")));
    service.advance(30);
    let (_, messages) = service.claim("q", 20).await.unwrap();
    assert_eq!((messages.len(), &messages[0]["body"]), (1, &json!("later")));
    assert_eq!(listed("/v2/queues/q/messages?echo=true&include_claimed=true").await[1]["ttl"], 360);
}

#[tokio::test]
async fn a_message_that_was_claimed_too_often_goes_to_the_dead_letter_queue() {
    let service = Service::start().await;
    let metadata =
        json!({"_max_claim_count": 2, "_dead_letter_queue": "dead", "_dead_letter_queue_messages_ttl": 7200});
    service.send("PUT", "/v2/queues/q", &metadata.to_string()).await;
    service.post("q", &[json!("worn")]).await;
    for _ in 0..2 {
        let (claim, messages) = service.claim("q", 1).await.unwrap();
        assert_eq!(messages[0]["body"], "worn");
        service.send("DELETE", &format!("/v2/queues/q/claims/{claim}"), "").await;
    }
    service.post("q", &[json!("fresh")]).await;
    let (_, messages) = service.claim("q", 1).await.unwrap();
    assert_eq!(messages[0]["body"], "fresh", "the worn one does not stand in its way");
    let (_, dead) = service.claim("dead", 20).await.unwrap();
    assert_eq!((dead.len(), &dead[0]["body"], &dead[0]["ttl"]), (1, &json!("worn"), &json!(7200)));
    assert!(service.claim("q", 1).await.is_none());
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let mut service = Service::start().await;
    service.send("PUT", "/v2/queues/q", r#"{"color":"blue"}"#).await;
    let ids = service.post("q", &[json!(1), json!(2), json!(3)]).await;
    let (claim, _) = service.claim("q", 1).await.unwrap();
    service.send("DELETE", &format!("/v2/queues/q/messages/{}", ids[1]), "").await;
    for _ in 0..2 {
        service = service.restart().await;
        assert_eq!(service.send("GET", "/v2/queues/q", "").await.body["color"], "blue");
        let stats = service.send("GET", "/v2/queues/q/stats", "").await.body["messages"].clone();
        assert_eq!((&stats["free"], &stats["claimed"]), (&json!(1), &json!(1)));
        assert_eq!(service.send("GET", &format!("/v2/queues/q/claims/{claim}"), "").await.status, 200);
        assert_eq!(service.send("GET", &format!("/v2/queues/q/messages/{}", ids[2]), "").await.body["body"], 3);
    }
    // Ids are never given twice, also when the newest rows are gone.
    service.send("DELETE", "/v2/queues/q/messages?pop=20", "").await;
    service = service.restart().await;
    let later = service.post("q", &[json!(4)]).await;
    assert!(later[0] > ids[2], "{later:?} {ids:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_posts_are_all_kept_and_a_bad_one_spoils_no_other() {
    let service = Service::start().await;
    service.send("PUT", "/v2/queues/small", r#"{"_max_messages_post_size":50}"#).await;
    let posts = (0..200).map(|n| {
        let service = &service;
        async move {
            // Every fourth is refused within the transaction that it shares with others.
            let (queue, body) = if n % 4 == 0 { ("small", json!("x".repeat(100))) } else { ("q", json!(n)) };
            let body = json!({"messages": [{"body": body}]}).to_string();
            service.send("POST", &format!("/v2/queues/{queue}/messages"), &body).await.status
        }
    });
    let mut statuses: HashMap<u16, usize> = HashMap::new();
    for status in join_all(posts).await {
        *statuses.entry(status).or_default() += 1;
    }
    assert_eq!(statuses, HashMap::from([(201, 150), (400, 50)]));
    let mut seen = HashSet::new();
    while let Some((_, messages)) = service.claim("q", 20).await {
        seen.extend(messages.iter().map(|message| message["body"].as_u64().unwrap()));
    }
    assert_eq!(seen, (0..200).filter(|n| n % 4 != 0).collect());
    assert!(service.claim("small", 1).await.is_none());
}

#[tokio::test]
async fn a_file_that_is_none_of_ours_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("text");
    std::fs::write(&text, "this is no database, and it is longer than a header of one would be".repeat(20)).unwrap();
    assert!(matches!(queue::open(&text).await, Err(queue::OpenError::Database(_))));
    assert!(matches!(
        queue::open(directory.path().join("missing/queue.sqlite")).await,
        Err(queue::OpenError::Database(_))
    ));
    let newer = directory.path().join("newer");
    rusqlite::Connection::open(&newer).unwrap().pragma_update(None, "user_version", 9).unwrap();
    assert!(matches!(queue::open(&newer).await, Err(queue::OpenError::Version { found: 9, .. })));
}

#[tokio::test]
async fn a_closed_queue_says_so() {
    let service = Service::start().await;
    service.queue.close().await;
    service.queue.close().await;
    assert_eq!(service.send("GET", "/v2/ping", "").await.status, 503);
    assert_eq!(service.send("GET", "/v2/health", "").await.body, json!({"storage_reachable": false}));
    let answer = service.send("POST", "/v2/queues/q/messages", r#"{"messages":[{"body":1}]}"#).await;
    assert_eq!((answer.status, &answer.body["title"]), (503, &json!("Service temporarily unavailable")));
}
