//! A function's life over REST, its code and its triggers.

use std::io::Write as _;

use axum::body::Body;
use axum::http::Method;
use lambda_openstack::config::ApiOptions;
use serde_json::{Value, json};

use super::harness::{Answer, Service, json_request, request};

pub fn zip_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in entries {
        writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[tokio::test]
async fn a_function_is_made_shown_changed_and_removed() {
    let service = Service::new().await;
    let body = json!({"name": "thumb", "handler": "app.run", "memory": 256, "timeout": 5, "description": "makes small",
                      "environment": {"SIZE": "64"}, "max_concurrency": 3, "dead_letter_queue": "dead",
                      "retry": {"max_attempts": 2, "max_event_age": 60},
                      "triggers": [{"source": "swift://*", "type": "object.created",
                                    "filter": {"suffix": {"subject": ".png"}}}]});
    let made = service.post("/v1/functions", &body).await;
    assert_eq!(made.status, 201);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(made.header("location"), format!("http://api.test/v1/functions/{id}"));
    assert_eq!(made.header("etag"), "\"1\"");
    for name in [id.as_str(), "thumb"] {
        let shown = service.get(&format!("/v1/functions/{name}")).await;
        assert_eq!((shown.status.as_u16(), shown.json()), (200, made.json()));
    }
    let changed = service
        .patch("/v1/functions/thumb", &json!({"memory": null, "timeout": 7, "retry": {"max_attempts": 9}}))
        .await;
    assert_eq!(changed.status, 200, "{}", changed.text());
    assert_eq!(changed.header("etag"), "\"2\"");
    let changed = changed.json();
    assert_eq!((&changed["memory"], &changed["timeout"], &changed["revision"]), (&json!(128), &json!(7), &json!(2)));
    assert_eq!(changed["retry"], json!({"max_attempts": 9, "max_event_age": 60}));
    assert_eq!((&changed["handler"], &changed["triggers"]), (&made.json()["handler"], &made.json()["triggers"]));
    assert_eq!(service.delete("/v1/functions/thumb").await.status, 204);
    service.get("/v1/functions/thumb").await.is_error(404, "function.function.not_found");
    service.delete("/v1/functions/thumb").await.is_error(404, "function.function.not_found");
    assert_eq!(service.get("/v1/triggers").await.json()["triggers"], json!([]));
}

#[tokio::test]
async fn what_is_not_said_has_its_default() {
    let service = Service::new().await;
    let python = service.post("/v1/functions", &json!({"name": "p"})).await.json();
    assert_eq!(
        (&python["runtime"], &python["handler"], &python["code"]),
        (&json!("python3"), &json!("main.handler"), &Value::Null)
    );
    assert_eq!(
        (&python["memory"], &python["timeout"], &python["max_concurrency"]),
        (&json!(128), &json!(30), &Value::Null)
    );
    let provided = service.post("/v1/functions", &json!({"name": "b", "runtime": "provided"})).await.json();
    assert_eq!(provided["handler"], "bootstrap");
}

#[tokio::test]
async fn a_name_is_unique_in_its_project_and_free_in_others() {
    let service = Service::new().await;
    assert_eq!(service.post("/v1/functions", &json!({"name": "a"})).await.status, 201);
    service.post("/v1/functions", &json!({"name": "a"})).await.is_error(409, "function.function.name_taken");
    let mut other = json_request(Method::POST, "/v1/functions", &json!({"name": "a"}));
    other.headers_mut().insert("x-project-id", "other".parse().unwrap());
    assert_eq!(service.send(other).await.status, 201);
    assert_eq!(service.get("/v1/functions").await.json()["functions"].as_array().unwrap().len(), 1);
    assert_eq!(service.get("/v1/functions?all_projects=true").await.json()["functions"].as_array().unwrap().len(), 2);
    assert_eq!(service.post("/v1/functions", &json!({"name": "b"})).await.status, 201);
    service.patch("/v1/functions/b", &json!({"name": "a"})).await.is_error(409, "function.function.name_taken");
}

#[tokio::test]
async fn a_project_reaches_nothing_of_another() {
    let service = Service::new().await;
    let function = service.function("mine").await;
    let execution = service.execution(&function, lambda_openstack::clock::now()).await;
    let trigger = service.post("/v1/triggers", &json!({"function": "mine", "type": "t"})).await.json();
    let id = function.id;
    for (method, path) in [
        (Method::GET, format!("/v1/functions/{id}")),
        (Method::PATCH, format!("/v1/functions/{id}")),
        (Method::DELETE, format!("/v1/functions/{id}")),
        (Method::GET, format!("/v1/functions/{id}/code")),
        (Method::PUT, format!("/v1/functions/{id}/code")),
        (Method::POST, format!("/v1/functions/{id}/invocations")),
        (Method::GET, format!("/v1/triggers/{}", trigger["id"].as_str().unwrap())),
        (Method::DELETE, format!("/v1/triggers/{}", trigger["id"].as_str().unwrap())),
        (Method::GET, format!("/v1/executions/{}", execution.id)),
        (Method::GET, format!("/v1/executions/{}/log", execution.id)),
        (Method::POST, format!("/v1/executions/{}/cancel", execution.id)),
        (Method::POST, format!("/v1/executions/{}/redrive", execution.id)),
    ] {
        let mut foreign = json_request(method.clone(), &path, &json!({}));
        foreign.headers_mut().insert("x-project-id", "other".parse().unwrap());
        // Without it, the caller may everything, as an admin of every project does.
        foreign.headers_mut().insert("x-roles", "member".parse().unwrap());
        let answer = service.send(foreign).await;
        assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_stale_revision_is_refused_and_a_star_is_not() {
    let service = Service::new().await;
    service.function("f").await;
    let with = |method, tag: &str, body: &Value| {
        let mut request = json_request(method, "/v1/functions/f", body);
        request.headers_mut().insert("if-match", tag.parse().unwrap());
        request
    };
    let change = json!({"timeout": 9});
    assert_eq!(service.send(with(Method::PATCH, "\"1\"", &change)).await.header("etag"), "\"2\"");
    service.send(with(Method::PATCH, "\"1\"", &json!({"timeout": 8}))).await.is_error(412, "function.function.stale");
    service.send(with(Method::DELETE, "\"1\"", &Value::Null)).await.is_error(412, "function.function.stale");
    service.send(with(Method::PATCH, "2", &change)).await.is_error(400, "function.request.invalid_header");
    assert_eq!(service.send(with(Method::PATCH, "*", &json!({"timeout": 8}))).await.header("etag"), "\"3\"");
    // A change that changes nothing makes no revision.
    assert_eq!(service.patch("/v1/functions/f", &json!({"timeout": 8})).await.header("etag"), "\"3\"");
    let unchanged =
        request(Method::GET, "/v1/functions/f").header("if-none-match", "\"3\"").body(Body::empty()).unwrap();
    assert_eq!(service.send(unchanged).await.status, 304);
    assert_eq!(service.send(with(Method::DELETE, "\"3\"", &Value::Null)).await.status, 204);
}

#[tokio::test]
async fn changes_at_the_same_moment_are_all_made() {
    let service = Service::new().await;
    service.function("f").await;
    let bodies =
        [json!({"timeout": 9}), json!({"memory": 512}), json!({"description": "x"}), json!({"max_concurrency": 2})];
    let answers = futures::future::join_all(bodies.iter().map(|body| service.patch("/v1/functions/f", body))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    let function = service.get("/v1/functions/f").await.json();
    assert_eq!(function["revision"], 5);
    assert_eq!(
        (&function["timeout"], &function["memory"], &function["description"]),
        (&json!(9), &json!(512), &json!("x"))
    );
}

#[tokio::test]
async fn pages_lead_on_until_the_end() {
    let service = Service::new().await;
    for n in 0..5 {
        assert_eq!(service.post("/v1/functions", &json!({"name": format!("f{n}")})).await.status, 201);
    }
    let mut path = "/v1/functions?limit=2&sort=name:desc".to_owned();
    let mut names = Vec::new();
    for page in 0.. {
        let body = service.get(&path).await.json();
        let functions = body["functions"].as_array().unwrap();
        assert!(functions.len() <= 2);
        names.extend(functions.iter().map(|function| function["name"].as_str().unwrap().to_owned()));
        let Some(link) = body["functions_links"].as_array().unwrap().first() else { break };
        assert_eq!(link["rel"], "next");
        let href = link["href"].as_str().unwrap();
        path = href.strip_prefix("http://api.test").unwrap().to_owned();
        assert!(path.contains("limit=2") && path.contains("sort=name%3Adesc"), "{path}");
        assert!(page < 5);
    }
    assert_eq!(names, ["f4", "f3", "f2", "f1", "f0"]);
    let named = service.get("/v1/functions?name=f3&runtime=python3").await.json();
    assert_eq!(named["functions"].as_array().unwrap().len(), 1);
    service.get("/v1/functions?marker=nobody").await.is_error(400, "function.list.invalid_marker");
}

#[tokio::test]
async fn code_comes_in_every_way_and_goes_out_the_same() {
    let service = Service::new().await;
    service.post("/v1/functions", &json!({"name": "f", "handler": "pkg/app.run"})).await;
    service.get("/v1/functions/f/code").await.is_error(404, "function.code.not_found");
    let source = "def run(event, context):\n    return 1\n";
    let put = |kind: &str, body: Vec<u8>| {
        request(Method::PUT, "/v1/functions/f/code").header("content-type", kind).body(Body::from(body)).unwrap()
    };
    let uploaded = service.send(put("text/x-python; charset=utf-8", source.into())).await;
    assert_eq!(uploaded.status, 200, "{}", uploaded.text());
    assert_eq!(uploaded.header("etag"), "\"2\"");
    let sha256 = uploaded.json()["code"]["sha256"].as_str().unwrap().to_owned();

    let package = service.get("/v1/functions/f/code").await;
    assert_eq!(package.header("content-type"), "application/zip");
    assert_eq!(package.header("etag"), format!("\"{sha256}\""));
    assert_eq!(package.header("content-disposition"), "attachment; filename=\"f.zip\"");
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(package.body.clone())).unwrap();
    assert_eq!(archive.len(), 1);
    assert_eq!(std::io::read_to_string(archive.by_name("pkg/app.py").unwrap()).unwrap(), source);
    let again = request(Method::GET, "/v1/functions/f/code").header("if-none-match", format!("\"{sha256}\""));
    assert_eq!(service.send(again.body(Body::empty()).unwrap()).await.status, 304);

    // The same bytes are the same package and no new revision, whichever way they come.
    let form = |filename: &str, content: &[u8]| {
        let mut body = format!("--b\r\ncontent-disposition: form-data; name=\"data\"; filename=\"{filename}\"\r\n\r\n")
            .into_bytes();
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n--b--\r\n");
        put("multipart/form-data; boundary=b", body)
    };
    let by_json = json_request(Method::PATCH, "/v1/functions/f", &json!({"code": {"source": source}}));
    for upload in [
        put("application/zip", package.body.to_vec()),
        form("x.py", source.as_bytes()),
        form("x.zip", &package.body),
        by_json,
    ] {
        let answer = service.send(upload).await;
        assert_eq!((answer.status.as_u16(), answer.header("etag")), (200, "\"2\""), "{}", answer.text());
    }
    let other = zip_of(&[("pkg/app.py", b"def run(event, context): pass"), ("pkg/data.txt", b"x")]);
    let changed = service.send(put("application/zip", other.clone())).await.json();
    assert_eq!((&changed["revision"], &changed["code"]["size"]), (&json!(3), &json!(other.len())));
    assert_eq!(service.get("/v1/functions/f/code").await.body, other);
}

#[tokio::test]
async fn a_single_file_of_a_provided_runtime_is_its_bootstrap() {
    let service = Service::new().await;
    let body = json!({"name": "b", "runtime": "provided", "code": {"source": "#!/bin/sh\nexit 0\n"}});
    assert_eq!(service.post("/v1/functions", &body).await.status, 201);
    let package = service.get("/v1/functions/b/code").await.body;
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(package)).unwrap();
    assert_eq!(archive.by_name("bootstrap").unwrap().unix_mode().unwrap() & 0o777, 0o755);
}

#[tokio::test]
async fn packages_that_cannot_be_used_are_refused_at_upload() {
    let service = Service::with(ApiOptions { max_package_mib: 1, ..ApiOptions::default() }, None).await;
    service.post("/v1/functions", &json!({"name": "f"})).await;
    let whole = zip_of(&[("main.py", &[b'#'; 4000])]);
    let big: Vec<u8> = (0..2_u32 << 20).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    for (what, archive, status, code) in [
        ("slip", zip_of(&[("../../etc/cron.d/x", b"x")]), 400, "function.code.invalid"),
        ("absolute", zip_of(&[("/etc/passwd", b"x")]), 400, "function.code.invalid"),
        ("bomb", zip_of(&[("zeros", &vec![0; 20 << 20])]), 413, "function.code.too_large"),
        ("truncated", whole[..whole.len() - 30].to_vec(), 400, "function.code.invalid"),
        ("no zip", b"hello".to_vec(), 400, "function.code.invalid"),
        ("empty", Vec::new(), 400, "function.code.invalid"),
        ("no files", zip_of(&[]), 400, "function.code.invalid"),
        ("oversize", big.clone(), 413, "function.code.too_large"),
    ] {
        let put = request(Method::PUT, "/v1/functions/f/code").header("content-type", "application/zip");
        let answer = service.send(put.body(Body::from(archive.clone())).unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (status, code), "{what}: {}", answer.text());
        // A sender that does not say how much it has gets no further.
        let pieces: Vec<_> = archive.chunks(64 << 10).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
        let put = request(Method::PUT, "/v1/functions/f/code").header("content-type", "application/zip");
        let streamed = service.send(put.body(Body::from_stream(futures::stream::iter(pieces))).unwrap()).await;
        assert_eq!(streamed.status.as_u16(), status, "{what} streamed: {}", streamed.text());
        use base64::Engine as _;
        let zip = base64::engine::general_purpose::STANDARD.encode(&archive);
        let answer = service.patch("/v1/functions/f", &json!({"code": {"zip": zip}})).await;
        assert_eq!(answer.status.as_u16(), status, "{what} in JSON: {}", answer.text());
    }
    assert_eq!(service.get("/v1/functions/f").await.json()["code"], Value::Null);
}

#[tokio::test]
async fn forms_are_read_with_care() {
    let service = Service::with(ApiOptions { max_package_mib: 1, ..ApiOptions::default() }, None).await;
    service.post("/v1/functions", &json!({"name": "f"})).await;
    let part = |head: &str, body: &str| format!("--b\r\ncontent-disposition: form-data; {head}\r\n\r\n{body}\r\n");
    let good = part("name=\"data\"; filename=\"a.py\"", "x = 1");
    for (what, kind, body, status, code) in [
        ("good", "multipart/form-data; boundary=b", format!("{good}--b--\r\n"), 200, ""),
        ("no boundary", "multipart/form-data", String::new(), 400, "function.request.invalid_header"),
        (
            "other field",
            "multipart/form-data; boundary=b",
            part("name=\"code\"", "x") + "--b--\r\n",
            400,
            "function.code.invalid",
        ),
        ("twice", "multipart/form-data; boundary=b", format!("{good}{good}--b--\r\n"), 400, "function.code.invalid"),
        ("none", "multipart/form-data; boundary=b", "--b--\r\n".to_owned(), 400, "function.code.invalid"),
        ("cut off", "multipart/form-data; boundary=b", good.clone(), 400, "function.request.malformed"),
        (
            "other type",
            "multipart/form-data; boundary=b",
            part("name=\"data\"; filename=\"a.exe\"", "MZ") + "--b--\r\n",
            400,
            "function.code.invalid",
        ),
        (
            "large",
            "multipart/form-data; boundary=b",
            part("name=\"data\"; filename=\"a.py\"", &"#".repeat(1 << 21)) + "--b--\r\n",
            413,
            "function.code.too_large",
        ),
        ("large noise", "multipart/form-data; boundary=b", "x".repeat(4 << 20), 413, "function.code.too_large"),
    ] {
        let put = request(Method::PUT, "/v1/functions/f/code").header("content-type", kind);
        let pieces: Vec<_> =
            body.as_bytes().chunks(64 << 10).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
        let answer = service.send(put.body(Body::from_stream(futures::stream::iter(pieces))).unwrap()).await;
        assert_eq!(answer.status.as_u16(), status, "{what}: {}", answer.text());
        if status != 200 {
            assert_eq!(answer.error().0, code, "{what}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn triggers_bind_events_to_functions() {
    let service = Service::new().await;
    let function = service.function("f").await;
    let made = service
        .post(
            "/v1/triggers",
            &json!({"function": "f", "source": "a", "type": "b", "filter": {"exact": {"data.k": "v"}}}),
        )
        .await;
    assert_eq!(made.status, 201, "{}", made.text());
    let trigger = made.json();
    assert_eq!(trigger["function_id"], function.id.to_string());
    let path = made.header("location").strip_prefix("http://api.test").unwrap().to_owned();
    assert_eq!(service.get(&path).await.json(), trigger);
    assert_eq!(service.get("/v1/functions/f").await.json()["triggers"][0]["id"], trigger["id"]);
    let by_id = service.post("/v1/triggers", &json!({"function": function.id.to_string(), "type": "*"})).await;
    assert_eq!((by_id.status.as_u16(), &by_id.json()["source"]), (201, &json!("*")));
    service.function("g").await;
    for (query, count) in [("", 2), ("?function=f", 2), ("?function=g", 0)] {
        let list = service.get(&format!("/v1/triggers{query}")).await.json();
        assert_eq!(list["triggers"].as_array().unwrap().len(), count, "{query}");
    }
    assert_eq!(service.delete(&path).await.status, 204);
    service.get(&path).await.is_error(404, "function.trigger.not_found");
    service.delete(&path).await.is_error(404, "function.trigger.not_found");
}

#[tokio::test]
async fn what_is_kept_started_is_bounded_by_the_function_the_operator_and_the_project() {
    let options = ApiOptions {
        max_provisioned_concurrency: 3,
        max_provisioned_concurrency_per_project: 4,
        ..ApiOptions::default()
    };
    let service = Service::with(options, None).await;
    let create = async |name: &str, more: Value| {
        let mut body = json!({"name": name});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        service.post("/v1/functions", &body).await
    };
    let refused = |answer: &Answer, part: &str| {
        assert_eq!(answer.status, 400, "{}", answer.json());
        assert!(answer.json().to_string().contains(part), "{}", answer.json());
    };
    refused(&create("a", json!({"provisioned_concurrency": 2, "max_concurrency": 1})).await, "max_concurrency");
    refused(&create("a", json!({"provisioned_concurrency": 4})).await, "at most 3 for one function");
    assert_eq!(create("a", json!({"provisioned_concurrency": 3})).await.status, 201);
    refused(&create("b", json!({"provisioned_concurrency": 2})).await, "have 3; together at most 4");
    assert_eq!(create("b", json!({"provisioned_concurrency": 1})).await.status, 201);
    refused(&service.patch("/v1/functions/b", &json!({"provisioned_concurrency": 2})).await, "together");
    let shown = service.patch("/v1/functions/a", &json!({"provisioned_concurrency": null})).await;
    assert_eq!(shown.json()["provisioned_concurrency"], 0);
    assert_eq!(service.patch("/v1/functions/b", &json!({"provisioned_concurrency": 2})).await.status, 200);
}
