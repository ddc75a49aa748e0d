//! Projects' own queues without Keystone: any JSON that lies there runs the function, in batches, and what goes wrong is
//! told.

use serde_json::{Value, json};

use super::Service;

const HEADERS: [(&str, &str); 2] =
    [("Client-ID", "3381af92-2b9e-11e3-b191-71861300734c"), ("Accept", "application/json")];

/// Posts bodies to a queue of a project.
async fn post(service: &Service, project: &str, queue: &str, bodies: &[Value]) {
    let messages: Vec<_> = bodies.iter().map(|body| json!({"ttl": 3600, "body": body})).collect();
    let url = format!("{}/v2/queues/{queue}/messages", service.queue);
    let mut request = reqwest::Client::builder().no_proxy().build().unwrap().post(url).header("X-Project-Id", project);
    for (name, value) in HEADERS {
        request = request.header(name, value);
    }
    let response = request.json(&json!({ "messages": messages })).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 201, "{}", response.text().await.unwrap());
}

/// A function without a trigger, and then one on this queue.
async fn listener(service: &Service, name: &str, source: &str, trigger: Value, more: Value) -> Value {
    let mut body = json!({"name": name, "runtime": "python3", "handler": "main.handler", "code": {"source": source}});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    service.ok("POST", "/v1/functions", Some(&body)).await;
    let mut body = json!({"function": name});
    body.as_object_mut().unwrap().extend(trigger.as_object().unwrap().clone());
    service.ok("POST", "/v1/triggers", Some(&body)).await
}

