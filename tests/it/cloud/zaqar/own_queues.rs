//! Projects' own queues on the real cloud: a trust with each trigger, gone with it; queues are taken over from the dead;
//! what goes wrong with one is told and disturbs no other.

use lambda_openstack::openstack::keystone::{NewTrust, TrustLabels};
use lambda_openstack::store;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Backend, Deployment, message};
use crate::cloud::{Account, env, service as service_account};

const ECHO: &str = "def handler(event, context):\n    return event['data']\n";

/// The trusts that lead from this account to our service.
async fn trusts(account: &Account) -> Vec<String> {
    let user = account.auth().user_id().await.unwrap();
    let trusts = service_account().keystone().trusts_to_us().await.unwrap();
    trusts.into_iter().filter(|trust| trust.trustor_user_id == user).map(|trust| trust.id).collect()
}

impl Deployment {
    /// A function without trigger.
    async fn bare_function(&self, name: &str, source: &str, more: Value) {
        let mut body =
            json!({"name": name, "runtime": "python3", "handler": "main.handler", "code": {"source": source}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.service.ok("POST", "/v1/functions", Some(&body)).await;
    }

    /// A trigger on a queue, and the trust that was made for it.
    async fn listen(&self, function: &str, queue: &str) -> (String, String) {
        let before = trusts(&env()).await;
        let body = json!({"function": function, "queue": {"name": queue, "batch_size": 10}});
        let trigger = self.service.ok("POST", "/v1/triggers", Some(&body)).await;
        assert!(!trigger.to_string().contains("trust"), "{trigger}");
        let id = trigger["id"].as_str().unwrap().to_owned();
        let kept = self.store().await.trigger(&store::Scope::All, id.parse().unwrap()).await.unwrap();
        let trust = kept.queue.unwrap().trust_id.unwrap();
        assert!(!before.contains(&trust) && trusts(&env()).await.contains(&trust));
        (id, trust)
    }

    /// A trust of the user's for the service.
    async fn trust(&self, trigger: &str) -> String {
        let user = env();
        let trust = NewTrust {
            trustor_user_id: user.auth().user_id().await.unwrap(),
            trustee_user_id: service_account().auth().user_id().await.unwrap(),
            project_id: self.project.clone(),
            roles: vec!["member".to_owned()],
        };
        let labels = TrustLabels {
            lambda_deployment: Some(self.store().await.deployment().await.unwrap().to_string()),
            lambda_trigger: Some(trigger.to_owned()),
        };
        let token = user.auth().token().await.unwrap();
        user.keystone().create_labelled_trust(token.to_str().unwrap(), &trust, &labels).await.unwrap().id
    }

    async fn store(&self) -> std::sync::Arc<dyn store::Store> {
        let options = lambda_openstack::config::DatabaseOptions {
            connection: self.connection.clone(),
            timeout: 30,
            ..Default::default()
        };
        store::open(&options).await.unwrap()
    }

    async fn status(&self, trigger: &str) -> (String, Option<String>) {
        let shown = self.service.ok("GET", &format!("/v1/triggers/{trigger}"), None).await;
        let text = |name: &str| shown[name].as_str().map(str::to_owned);
        (text("status").unwrap(), text("status_reason"))
    }

    /// Posts as the user, and waits until each body was handled.
    async fn handles(&self, function: &str, queue: &str, bodies: &[Value]) {
        let messages: Vec<_> = bodies.iter().map(message).collect();
        self.backend.client(&env()).post(queue, &messages).await.unwrap();
        self.service
            .until("every message was handled", async || {
                let done = self.service.executions(&format!("function={function}&state=succeeded")).await;
                let results: Vec<_> = done.iter().map(|execution| &execution["result"]).collect();
                bodies.iter().all(|body| results.contains(&body)).then_some(())
            })
            .await;
    }
}

fn name(what: &str) -> String {
    format!("{what}-{}", Uuid::new_v4().simple())
}

async fn on_a_trust(backend: Backend) {
    let deployment = Deployment::start(backend, "keystone", "trust_check_interval = 2\n").await;
    let (mut first, mut second) = (deployment.worker("worker1"), deployment.worker("worker2"));
    deployment.workers_alive(2).await;
    let queue = name("orders");
    let dead = name("orders-dead");
    deployment.bare_function("orders", ECHO, json!({})).await;
    let fails = "def handler(event, context):\n    raise ValueError('no good')\n";
    deployment.bare_function("fails", fails, json!({"dead_letter_queue": &dead, "retry": {"max_attempts": 1}})).await;
    let (trigger, trust) = deployment.listen("orders", &queue).await;
    let bodies: Vec<_> = (0..200).map(|n| json!({"order": n})).collect();
    deployment.handles("orders", &queue, &bodies).await;
    assert_eq!(deployment.status(&trigger).await.0, "active");

    // The worker that looks at the queue is killed: the other one takes it over.
    let store = deployment.store().await;
    let owner = store.queue_owners().await.unwrap().into_iter().find(|(key, _)| key.queue.as_str() == queue).unwrap().1;
    let log =
        |worker: &str| std::fs::read_to_string(deployment.directory.path().join(format!("{worker}.log"))).unwrap();
    let is_first = log("worker1").contains(&format!("worker {owner} takes events"));
    let killed = if is_first { &mut first } else { &mut second };
    killed.kill();
    deployment.handles("orders", &queue, &[json!("after the kill")]).await;
    let owners = store.queue_owners().await.unwrap();
    assert!(owners.iter().all(|(_, now)| *now != owner), "{owners:?}");

    // What fails lies on the function's dead letter queue in the user's own project.
    let failing = name("failing");
    let (_, second_trust) = deployment.listen("fails", &failing).await;
    backend.client(&env()).post(&failing, &[message(&json!("x"))]).await.unwrap();
    let letter = deployment
        .service
        .until("the dead letter is in the user's project", async || deployment.claimed(&env(), &dead).await.pop())
        .await;
    assert_eq!(letter.body["failure"]["error"]["message"], "no good", "{}", letter.body);
    assert!(deployment.claimed(&service_account(), &dead).await.is_empty(), "and not in the service's");

    // With the trigger goes its trust, with the function that of each of its triggers.
    deployment.service.ok("DELETE", &format!("/v1/triggers/{trigger}"), None).await;
    assert!(!trusts(&env()).await.contains(&trust));
    assert!(trusts(&env()).await.contains(&second_trust));
    deployment.service.ok("DELETE", "/v1/functions/fails", None).await;
    assert!(!trusts(&env()).await.contains(&second_trust));

    // A trust that a crash left without its trigger is found and given back.
    let orphan = deployment.trust(&Uuid::new_v4().to_string()).await;
    deployment
        .service
        .until("the orphan is given back", async || (!trusts(&env()).await.contains(&orphan)).then_some(()))
        .await;
    for queue in [&queue, &failing, &dead] {
        backend.client(&env()).delete_queue(queue).await.unwrap();
    }
    drop((first, second));
    deployment.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projects_queue_is_read_on_a_trust_and_taken_over_from_the_dead_on_mongodb() {
    on_a_trust(Backend::Mongodb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projects_queue_is_read_on_a_trust_and_taken_over_from_the_dead_on_redis() {
    on_a_trust(Backend::Redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trust_that_is_revoked_behind_our_back_is_told_and_other_queues_go_on() {
    let deployment = Deployment::start(Backend::Mongodb, "keystone", "trust_check_interval = 2\n").await;
    let worker = deployment.worker("worker1");
    deployment.bare_function("one", ECHO, json!({})).await;
    deployment.bare_function("two", ECHO, json!({})).await;
    let (first, second) = (name("one"), name("two"));
    let (broken, trust) = deployment.listen("one", &first).await;
    let (whole, _) = deployment.listen("two", &second).await;
    deployment.handles("one", &first, &[json!(1)]).await;
    let token = env().auth().token().await.unwrap();
    env().keystone().delete_trust(token.to_str().unwrap(), &trust).await.unwrap();
    deployment
        .service
        .until("the trigger says that its trust is gone", async || {
            let status = deployment.status(&broken).await;
            (status == ("error".to_owned(), Some("trust_invalid".to_owned()))).then_some(())
        })
        .await;
    deployment.handles("two", &second, &[json!(2), json!(3)]).await;
    assert_eq!(deployment.status(&whole).await, ("active".to_owned(), None));
    for function in ["one", "two"] {
        deployment.service.ok("DELETE", &format!("/v1/functions/{function}"), None).await;
    }
    for queue in [&first, &second] {
        Backend::Mongodb.client(&env()).delete_queue(queue).await.unwrap();
    }
    drop(worker);
    deployment.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_cannot_make_a_trust_is_told_so_and_leaves_none() {
    // The user has not this role.
    let deployment = Deployment::start(Backend::Mongodb, "keystone", "trust_roles = admin\n").await;
    deployment.bare_function("one", ECHO, json!({})).await;
    let body = json!({"function": "one", "queue": {"name": "orders"}});
    let (status, answer) = deployment.service.call("POST", "/v1/triggers", Some(&body)).await;
    assert_eq!(status, 403, "{answer}");
    assert_eq!(answer["errors"][0]["code"], "function.trigger.not_delegated", "{answer}");
    let ours = deployment.store().await.deployment().await.unwrap().to_string();
    let made = service_account().keystone().trusts_to_us().await.unwrap();
    assert!(made.iter().all(|trust| trust.lambda_deployment.as_ref() != Some(&ours)), "{made:?}");
    assert!(deployment.store().await.queue_triggers().await.unwrap().is_empty());
    deployment.service.ok("DELETE", "/v1/functions/one", None).await;
    deployment.clean().await;
}
