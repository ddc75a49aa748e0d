//! `[zaqar]`.

use super::check::Form;

options! {
    /// The queue that events come from.
    ZaqarOptions in "zaqar" {
        /// Base address of the messaging service, without /v2; when unset, that of the catalog, or
        /// http://127.0.0.1:8888 where there is no Keystone.
        [form(Form::HttpUrl)] endpoint_override: Option<String> = None;
        /// Region of the messaging service; that of [service_auth] when unset.
        [form(Form::Word)] region_name: Option<String> = None;
        /// Which of the messaging service's endpoints: the first of these that it has; as in [service_auth] when empty.
        [form(Form::OneOf(&["public", "internal", "admin"]))] valid_interfaces: Vec<String> = Vec::new();
        /// The platform queue.
        [form(Form::QueueName)] queue: String = "lambda-events".to_owned();
        /// Where messages go that are no event or that match no trigger, and events of functions that name no queue of
        /// their own.
        [form(Form::QueueName)] dead_letter_queue: String = "lambda-dead-letters".to_owned();
        /// Project of the platform queue, sent as X-Project-Id where there is no Keystone; with it, the project of
        /// [service_auth] is meant.
        [form(Form::Word)] project_id: String = "demo".to_owned();
        /// Seconds a request may take.
        [range(1, 300)] timeout: u64 = 30;
        /// Seconds for which a claim hides its messages. It is not renewed: messages are deleted as
        /// soon as the store has them.
        [range(60, 43_200)] claim_ttl: u32 = 60;
        /// Seconds that messages live on beyond the claim.
        [range(60, 43_200)] claim_grace: u32 = 60;
        /// Most claims under way at once in one worker.
        [range(1, 64)] claims: usize = 4;
        /// Milliseconds between two looks at an empty queue, shortly after something was there.
        [range(1, 60_000)] poll_min_ms: u64 = 20;
        /// Milliseconds between two looks at a queue that has been empty for long.
        [range(1, 60_000)] poll_max_ms: u64 = 200;
        /// Who may name the project of an event on the platform queue. `all`: whoever can post there, which is everybody
        /// with any role in its project. `signed`: only the service itself, which signs what comes through
        /// POST /v1/events. When unset: `signed` where the service authenticates with Keystone, else `all`.
        [form(Form::OneOf(&["all", "signed"]))] trusted_posters: Option<String> = None;
        /// With `signed`: project whose events all other messages on the platform queue are, whatever they say. When
        /// unset, they become dead letters.
        [form(Form::Word)] unsigned_project: Option<String> = None;
        /// Roles that whoever makes a trigger on a queue of the project's own hands on to the service, for that project:
        /// those that Zaqar asks for. The caller must have them.
        [form(Form::Word)] trust_roles: Vec<String> = vec!["member".to_owned()];
        /// Seconds between two looks at which trusts Keystone has for the service. One that was deleted there is noticed
        /// after this time, one that a crash left without its trigger is deleted after twice this time.
        [range(1, 3600)] trust_check_interval: f64 = 60.0;
        /// Address and port of lambda-worker where Zaqar says that a message has come to a queue, so that queues are looked
        /// at in time and not only by the clock; not listened on when unset. Zaqar needs `message_pipeline =
        /// zaqar.notification.notifier`.
        [form(Form::Address)] notification_bind: Option<String> = None;
        /// Base address by which Zaqar reaches notification_bind of this worker; http:// and that address when unset.
        [form(Form::HttpUrl)] notification_url: Option<String> = None;
        /// Most claims under way at once on projects' own queues in one worker.
        [range(1, 64)] queue_claims: usize = 8;
        /// Milliseconds between two looks at a project's own queue when it is empty, shortly after something was there.
        [range(1, 60_000)] queue_poll_min_ms: u64 = 100;
        /// Milliseconds between two looks at a project's own queue that has been empty for long.
        [range(1, 600_000)] queue_poll_max_ms: u64 = 2000;
        /// Most looks a second at projects' own queues that have been empty for long, over all of them in one worker:
        /// with many queues the pause grows beyond queue_poll_max_ms.
        [range(0.1, 10_000)] queue_idle_rate: f64 = 20.0;
        /// Most seconds between two looks at a project's own queue that fails.
        [range(1, 86_400)] queue_retry_max: u64 = 300;
        /// Seconds between two looks at which queues of projects there are and which worker has them.
        [range(0.1, 60)] queue_refresh: f64 = 2.0;
        /// Seconds for which a dead letter is kept. Zaqar takes no more than its own max_message_ttl.
        [range(60, 1_209_600)] dead_letter_ttl: u32 = 1_209_600;
    }
}
