//! The client that the worker uses, against our server.

use std::time::Duration;

use lambda_openstack::openstack::OpenStackError;
use lambda_openstack::openstack::zaqar::{self, Held};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::{Service, message};

const TTL: Duration = Duration::from_secs(300);
const GRACE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn the_client_does_all_it_can_with_our_server() {
    let service = Service::start().await;
    let client = service.client();
    client.ping().await.unwrap();
    assert_eq!(client.stats("q").await.unwrap(), zaqar::Stats::default());
    let metadata = json!({"_default_message_ttl": 60}).as_object().unwrap().clone();
    assert!(client.ensure_queue("q", &metadata).await.unwrap());
    assert!(!client.ensure_queue("q", &Map::new()).await.unwrap());
    assert_eq!(client.claim("q", 20, TTL, GRACE).await.unwrap(), None);
    assert_eq!(client.claim("q", 0, TTL, GRACE).await.unwrap(), None);

    let bodies = [json!(null), json!(true), json!(-1.5), json!("é\n"), json!([1, [2]]), json!({"a": {"b": []}})];
    let ids = client.post("q", &bodies.each_ref().map(message)).await.unwrap();
    service.advance(7);
    let stats = client.stats("q").await.unwrap();
    assert_eq!((stats.free, stats.claimed, stats.total, stats.oldest_age), (6, 0, 6, Some(Duration::from_secs(7))));

    let claim = client.claim("q", 20, TTL, GRACE).await.unwrap().unwrap();
    assert_eq!(claim.messages.iter().map(|message| &message.id).collect::<Vec<_>>(), ids.iter().collect::<Vec<_>>());
    assert_eq!(
        claim.messages.iter().map(|message| &message.body).collect::<Vec<_>>(),
        bodies.iter().collect::<Vec<_>>()
    );
    assert!(claim.messages.iter().all(|message| message.claim_id == claim.id));
    assert_eq!((claim.messages[0].age, claim.messages[0].ttl), (Duration::from_secs(7), Duration::from_secs(3600)));
    assert_eq!(client.claim("q", 20, TTL, GRACE).await.unwrap(), None);

    assert_eq!(client.renew("q", &claim.id, TTL, GRACE).await.unwrap(), Held::Done);
    assert_eq!(client.delete_claimed("q", &ids[..2], &claim.id).await.unwrap(), Held::Done);
    assert_eq!(client.delete_claimed("q", &ids[..2], &claim.id).await.unwrap(), Held::Done, "it can be repeated");
    assert_eq!(client.delete_claimed("q", &[], &claim.id).await.unwrap(), Held::Done);
    client.release("q", &claim.id).await.unwrap();
    client.release("q", &claim.id).await.unwrap();
    assert_eq!(client.renew("q", &claim.id, TTL, GRACE).await.unwrap(), Held::Lost);
    assert_eq!(client.delete_claimed("q", &ids, &claim.id).await.unwrap(), Held::Lost);
    let again = client.claim("q", 20, TTL, GRACE).await.unwrap().unwrap();
    assert_eq!(again.messages.len(), 4);
    assert_eq!(client.delete_claimed("q", &ids, &claim.id).await.unwrap(), Held::Lost, "it is another's now");
    client.delete_queue("q").await.unwrap();
    client.delete_queue("q").await.unwrap();
}

#[tokio::test]
async fn a_post_is_split_by_the_size_and_number_that_zaqar_takes() {
    let service = Service::start().await;
    let client = service.client();
    // 3 of 100 KiB do not fit into one request of 256 KiB; 450 small ones do not fit into 200.
    let mut messages: Vec<_> = (0..3).map(|_| message(&json!("x".repeat(100 * 1024)))).collect();
    messages.extend((0..450).map(|n| message(&json!(n))));
    let ids = client.post("q", &messages).await.unwrap();
    assert_eq!(ids.len(), 453);
    assert_eq!(client.stats("q").await.unwrap().total, 453);
    let listed = service.send("GET", &format!("/v2/queues/q/messages/{}", ids[452]), "").await.body;
    assert_eq!(listed["body"], 449, "ids come in the order of the messages");

    // The largest that fits, and one byte more.
    let largest = 256 * 1024 - r#"{"messages":[{"ttl":3600,"body":""}]}"#.len();
    client.post("q", &[message(&json!("x".repeat(largest)))]).await.unwrap();
    let refused = client.post("q", &[message(&json!(1)), message(&json!("x".repeat(largest + 1)))]).await.unwrap_err();
    assert_eq!(refused.posted.len(), 1);
    assert!(matches!(refused.source, OpenStackError::Invalid(_)), "{:?}", refused.source);
}

#[tokio::test]
async fn refusals_come_in_domain_terms() {
    let service = Service::start().await;
    let client = service.client();
    let short = zaqar::NewMessage { ttl: Duration::from_secs(1), body: RawValue::NULL.to_owned() };
    let error = client.post("q", &[short]).await.unwrap_err().source;
    assert!(matches!(&error, OpenStackError::Invalid(text) if text.contains("TTL")), "{error}");
    for error in [
        client.claim("q", 1, Duration::from_secs(1), GRACE).await.unwrap_err(),
        client.ensure_queue("no/queue", &Map::new()).await.unwrap_err(),
        client.stats(&"x".repeat(65)).await.unwrap_err(),
    ] {
        assert!(matches!(error, OpenStackError::Invalid(_)), "{error:?}");
        assert!(!error.retryable());
    }
}

#[tokio::test]
async fn a_body_that_is_json_only_for_others_comes_as_text_and_can_be_deleted() {
    let service = Service::start().await;
    let client = service.client();
    let deep = format!("{}{}", "[".repeat(2000), "]".repeat(2000));
    let body = RawValue::from_string(deep.clone()).unwrap();
    client.post("q", &[zaqar::NewMessage { ttl: Duration::from_secs(60), body }, message(&json!(2))]).await.unwrap();
    let claim = client.claim("q", 20, TTL, GRACE).await.unwrap().unwrap();
    assert_eq!(claim.messages[0].body, Value::String(deep));
    assert_eq!(claim.messages[1].body, 2);
    let ids: Vec<String> = claim.messages.iter().map(|message| message.id.clone()).collect();
    assert_eq!(client.delete_claimed("q", &ids, &claim.id).await.unwrap(), Held::Done);
}
