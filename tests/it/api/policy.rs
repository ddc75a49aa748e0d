//! Who may do what: every operation, asked by every role, in the project that has the things it is about and in another
//! one, on a real store. An operation without a case fails the test, and so does one that is not in the rules.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Method, Request};
use lambda_openstack::api::{ALL_PROJECTS_RULES, Operation, RULES, Rule};
use lambda_openstack::clock;
use serde_json::{Value, json};

use super::harness::{Answer, Service, request};

/// The least that a caller must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Least {
    Reader,
    Member,
    Admin,
}

/// What an operation is about, and so what a caller in another project gets.
#[derive(Clone, Copy, Debug)]
enum About {
    /// One thing of a project, named by its id: to those outside it is not there, unless they are admins.
    One(&'static str),
    /// The things of the caller's project, in a list of this name.
    List(&'static str),
    /// What is made: it belongs to the caller's project.
    New,
    /// Nothing that belongs to a project.
    Service,
}

struct Case {
    least: Least,
    about: About,
    /// What it is answered with when all is well.
    status: u16,
    body: Value,
}

fn case(rule: &str) -> Case {
    use About::{List, New, One, Service};
    use Least::{Admin, Member, Reader};
    let (least, about, status, body) = match rule {
        "functions:list" => (Reader, List("functions"), 200, Value::Null),
        "functions:create" => (Member, New, 201, json!({"name": "made"})),
        "functions:show" => (Reader, One("function.function.not_found"), 200, Value::Null),
        "functions:update" => (Member, One("function.function.not_found"), 200, json!({"timeout": 7})),
        "functions:delete" => (Member, One("function.function.not_found"), 204, Value::Null),
        "functions:download_code" => (Reader, One("function.function.not_found"), 200, Value::Null),
        "functions:upload_code" => (Member, One("function.function.not_found"), 200, json!("def handler(e, c): pass")),
        "functions:invoke" => (Member, One("function.function.not_found"), 202, json!({"n": 1})),
        "triggers:list" => (Reader, List("triggers"), 200, Value::Null),
        // What a body refers to and is not there is an error in the body.
        "triggers:create" => (
            Member,
            One("function.trigger.invalid"),
            201,
            json!({"function": "{function}", "source": "s", "type": "t"}),
        ),
        "triggers:show" => (Reader, One("function.trigger.not_found"), 200, Value::Null),
        "triggers:delete" => (Member, One("function.trigger.not_found"), 204, Value::Null),
        "events:post" => (Member, New, 202, json!({"source": "s", "type": "t"})),
        "executions:list" => (Reader, List("executions"), 200, Value::Null),
        "executions:show" => (Reader, One("function.execution.not_found"), 200, Value::Null),
        "executions:log" => (Reader, One("function.execution.not_found"), 200, Value::Null),
        "executions:cancel" => (Member, One("function.execution.not_found"), 200, Value::Null),
        "executions:redrive" => (Member, One("function.execution.not_found"), 202, Value::Null),
        "runtimes:list" | "runtimes:show" => (Reader, Service, 200, Value::Null),
        "workers:list" => (Admin, Service, 200, Value::Null),
        "instances:list" => (Reader, List("instances"), 200, Value::Null),
        other => panic!("{other} has no case: say here who may, and what others get"),
    };
    Case { least, about, status, body }
}

/// Roles as a token lists them, and what they are good for.
const CALLERS: [(&str, Option<Least>); 7] = [
    ("", None),
    ("stranger", None),
    ("service", None),
    ("reader", Some(Least::Reader)),
    ("member", Some(Least::Member)),
    ("manager", Some(Least::Member)),
    ("admin", Some(Least::Admin)),
];

/// Whose things `demo` are.
const PROJECTS: [&str; 2] = ["demo", "other"];

/// A function with code, a trigger and an execution of `demo`, new for each request since requests change them.
async fn things(service: &Service, number: usize, rule: &str) -> [(&'static str, String); 4] {
    let function = service.function(&format!("f{number}")).await;
    let body = json!({"function": function.id.to_string(), "source": "s", "type": "t"});
    let trigger = service.post("/v1/triggers", &body).await.json()["id"].as_str().unwrap().to_owned();
    let execution = service.execution(&function, clock::now()).await.id.to_string();
    if rule == "executions:redrive" {
        let path = format!("/v1/executions/{execution}/cancel");
        let cancelled = service.send(request(Method::POST, &path).body(Body::empty()).unwrap()).await;
        assert_eq!(cancelled.status, 200, "{}", cancelled.text());
    }
    [
        ("{function}", function.id.to_string()),
        ("{trigger}", trigger),
        ("{execution}", execution),
        ("{runtime}", "python3".to_owned()),
    ]
}

fn filled(text: &str, things: &[(&'static str, String)]) -> String {
    things.iter().fold(text.to_owned(), |text, (place, id)| text.replace(place, id))
}

fn asked(
    operation: &Operation,
    case: &Case,
    things: &[(&'static str, String)],
    roles: &str,
    project: &str,
) -> Request<Body> {
    let request = request(operation.method.parse().unwrap(), &filled(operation.path, things))
        .header("x-roles", roles)
        .header("x-project-id", project)
        .header("prefer", "respond-async");
    match &case.body {
        Value::Null => request.body(Body::empty()).unwrap(),
        Value::String(source) => {
            request.header("content-type", "text/x-python").body(Body::from(source.clone())).unwrap()
        }
        body => {
            let body = filled(&body.to_string(), things);
            request.header("content-type", "application/json").body(Body::from(body)).unwrap()
        }
    }
}

fn is_denied(answer: &Answer, rule: &Rule, whom: &str) {
    assert_eq!(answer.status, 403, "{whom}: {}", answer.text());
    let (code, detail) = answer.error();
    assert_eq!(code, "function.policy.denied", "{whom}");
    assert!(detail.contains(rule.name), "{whom}: {detail}");
}

#[tokio::test]
async fn every_operation_is_allowed_to_whom_it_is_meant_for_and_to_nobody_else() {
    let service = Service::new().await;
    let mut number = 0;
    for rule in RULES {
        let case = case(rule.name);
        for operation in rule.operations {
            for (roles, good_for) in CALLERS {
                for project in PROJECTS {
                    number += 1;
                    let things = things(&service, number, rule.name).await;
                    let answer = service.send(asked(operation, &case, &things, roles, project)).await;
                    let whom = format!("{} as '{roles}' in {project}", rule.name);
                    if good_for.is_none_or(|good_for| good_for < case.least) {
                        is_denied(&answer, rule, &whom);
                        continue;
                    }
                    let own = project == "demo" || good_for == Some(Least::Admin);
                    match case.about {
                        About::One(missing) if !own => {
                            let status = if missing.ends_with("not_found") { 404 } else { 400 };
                            assert_eq!(answer.status, status, "{whom}: {}", answer.text());
                            assert_eq!(answer.error().0, missing, "{whom}");
                        }
                        About::One(_) | About::Service => {
                            assert_eq!(answer.status, case.status, "{whom}: {}", answer.text());
                        }
                        About::List(name) => {
                            assert_eq!(answer.status, case.status, "{whom}: {}", answer.text());
                            let projects: BTreeSet<_> = answer.json()[name]
                                .as_array()
                                .unwrap()
                                .iter()
                                .map(|element| element["project_id"].as_str().unwrap().to_owned())
                                .collect();
                            assert!(projects.iter().all(|of| of == project), "{whom}: {projects:?}");
                            // Nothing was booted here, and only functions are made in the other project.
                            assert!(project == "other" || name == "instances" || !projects.is_empty(), "{whom}");
                        }
                        About::New => {
                            // The name is taken from the second time on, in the caller's project.
                            let taken = rule.name == "functions:create" && answer.status == 409;
                            assert!(taken || answer.status == case.status, "{whom}: {}", answer.text());
                            if !taken && rule.name == "functions:create" {
                                assert_eq!(answer.json()["project_id"], project, "{whom}");
                            }
                        }
                    }
                }
            }
        }
    }
    let posted = service.queue.events.lock().unwrap();
    let projects: BTreeSet<_> = posted.iter().map(|event| event.project().unwrap().to_string()).collect();
    assert_eq!(projects, PROJECTS.map(str::to_owned).into(), "events are of the project of who posts them");
}

#[tokio::test]
async fn lists_of_all_projects_are_for_admins() {
    let service = Service::new().await;
    things(&service, 1, "").await;
    for rule in ALL_PROJECTS_RULES {
        let list = RULES.iter().find(|list| rule.name == format!("{}_all_projects", list.name)).expect(rule.name);
        let About::List(name) = case(list.name).about else { panic!("{} is no list", list.name) };
        for operation in rule.operations {
            assert_eq!(operation.path, format!("{}?all_projects=true", list.operations[0].path));
            for (roles, good_for) in CALLERS {
                let case = case(list.name);
                let answer = service.send(asked(operation, &case, &[], roles, "other")).await;
                let whom = format!("{} as '{roles}'", rule.name);
                if good_for.is_none() {
                    is_denied(&answer, list, &whom);
                } else if good_for < Some(Least::Admin) {
                    is_denied(&answer, rule, &whom);
                } else {
                    assert_eq!(answer.status, 200, "{whom}");
                    let elements = answer.json()[name].as_array().unwrap().clone();
                    assert!(name == "instances" || elements[0]["project_id"] == "demo", "{whom}: {elements:?}");
                }
            }
        }
    }
    let lists = RULES.iter().filter(|rule| matches!(case(rule.name).about, About::List(_))).count();
    assert_eq!(lists, ALL_PROJECTS_RULES.len(), "every list of a project has a rule for all projects");
}

#[tokio::test]
async fn a_name_is_one_of_the_caller_s_own_project_even_to_an_admin() {
    let service = Service::new().await;
    service.function("mine").await;
    let show = |project: &str| request(Method::GET, "/v1/functions/mine").header("x-project-id", project.to_owned());
    service.send(show("other").body(Body::empty()).unwrap()).await.is_error(404, "function.function.not_found");
    assert_eq!(service.send(show("demo").body(Body::empty()).unwrap()).await.status, 200);
}
