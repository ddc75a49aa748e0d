//! What is agreed with Zun, without Zun.

use std::collections::BTreeMap;

use super::*;

fn container() -> NewContainer {
    NewContainer {
        name: "lambda-01890a5d-ac96-774b-bcce-b302099a8057".to_owned(),
        image: "lambda-python3:1".to_owned(),
        image_driver: None,
        image_pull_policy: None,
        command: Vec::new(),
        memory: 160,
        cpu: None,
        environment: BTreeMap::from([("LAMBDA_GATEWAY".to_owned(), "10.0.0.1:9071".to_owned())]),
        labels: BTreeMap::new(),
        hostname: "lambda-01890a5d".to_owned(),
        network: None,
        security_groups: Vec::new(),
        availability_zone: None,
        interactive: false,
        auto_remove: false,
    }
}

fn full() -> NewContainer {
    NewContainer {
        image_driver: Some(ImageDriver::Glance),
        image_pull_policy: Some(PullPolicy::IfNotPresent),
        command: vec!["/usr/bin/lambda-agent".to_owned(), "run".to_owned()],
        memory: MEMORY_MAX_MIB,
        cpu: Some(0.5),
        labels: BTreeMap::from([("lambda-instance".to_owned(), "x".to_owned())]),
        network: Some("functions".to_owned()),
        security_groups: vec!["no-ingress".to_owned()],
        availability_zone: Some("nova".to_owned()),
        ..container()
    }
}

#[test]
fn what_is_sent_conforms_to_zuns_own_schema() {
    let schema = include_str!("../../../tests/fixtures/zun-18.0.0-container-create-1.40.json");
    let validator = jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap();
    let as_sent = |container: &NewContainer| -> serde_json::Value {
        serde_json::from_slice(&wire::encode(container).unwrap()).unwrap()
    };
    for sent in [as_sent(&container()), as_sent(&full())] {
        let errors: Vec<_> = validator.iter_errors(&sent).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{sent}: {errors:?}");
    }
    // So that a schema that accepts everything would be noticed.
    let over = NewContainer { memory: MEMORY_MAX_MIB + 1, ..container() };
    let nameless = NewContainer { name: "x".to_owned(), ..container() };
    for refused in [over, nameless] {
        assert!(!validator.is_valid(&as_sent(&refused)));
    }
}

#[test]
fn what_is_left_to_zun_is_not_sent() {
    let sent: serde_json::Value = serde_json::from_slice(&wire::encode(&container()).unwrap()).unwrap();
    let names: Vec<_> = sent.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["auto_remove", "environment", "hostname", "image", "interactive", "labels", "memory", "name"]);
}

#[test]
fn the_environment_is_in_no_log() {
    assert!(!format!("{:?}", container()).contains("LAMBDA_GATEWAY"));
}

#[test]
fn the_cloud_s_highest_version_is_spoken_up_to_ours() {
    for (highest, spoken) in [("container 1.40", 40), ("container 1.99", 40), ("container 1.20", 20), ("1.31", 31)] {
        assert_eq!(negotiate(Some(highest)).unwrap(), Microversion(spoken), "{highest}");
    }
}

#[test]
fn a_cloud_that_is_too_old_or_no_zun_is_refused_with_what_is_wrong() {
    let old = negotiate(Some("container 1.19")).unwrap_err().to_string();
    assert_eq!(old, "refused: this Zun speaks the container API up to 1.19, and 1.20 is needed");
    assert!(negotiate(None).unwrap_err().to_string().contains("is it Zun"));
    for odd in ["container 2.1", "container", "", "container 1.x"] {
        assert!(matches!(negotiate(Some(odd)), Err(OpenStackError::Protocol { .. })), "{odd}");
    }
}

#[test]
fn an_answer_is_read_with_what_is_missing_in_it() {
    let read = wire::page(
        br#"{"containers": [
            {"uuid": "u", "name": "n", "status": "Error", "status_reason": "r", "labels": null, "more": 1},
            {"uuid": "v", "name": "n", "status": "Hibernating", "labels": {"a": "b"}, "task_state": "image_pulling"}
        ], "next": null}"#,
    )
    .unwrap();
    assert!(read.next.is_none());
    let [one, two] = read.containers.as_slice() else { panic!("two") };
    assert_eq!((&one.status, one.status_reason.as_deref(), one.labels.len()), (&Status::Error, Some("r"), 0));
    assert_eq!(two.status, Status::Unknown("Hibernating".to_owned()));
    assert_eq!(two.status.to_string(), "Hibernating");
    assert!(matches!(wire::container(b"{}"), Err(OpenStackError::Protocol { .. })));
}
