//! Zaqar's statuses, headers and shapes, call by call.
//!
//! The table was run against a Zaqar 23.0.1 on MongoDB. It answers the same, except that it has topics and subscriptions,
//! no `/v2/health` outside its admin mode, 500 where we have 400 for `[1]` as messages and `1` as resource types, 503 for
//! a body nested 100,000 deep, and the other one of 400 and 404 for queue names that are empty or have a slash.

use serde_json::{Value, json};

use super::{Answered, CLIENT, Service, last};

const PATCH_TYPE: &str = "application/openstack-messaging-v2.0-json-patch";

#[tokio::test]
async fn every_call_has_zaqar_s_status() {
    let service = Service::start().await;
    let long = "q".repeat(65);
    let big = format!(r#"{{"messages":[{{"body":"{}"}}]}}"#, "x".repeat(262_144));
    let fits = format!(r#"{{"messages":[{{"body":"{}"}}]}}"#, "x".repeat(262_144 - 26));
    assert_eq!(fits.len(), 262_144);
    let metadata = format!(r#"{{"x":"{}"}}"#, "x".repeat(65_536));
    let deep = format!(r#"{{"messages":[{{"body":{}{}}}]}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let many = format!(r#"{{"messages":[{}]}}"#, vec![r#"{"body":1}"#; 60].join(","));
    let ids21 = vec!["5f0000000000000000000000"; 21].join(",");
    let bulk21 = format!("/v2/queues/q/messages?ids={ids21}");
    let (long_put, slash) = (format!("/v2/queues/{long}"), "/v2/queues/a%2Fb");
    let gone = "/v2/queues/q/messages/5f0000000000000000000000";
    let no_claim = "/v2/queues/q/claims/5f0000000000000000000000";
    let cases: &[(&str, &str, &str, u16)] = &[
        // Home.
        ("GET", "/", "", 300),
        ("GET", "/v2/", "", 200),
        ("GET", "/v2", "", 404),
        ("GET", "/v3/", "", 404),
        ("GET", "/v2/ping", "", 204),
        ("GET", "/v2/health", "", 200),
        ("GET", "/v2/topics", "", 404),
        ("GET", "/v2/pools", "", 404),
        ("POST", "/v2/ping", "{}", 405),
        ("POST", "/", "{}", 405),
        // Queues.
        ("GET", "/v2/queues/none", "", 200),
        ("GET", "/v2/queues/none/stats", "", 200),
        ("PUT", "/v2/queues/q", "", 201),
        ("PUT", "/v2/queues/q", "", 204),
        ("PUT", "/v2/queues/q", r#"{"a":1}"#, 204),
        ("PUT", "/v2/queues/A.b_c-9", r#"{"color":"blue"}"#, 201),
        ("PUT", &long_put, "", 400),
        ("PUT", slash, "", 400),
        ("PUT", "/v2/queues/%C3%BC", "", 400),
        ("PUT", "/v2/queues/%ff", "", 400),
        ("PUT", "/v2/queues/x%20y", "", 400),
        ("PUT", "/v2/queues/", "", 404),
        ("PUT", "/v2/queues/r", "[]", 400),
        ("PUT", "/v2/queues/r", "1", 400),
        ("PUT", "/v2/queues/r", "{", 400),
        ("PUT", "/v2/queues/r", &metadata, 400),
        ("PUT", "/v2/queues/r", r#"{"_default_message_ttl":59}"#, 400),
        ("PUT", "/v2/queues/r", r#"{"_default_message_ttl":1209601}"#, 400),
        ("PUT", "/v2/queues/r", r#"{"_default_message_delay":901}"#, 400),
        ("PUT", "/v2/queues/r", r#"{"_max_messages_post_size":262145}"#, 400),
        ("PUT", "/v2/queues/r", r#"{"_max_claim_count":"many"}"#, 400),
        ("PATCH", "/v2/queues/q", r#"[{"op":"add","path":"/metadata/a","value":1}]"#, 415),
        ("GET", "/v2/queues", "", 200),
        ("GET", "/v2/queues?limit=20&detailed=true&with_count=true&name=q&color=blue", "", 200),
        ("GET", "/v2/queues?limit=21", "", 400),
        ("GET", "/v2/queues?limit=0", "", 400),
        ("GET", "/v2/queues?limit=x", "", 400),
        ("GET", "/v2/queues?detailed=maybe", "", 400),
        ("POST", "/v2/queues/q/purge", r#"{"resource_types":["messages","subscriptions"]}"#, 204),
        ("POST", "/v2/queues/q/purge", "", 204),
        ("POST", "/v2/queues/none/purge", "", 204),
        ("POST", "/v2/queues/q/purge", r#"{"resource_types":["everything"]}"#, 400),
        ("POST", "/v2/queues/q/purge", r#"{"resource_types":1}"#, 400),
        ("POST", "/v2/queues/q/purge", "{}", 400),
        // Messages.
        ("POST", "/v2/queues/q/messages", r#"{"messages":[{"ttl":60,"body":{}}]}"#, 201),
        ("POST", "/v2/queues/lazy/messages", r#"{"messages":[{"body":null}]}"#, 201),
        ("POST", "/v2/queues/q/messages", r#"{"messages":[{"ttl":1209600,"body":"x","more":1}]}"#, 201),
        ("POST", "/v2/queues/q/messages", r#"{"messages":[{"delay":"ignored without a delay","body":1}]}"#, 201),
        ("POST", "/v2/queues/q/messages", &many, 201),
        ("POST", "/v2/queues/q/messages", &fits, 201),
        ("POST", "/v2/queues/q/messages", &deep, 201),
        ("POST", "/v2/queues/q/messages", &big, 400),
        ("POST", "/v2/queues/q/messages", "", 400),
        ("POST", "/v2/queues/q/messages", "{", 400),
        ("POST", "/v2/queues/q/messages", "7", 400),
        ("POST", "/v2/queues/q/messages", "[]", 400),
        ("POST", "/v2/queues/q/messages", "{}", 400),
        ("POST", "/v2/queues/q/messages", r#"{"messages":{}}"#, 400),
        ("POST", "/v2/queues/q/messages", r#"{"messages":[]}"#, 400),
        ("POST", "/v2/queues/q/messages", r#"{"messages":[1]}"#, 400),
        ("POST", "/v2/queues/q/messages", r#"{"messages":[{"ttl":60}]}"#, 400),
        ("POST", "/v2/queues/q/messages", r#"{"messages":[{"ttl":59,"body":1}]}"#, 400),
        ("POST", "/v2/queues/q/messages", r#"{"messages":[{"ttl":1209601,"body":1}]}"#, 400),
        ("POST", "/v2/queues/q/messages", r#"{"messages":[{"ttl":"60","body":1}]}"#, 400),
        ("POST", "/v2/queues/q/messages", r#"{"messages":[{"ttl":1e3,"body":1}]}"#, 400),
        ("POST", "/v2/queues/q/messages", r#"{"messages":[{"ttl":99999999999999999999,"body":1}]}"#, 400),
        ("POST", "/v2/queues/a%2Fb/messages", r#"{"messages":[{"body":1}]}"#, 400),
        ("GET", "/v2/queues/q/messages", "", 200),
        ("GET", "/v2/queues/none/messages", "", 200),
        ("GET", "/v2/queues/q/messages?limit=20&echo=true&include_claimed=True&include_delayed=1", "", 200),
        ("GET", "/v2/queues/q/messages?limit=21", "", 400),
        ("GET", "/v2/queues/q/messages?limit=-1", "", 400),
        ("GET", "/v2/queues/q/messages?echo=perhaps", "", 400),
        ("GET", "/v2/queues/q/messages?marker=nonsense", "", 200),
        ("GET", "/v2/queues/q/messages?ids=5f0000000000000000000000,x", "", 404),
        ("GET", &bulk21, "", 400),
        ("GET", gone, "", 404),
        ("GET", "/v2/queues/q/messages/nonsense", "", 404),
        ("DELETE", gone, "", 204),
        ("DELETE", "/v2/queues/q/messages/nonsense", "", 204),
        ("DELETE", "/v2/queues/none/messages/nonsense", "", 204),
        ("DELETE", "/v2/queues/q/messages?ids=5f0000000000000000000000,x", "", 204),
        ("DELETE", &bulk21, "", 400),
        ("DELETE", "/v2/queues/q/messages", "", 400),
        ("DELETE", "/v2/queues/q/messages?ids=", "", 400),
        ("DELETE", "/v2/queues/q/messages?ids=a&pop=1", "", 400),
        ("DELETE", "/v2/queues/q/messages?pop=0", "", 400),
        ("DELETE", "/v2/queues/q/messages?pop=21", "", 400),
        ("DELETE", "/v2/queues/q/messages?pop=x", "", 400),
        ("DELETE", "/v2/queues/q/messages?pop=1", "", 200),
        ("DELETE", "/v2/queues/none/messages?pop=1", "", 200),
        // Claims.
        ("POST", "/v2/queues/none/claims", "", 204),
        ("POST", "/v2/queues/q/claims", "", 201),
        ("POST", "/v2/queues/q/claims?limit=1", r#"{"ttl":60,"grace":60}"#, 201),
        ("POST", "/v2/queues/q/claims?limit=20", r#"{"ttl":43200,"grace":43200}"#, 201),
        ("POST", "/v2/queues/q/claims?limit=21", "{}", 400),
        ("POST", "/v2/queues/q/claims?limit=0", "{}", 400),
        ("POST", "/v2/queues/q/claims", r#"{"ttl":59}"#, 400),
        ("POST", "/v2/queues/q/claims", r#"{"ttl":43201}"#, 400),
        ("POST", "/v2/queues/q/claims", r#"{"grace":59}"#, 400),
        ("POST", "/v2/queues/q/claims", r#"{"ttl":null}"#, 400),
        ("POST", "/v2/queues/q/claims", r#"{"ttl":true}"#, 400),
        ("POST", "/v2/queues/q/claims", "[]", 400),
        ("POST", "/v2/queues/q/claims", "nonsense", 400),
        ("GET", no_claim, "", 404),
        ("GET", "/v2/queues/q/claims/nonsense", "", 404),
        ("PATCH", no_claim, r#"{"ttl":300,"grace":60}"#, 404),
        ("PATCH", "/v2/queues/none/claims/x", r#"{"ttl":300}"#, 404),
        ("PATCH", no_claim, "", 400),
        ("PATCH", no_claim, r#"{"ttl":1}"#, 400),
        ("DELETE", no_claim, "", 204),
        ("DELETE", "/v2/queues/none/claims/x", "", 204),
        // What is switched off.
        ("GET", "/v2/queues/q/subscriptions", "", 200),
        ("POST", "/v2/queues/q/subscriptions", r#"{"subscriber":"http://x"}"#, 400),
        ("GET", "/v2/queues/q/subscriptions/x", "", 404),
        ("PATCH", "/v2/queues/q/subscriptions/x", "{}", 404),
        ("PUT", "/v2/queues/q/subscriptions/x/confirm", r#"{"confirmed":true}"#, 404),
        ("DELETE", "/v2/queues/q/subscriptions/x", "", 204),
        ("POST", "/v2/queues/q/share", r#"{"paths":["messages"]}"#, 400),
        // The end.
        ("DELETE", "/v2/queues/q", "", 204),
        ("DELETE", "/v2/queues/q", "", 204),
    ];
    for (method, path, body, status) in cases {
        let answer = service.send(method, path, body).await;
        let shown: String = body.chars().take(80).collect();
        assert_eq!(answer.status, *status, "{method} {path:.100} {shown}: {}", answer.body);
        if *status >= 400 {
            assert!(answer.body["title"].is_string(), "{method} {path:.100}: {}", answer.body);
            assert!(answer.body["description"].is_string(), "{method} {path:.100}: {}", answer.body);
        }
        assert_eq!(answer.allow.is_some(), *status == 405, "{method} {path}");
    }
}

#[tokio::test]
async fn a_request_needs_a_client_id_and_takes_a_project() {
    let service = Service::start().await;
    let bare = |path: &str| service.http.get(format!("{}{path}", service.url));
    let with = |name: &str, value: &str| service.ask("GET", "/v2/queues").header(name, value);
    let long = "p".repeat(257);
    for (request, status, title) in [
        (bare("/"), 300, ""),
        (bare("/v2/ping"), 400, "Missing header value"),
        (bare("/v2/queues"), 400, "Missing header value"),
        (bare("/v2/queues").header("Client-ID", "me"), 400, "Wrong UUID value"),
        (bare("/v2/queues").header("Client-ID", CLIENT.replace('-', "")), 200, ""),
        (with("X-Project-Id", ""), 200, ""),
        (with("X-Project-Id", &long), 400, "Invalid queue identification"),
        (with("X-Project-Id", "p"), 200, ""),
        (with("Accept", "text/html"), 406, "Media type not acceptable"),
        (with("Accept", "application/json"), 200, ""),
        (
            service.ask("PUT", "/v2/queues/q").header("Content-Type", "application/x-www-form-urlencoded").body("{}"),
            400,
            "Invalid Content-Type",
        ),
    ] {
        let answer = Answered::from(request.send().await.unwrap()).await;
        assert_eq!(answer.status, status, "{}", answer.body);
        if !title.is_empty() {
            assert_eq!(answer.body["title"], title);
        }
    }
}

#[tokio::test]
async fn projects_do_not_see_one_another() {
    let service = Service::start().await;
    let ids = service.post("q", &[json!(1)]).await;
    let other = |method: &str, path: &str| service.ask(method, path).header("X-Project-Id", "other");
    for (method, path, status) in [
        ("GET", format!("/v2/queues/q/messages/{}", ids[0]), 404),
        ("POST", "/v2/queues/q/claims".to_owned(), 204),
        ("DELETE", format!("/v2/queues/q/messages/{}", ids[0]), 204),
        ("DELETE", "/v2/queues/q".to_owned(), 204),
    ] {
        assert_eq!(other(method, &path).send().await.unwrap().status().as_u16(), status, "{method} {path}");
    }
    // A project that is not named is `demo`.
    let demo = service.ask("GET", &format!("/v2/queues/q/messages/{}", ids[0])).header("X-Project-Id", "demo");
    assert_eq!(demo.send().await.unwrap().status().as_u16(), 200);
}

#[tokio::test]
async fn the_version_document_and_the_json_home_are_zaqar_s() {
    let service = Service::start().await;
    let versions = service.send("GET", "/", "").await.body;
    assert_eq!(versions["versions"][0]["id"], "2");
    assert_eq!(versions["versions"][0]["links"][0]["href"], "/v2/");
    let home = service.ask("GET", "/v2/").send().await.unwrap();
    assert_eq!(home.headers()["content-type"], "application/json-home");
    assert!(home.headers()["x-openstack-request-id"].to_str().unwrap().starts_with("req-"));
    let home: Value = home.json().await.unwrap();
    assert_eq!(home["resources"]["rel/queue"]["href-vars"]["queue_name"], "param/queue_name");
    assert_eq!(home["resources"]["rel/messages"]["href-vars"]["echo"], "param/echo");
}

#[tokio::test]
async fn a_queue_keeps_its_metadata_and_shows_the_reserved_ones() {
    let service = Service::start().await;
    let made = service.send("PUT", "/v2/queues/q", r#"{"color":"blue","_default_message_ttl":60}"#).await;
    assert_eq!((made.status, made.location.as_deref()), (201, Some("/v2/queues/q")));
    let again = service.send("PUT", "/v2/queues/q", r#"{"color":"red"}"#).await;
    assert_eq!(again.location.as_deref(), Some("/v2/queues/q"));
    let shown = service.send("GET", "/v2/queues/q", "").await.body;
    assert_eq!(
        shown,
        json!({
            "color": "blue", "_default_message_ttl": 60, "_max_messages_post_size": 262_144,
            "_default_message_delay": 0, "_dead_letter_queue": null, "_dead_letter_queue_messages_ttl": null,
            "_max_claim_count": null, "_enable_encrypt_messages": false,
        })
    );
    let patch = |name: &str, body: Value| {
        let path = format!("/v2/queues/{name}");
        service.ask("PATCH", &path).header("Content-Type", PATCH_TYPE).body(body.to_string()).send()
    };
    for (name, body, status) in [
        ("q", json!([{"op": "replace", "path": "/metadata/color", "value": "green"}]), 200),
        ("q", json!([{"op": "replace", "path": "/metadata/_default_message_ttl", "value": 120}]), 200),
        (
            "q",
            json!([{"op": "remove", "path": "/metadata/color"}, {"op": "add", "path": "/metadata/n", "value": 1}]),
            200,
        ),
        ("q", json!([{"op": "remove", "path": "/metadata/color"}]), 409),
        ("q", json!([{"op": "add", "path": "/metadata/_default_message_ttl", "value": 1}]), 400),
        ("q", json!({"op": "add"}), 400),
        ("none", json!([{"op": "add", "path": "/metadata/a", "value": 1}]), 404),
    ] {
        let answer = patch(name, body.clone()).await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{body}");
    }
    let shown = service.send("GET", "/v2/queues/q", "").await.body;
    assert_eq!((&shown["n"], &shown["_default_message_ttl"], shown.get("color")), (&json!(1), &json!(120), None));
}

#[tokio::test]
async fn queues_are_listed_in_pages() {
    let service = Service::start().await;
    for name in ["c", "a", "b", "x"] {
        service.send("PUT", &format!("/v2/queues/{name}"), &format!(r#"{{"k":"{name}"}}"#)).await;
    }
    let first = service.send("GET", "/v2/queues?limit=3&detailed=true&with_count=true", "").await.body;
    let names = |page: &Value| -> Vec<String> {
        page["queues"].as_array().unwrap().iter().map(|queue| queue["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((names(&first), &first["count"]), (vec!["a".into(), "b".into(), "c".into()], &json!(4)));
    assert_eq!(first["queues"][0]["metadata"]["k"], "a");
    assert_eq!(first["queues"][0]["href"], "/v2/queues/a");
    let next = service.send("GET", first["links"][0]["href"].as_str().unwrap(), "").await.body;
    assert_eq!(names(&next), ["x"]);
    let end = service.send("GET", next["links"][0]["href"].as_str().unwrap(), "").await.body;
    assert_eq!((names(&end), &end["links"]), (vec![], &json!([])));
    assert_eq!(names(&service.send("GET", "/v2/queues?k=b", "").await.body), ["b"]);
    assert_eq!(names(&service.send("GET", "/v2/queues?name=x", "").await.body), ["x"]);
}

#[tokio::test]
async fn messages_are_listed_in_order_and_one_s_own_only_on_request() {
    let service = Service::start().await;
    let bodies: Vec<Value> = (0..7).map(|n| json!({"n": n})).collect();
    let ids = service.post("q", &bodies).await;
    assert!(ids.iter().all(|id| id.len() == 24) && ids.is_sorted());
    let own = service.send("GET", "/v2/queues/q/messages", "").await.body;
    assert_eq!(own, json!({"messages": [], "links": []}));
    let mut path = "/v2/queues/q/messages?limit=3&echo=true".to_owned();
    let mut seen = Vec::new();
    loop {
        let page = service.send("GET", &path, "").await.body;
        let messages = page["messages"].as_array().unwrap().clone();
        if messages.is_empty() {
            break;
        }
        seen.extend(messages);
        path = page["links"][0]["href"].as_str().unwrap().to_owned();
    }
    assert_eq!(seen.iter().map(|message| last(&message["href"])).collect::<Vec<_>>(), ids);
    assert_eq!(seen[2]["body"], json!({"n": 2}));
    assert_eq!((&seen[2]["ttl"], &seen[2]["age"], &seen[2]["id"]), (&json!(3600), &json!(0), &json!(ids[2])));
    // openstacksdk goes on with an id for a marker.
    let behind = service.send("GET", &format!("/v2/queues/q/messages?echo=true&marker={}", ids[4]), "").await.body;
    assert_eq!(behind["messages"].as_array().unwrap().len(), 2);
    let (claim, _) = service.claim("q", 2).await.unwrap();
    let free = service.send("GET", "/v2/queues/q/messages?echo=true", "").await.body;
    assert_eq!(free["messages"].as_array().unwrap().len(), 5);
    let all = service.send("GET", "/v2/queues/q/messages?echo=true&include_claimed=true", "").await.body;
    assert_eq!(all["messages"].as_array().unwrap().len(), 7);
    assert_eq!(
        all["messages"][0]["href"].as_str().unwrap(),
        format!("/v2/queues/q/messages/{}?claim_id={claim}", ids[0])
    );
    let two = service.send("GET", &format!("/v2/queues/q/messages?ids={},{},nonsense", ids[6], ids[0]), "").await.body;
    assert_eq!(two["messages"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_claimed_message_is_deleted_only_with_its_claim() {
    let service = Service::start().await;
    service.post("q", &[json!(1), json!(2), json!(3), json!(4)]).await;
    let (mine, held) = service.claim("q", 2).await.unwrap();
    let (other, _) = service.claim("q", 1).await.unwrap();
    let path = |n: usize| format!("/v2/queues/q/messages/{}", held[n]["id"].as_str().unwrap());
    let free = service.send("GET", "/v2/queues/q/messages?echo=true", "").await.body["messages"][0].clone();
    let (first, second) = (held[0]["id"].as_str().unwrap(), held[1]["id"].as_str().unwrap());
    for (path, status) in [
        (path(0), 403),
        (format!("{}?claim_id=nonsense", path(0)), 400),
        (format!("{}?claim_id=5f0000000000000000000000", path(0)), 400),
        (format!("{}?claim_id={other}", path(0)), 403),
        (format!("{}?claim_id={mine}", free["href"].as_str().unwrap()), 400),
        (format!("/v2/queues/q/messages?ids={first},{second}&claim_ids={other}"), 403),
        (held[0]["href"].as_str().unwrap().to_owned(), 204),
        (held[0]["href"].as_str().unwrap().to_owned(), 204),
        (format!("/v2/queues/q/messages?ids={first},{second}&claim_ids={mine}"), 204),
        (format!("/v2/queues/q/messages?ids={first},{second}&claim_ids={mine}"), 204),
    ] {
        assert_eq!(service.send("DELETE", &path, "").await.status, status, "{path}");
    }
    // A claim that holds nothing any more is gone.
    let renew = service.send("PATCH", &format!("/v2/queues/q/claims/{mine}"), r#"{"ttl":300,"grace":60}"#).await;
    assert_eq!(renew.status, 404);
    // Without claim ids, a bulk deletion does not look at claims.
    let held = service.send("GET", &format!("/v2/queues/q/claims/{other}"), "").await.body;
    let id = held["messages"][0]["id"].as_str().unwrap();
    assert_eq!(service.send("DELETE", &format!("/v2/queues/q/messages?ids={id}"), "").await.status, 204);
    let stats = service.send("GET", "/v2/queues/q/stats", "").await.body;
    assert_eq!((&stats["messages"]["total"], &stats["messages"]["claimed"]), (&json!(1), &json!(0)));
}

#[tokio::test]
async fn a_claim_is_shown_renewed_and_released() {
    let service = Service::start().await;
    service.post("q", &[json!("a"), json!("b")]).await;
    let (claim, held) = service.claim("q", 20).await.unwrap();
    let path = format!("/v2/queues/q/claims/{claim}");
    service.advance(100);
    let shown = service.send("GET", &path, "").await.body;
    assert_eq!((&shown["age"], &shown["ttl"], &shown["href"]), (&json!(100), &json!(300), &json!(path)));
    assert_eq!(shown["messages"][1]["body"], "b");
    assert_eq!(shown["messages"][1]["href"], held[1]["href"]);
    assert_eq!(shown["messages"][1]["age"], 100);
    assert_eq!(service.send("PATCH", &path, r#"{"ttl":1000,"grace":60}"#).await.status, 204);
    service.advance(999);
    assert!(service.claim("q", 20).await.is_none(), "it was renewed");
    assert_eq!(service.send("DELETE", &path, "").await.status, 204);
    assert_eq!(service.send("GET", &path, "").await.status, 404);
    let (_, again) = service.claim("q", 20).await.unwrap();
    assert_eq!(again.iter().map(|message| &message["body"]).collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test]
async fn stats_count_and_purge_leaves_what_is_claimed() {
    let service = Service::start().await;
    let ids = service.post("q", &[json!(1), json!(2), json!(3)]).await;
    service.claim("q", 1).await.unwrap();
    service.advance(61);
    let stats = service.send("GET", "/v2/queues/q/stats", "").await.body["messages"].clone();
    assert_eq!((&stats["free"], &stats["claimed"], &stats["total"]), (&json!(2), &json!(1), &json!(3)));
    assert_eq!((last(&stats["oldest"]["href"]), &stats["oldest"]["age"]), (ids[0].clone(), &json!(61)));
    assert_eq!(last(&stats["newest"]["href"]), ids[2]);
    assert!(stats["newest"]["created"].as_str().unwrap().ends_with('Z'));
    assert_eq!(service.send("POST", "/v2/queues/q/purge", r#"{"resource_types":["subscriptions"]}"#).await.status, 204);
    assert_eq!(service.send("GET", "/v2/queues/q/stats", "").await.body["messages"]["total"], 3);
    assert_eq!(service.send("POST", "/v2/queues/q/purge", "").await.status, 204);
    let stats = service.send("GET", "/v2/queues/q/stats", "").await.body["messages"].clone();
    assert_eq!((&stats["free"], &stats["claimed"]), (&json!(0), &json!(1)));
    assert_eq!(
        service.send("GET", "/v2/queues/empty/stats", "").await.body,
        json!({"messages": {"claimed": 0, "free": 0, "total": 0}})
    );
}

#[tokio::test]
async fn pop_takes_the_oldest_for_good() {
    let service = Service::start().await;
    service.post("q", &[json!(1), json!(2), json!(3)]).await;
    let popped = service.send("DELETE", "/v2/queues/q/messages?pop=2", "").await;
    let bodies: Vec<&Value> = popped.body["messages"].as_array().unwrap().iter().map(|one| &one["body"]).collect();
    assert_eq!((popped.status, bodies), (200, vec![&json!(1), &json!(2)]));
    assert_eq!(popped.body["messages"][0]["claim_count"], 0);
    assert_eq!(service.claim("q", 20).await.unwrap().1.len(), 1);
    assert_eq!(service.send("DELETE", "/v2/queues/q/messages?pop=2", "").await.body, json!({"messages": []}));
}

#[tokio::test]
async fn a_body_ten_times_too_large_is_answered_and_not_cut_off() {
    let service = Service::start().await;
    let body = format!(r#"{{"messages":[{{"body":"{}"}}]}}"#, "x".repeat(10 * 1024 * 1024));
    let answer = service.send("POST", "/v2/queues/q/messages", &body).await;
    assert_eq!((answer.status, &answer.body["title"]), (400, &json!("Invalid API request")));
    assert!(answer.body["description"].as_str().unwrap().starts_with("Message collection size is too large"));
}