const ECHO: &str = "def handler(event, context):\n    return event\n";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_posted_is_looked_at_whatever_the_clock_says() {
    let never = 60_000;
    let service = Service::start_with(&format!(
        "[zaqar]\nqueue_refresh = 0.2\npoll_min_ms = {never}\npoll_max_ms = {never}\nqueue_poll_min_ms = {never}\n\
         queue_poll_max_ms = {never}\n"
    ));
    listener(&service, "own", ECHO, json!({"queue": {"name": "orders.v1"}}), json!({})).await;
    listener(&service, "platform", ECHO, json!({"source": "shop", "type": "order"}), json!({})).await;
    // The first may be found by the first look; if the others were not heard of, each would take a minute.
    let all = async {
        for count in 1..=8 {
            post(&service, "demo", "lambda-events", &[json!({"source": "shop", "type": "order", "data": count})]).await;
            post(&service, "demo", "orders.v1", &[json!(count)]).await;
            for function in ["platform", "own"] {
                assert_eq!(service.finished(function, count).await.len(), count);
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(180), all).await.expect("every post is heard of");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_projects_own_queue_run_its_function() {
    let service = Service::start_with("[zaqar]\nqueue_refresh = 0.2\n");
    let trigger =
        listener(&service, "orders", ECHO, json!({"queue": {"name": "orders.v1", "batch_size": 3}}), json!({})).await;
    assert_eq!(trigger["queue"], json!({"name": "orders.v1", "batch_size": 3}), "{trigger}");
    assert_eq!((&trigger["source"], &trigger["type"]), (&json!("*"), &json!("*")));
    let cloud = json!({"specversion": "1.0", "id": "e1", "source": "shop", "type": "order", "projectid": "other"});
    let mut bodies = vec![cloud, json!(7), json!("text"), json!({"order": 1})];
    bodies.extend((0..30).map(|n| json!({"n": n})));
    post(&service, "demo", "orders.v1", &bodies).await;
    // Another project's queue of the same name is not looked at, and the platform's queue has no such trigger.
    post(&service, "other", "orders.v1", &[json!("foreign")]).await;

    let executions = service.finished("orders", bodies.len()).await;
    assert_eq!(executions.len(), bodies.len());
    assert!(executions.iter().all(|execution| execution["state"] == "succeeded"), "{executions:?}");
    let results: Vec<_> = executions.iter().map(|execution| execution["result"].clone()).collect();
    let of_type = |kind: &str| results.iter().filter(|event| event["type"] == kind).count();
    assert_eq!((of_type("order"), of_type("zaqar.message")), (1, bodies.len() - 1));
    for event in &results {
        assert_eq!(event["projectid"], "demo", "{event}");
        let is_ours = event["id"] == "e1" || event["source"] == "zaqar:orders.v1";
        assert!(is_ours, "{event}");
    }
    let id = trigger["id"].as_str().unwrap();
    service
        .until("the trigger says that it is active", async || {
            let shown = service.ok("GET", &format!("/v1/triggers/{id}"), None).await;
            (shown["status"] == "active").then_some(())
        })
        .await;

    // Nobody listens any more: what comes stays where it is.
    service.ok("DELETE", &format!("/v1/triggers/{id}"), None).await;
    service
        .until("the queue is left alone", async || {
            post(&service, "demo", "orders.v1", &[json!("late")]).await;
            let before = service.executions("function=orders").await.len();
            tokio::time::sleep(std::time::Duration::from_millis(600)).await;
            (!service.messages("orders.v1").await.is_empty()
                && service.executions("function=orders").await.len() == before)
                .then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_or_matches_nothing_lies_on_the_functions_dead_letter_queue_of_its_project() {
    let service = Service::start_with("[zaqar]\nqueue_refresh = 0.2\n[worker]\nretry_base = 0.05\n");
    let trigger = json!({"queue": {"name": "tasks"}, "filter": {"exact": {"data.kind": "bad"}}});
    let more = json!({"dead_letter_queue": "tasks-dead", "retry": {"max_attempts": 2}});
    let source = "def handler(event, context):\n    raise ValueError('no good')\n";
    listener(&service, "tasks", source, trigger, more).await;
    post(&service, "demo", "tasks", &[json!({"kind": "bad"}), json!({"kind": "other"})]).await;
    let letters = service
        .until("both letters are there", async || {
            let letters = service.messages("tasks-dead").await;
            (letters.len() == 2).then_some(letters)
        })
        .await;
    let find = |reason: &str| {
        let found = letters.iter().find(|letter| letter["body"]["reason"] == reason);
        found.unwrap_or_else(|| panic!("no letter says {reason}: {letters:?}"))["body"].clone()
    };
    let failed = find("handler_error");
    assert_eq!((&failed["attempts"], &failed["event"]["data"]["kind"]), (&json!(2), &json!("bad")), "{failed}");
    assert_eq!(find("no_trigger")["event"]["kind"], "other");
    assert!(service.messages("lambda-dead-letters").await.is_empty());
    // Re-driven, it comes back from its record.
    let id = failed["execution_id"].as_str().unwrap();
    service.ok("POST", &format!("/v1/executions/{id}/redrive"), None).await;
    service
        .until("it has failed once more", async || (service.messages("tasks-dead").await.len() == 3).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_the_service_posted_names_a_project_where_it_is_so_configured() {
    let service = Service::start_with("[zaqar]\ntrusted_posters = signed\n");
    service.function("signed", ECHO, json!({})).await;
    let event =
        |id: &str| json!({"specversion": "1.0", "id": id, "source": "test", "type": "signed", "projectid": "demo"});
    service.post(&[event("forged")]).await;
    let letters = service
        .until("the forged event is a dead letter", async || {
            let letters = service.messages("lambda-dead-letters").await;
            (!letters.is_empty()).then_some(letters)
        })
        .await;
    assert_eq!(letters[0]["body"]["reason"], "untrusted_poster", "{letters:?}");
    service.ok("POST", "/v1/events", Some(&event("true"))).await;
    let executions = service.finished("signed", 1).await;
    assert_eq!(executions.len(), 1);
    assert_eq!(executions[0]["event"]["id"], "true");
    assert_eq!(executions[0]["result"].get("lambdasignature"), None, "{}", executions[0]);
}
