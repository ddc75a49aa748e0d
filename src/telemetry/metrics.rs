//! The numbers of a program, for Prometheus. Made once, cloned freely; every number has one method that changes it.
//!
//! Labels are words of fixed lists, HTTP statuses, or route patterns: no ids, no names that users choose. So the number
//! of series is bounded by the code, not by what is done with it.

mod labels;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{Method, header};
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};

use crate::model::execution::{ExecutionState, Reason, Start, WaitingFor};
use crate::model::instance::Isolation;

pub use labels::{CallStatus, DeadLetterReason, SandboxEnd, Service, StoreOutcome};

/// The type of what `/metrics` answers: OpenMetrics, which Prometheus reads.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A histogram for each set of labels.
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Seconds that calls take: from what a local database needs to what times out.
fn calls() -> Histogram {
    Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0])
}

/// Seconds that user code and its start take.
fn work() -> Histogram {
    Histogram::new([0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0, 900.0])
}

/// Seconds that events wait.
fn waits() -> Histogram {
    Histogram::new([0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0, 21_600.0])
}

/// The numbers of a program. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    claimed: Counter,
    empty_claims: Counter,
    matched: Counter,
    inserted: Counter,
    duplicates: Counter,
    dead_letters: Family<labels::DeadLetter, Counter>,
    queue_age: Histogram,
    dispatch_wait: Histogram,
    starts: Family<labels::Started, Counter>,
    init: Histogram,
    duration: Histogram,
    outcomes: Family<labels::Outcome, Counter>,
    retries: Counter,
    refused_writes: Counter,
    running: Gauge,
    waiting: Gauge,
    sandboxes: Gauge,
    instances: Gauge,
    room: Gauge,
    sandbox_ends: Family<labels::Ended, Counter>,
    boot_failures: Family<labels::BootFailed, Counter>,
    agents: Gauge,
    reconnects: Counter,
    store_calls: Histograms<labels::StoreCall>,
    external_calls: Histograms<labels::ExternalCall>,
    requests: Histograms<labels::Request>,
    restarts: Family<labels::Task, Counter>,
}

/// Registers metrics under our prefix and gives them back.
struct Register(Registry);

impl Register {
    fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }

    fn seconds<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register_with_unit(name, help, Unit::Seconds, metric.clone());
        metric
    }
}

/// A family of histograms with these buckets.
fn family<L: EncodeLabelSet + Clone + std::hash::Hash + Eq>(buckets: fn() -> Histogram) -> Histograms<L> {
    Family::new_with_constructor(buckets)
}

impl Metrics {
    /// All numbers at zero, for the program of this name.
    #[must_use]
    pub fn new(program: &str) -> Self {
        let mut r = Register(Registry::with_prefix("lambda"));
        let build = labels::Build { program: program.to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        r.0.register("build", "The program and its version", Info::new(build));
        Self(Arc::new(Inner {
            claimed: r.add("intake_messages_claimed", "Messages claimed from the platform queue", Counter::default()),
            empty_claims: r.add("intake_empty_claims", "Claims that found the queue empty", Counter::default()),
            matched: r.add("intake_messages_matched", "Messages that matched at least one trigger", Counter::default()),
            inserted: r.add("intake_executions_inserted", "Executions inserted into the inbox", Counter::default()),
            duplicates: r.add(
                "intake_duplicates",
                "Executions that were in the inbox already, because their message came twice",
                Counter::default(),
            ),
            dead_letters: r.add("dead_letters", "Events and messages that were given up, by reason", Family::default()),
            queue_age: r.seconds("event_queue_age", "Age of a message when it was claimed", waits()),
            dispatch_wait: r.seconds("dispatch_wait", "Time from receiving an event to starting its code", waits()),
            starts: r.add(
                "starts",
                "Starts of executions, in a new sandbox (cold) or a ready one (warm)",
                Family::default(),
            ),
            init: r.seconds("init", "Time to start a sandbox and import the handler", work()),
            duration: r.seconds("handler_duration", "Time from handing an event to the code to its answer", work()),
            outcomes: r.add(
                "execution_outcomes",
                "Executions that reached a terminal state, by reason",
                Family::default(),
            ),
            retries: r.add("retries", "Attempts that failed and are tried again", Counter::default()),
            refused_writes: r.add(
                "record_writes_refused",
                "Records not written, because the execution belonged to another worker by then",
                Counter::default(),
            ),
            running: r.add("executions_running", "Executions running now", Gauge::default()),
            waiting: r.add("executions_waiting", "Executions waiting in this worker now", Gauge::default()),
            sandboxes: r.add("sandboxes", "Sandboxes kept now", Gauge::default()),
            instances: r.add("instances", "Instances kept now, booting ones included", Gauge::default()),
            room: r.add("room_free", "Executions that this worker could take now", Gauge::default()),
            sandbox_ends: r.add("sandbox_ends", "Sandboxes that ended, by reason", Family::default()),
            boot_failures: r.add(
                "boot_failures",
                "Instances that did not come up, by what they waited for",
                Family::default(),
            ),
            agents: r.add("agent_connections", "Agents connected now", Gauge::default()),
            reconnects: r.add("agent_reconnects", "Connections that agents resumed", Counter::default()),
            store_calls: r.seconds("store_call", "Time of calls to the store, by outcome", family(calls)),
            external_calls: r.seconds("external_call", "Time of calls to other services, by status", family(calls)),
            requests: r.seconds("api_request", "Time of requests to the REST service, by status", family(calls)),
            restarts: r.add("task_restarts", "Background tasks that failed and were started again", Family::default()),
            registry: r.0,
        }))
    }

    /// The numbers as Prometheus reads them; of type [`CONTENT_TYPE`].
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail, and no encoder of ours does.
        let _ = text::encode(&mut text, &self.0.registry);
        text
    }

    /// A claim brought this many messages.
    pub fn claimed(&self, messages: usize) {
        if messages == 0 {
            self.0.empty_claims.inc();
        } else {
            self.0.claimed.inc_by(messages as u64);
        }
    }

    /// A message matched.
    pub fn matched(&self) {
        self.0.matched.inc();
    }

    /// A bulk insert told these executions new and those known.
    pub fn inserted(&self, new: usize, known: usize) {
        self.0.inserted.inc_by(new as u64);
        self.0.duplicates.inc_by(known as u64);
    }

    /// A message or an event went to a dead letter queue.
    pub fn dead_letter(&self, reason: DeadLetterReason) {
        self.0.dead_letters.get_or_create(&labels::DeadLetter { reason }).inc();
    }

    /// A message was claimed at this age.
    pub fn queue_age(&self, age: Duration) {
        self.0.queue_age.observe(age.as_secs_f64());
    }

    /// An execution was started, this long after its event was received or became due.
    pub fn started(&self, start: Start, waited: Duration) {
        self.0.starts.get_or_create(&labels::Started { kind: start.into() }).inc();
        self.0.dispatch_wait.observe(waited.as_secs_f64());
    }

    /// A sandbox became ready after this time.
    pub fn init(&self, took: Duration) {
        self.0.init.observe(took.as_secs_f64());
    }

    /// A handler answered, or was stopped, after this time.
    pub fn handler(&self, took: Duration) {
        self.0.duration.observe(took.as_secs_f64());
    }

    /// An execution reached a terminal state.
    pub fn outcome(&self, state: ExecutionState, reason: Option<Reason>) {
        let labels = labels::Outcome { state: labels::StateLabel(state), reason: labels::ReasonLabel(reason) };
        self.0.outcomes.get_or_create(&labels).inc();
    }

    /// A failed attempt is tried again.
    pub fn retried(&self) {
        self.0.retries.inc();
    }

    /// A record was not written, because the execution belonged to somebody else by then.
    pub fn write_refused(&self) {
        self.0.refused_writes.inc();
    }

    /// So many executions run, and so many wait, in this worker.
    pub fn set_executions(&self, running: usize, waiting: usize) {
        self.0.running.set(whole(running));
        self.0.waiting.set(whole(waiting));
    }

    /// The fleet has so many instances, and sandboxes in them.
    pub fn set_fleet(&self, instances: usize, sandboxes: usize) {
        self.0.instances.set(whole(instances));
        self.0.sandboxes.set(whole(sandboxes));
    }

    /// The worker could take so many executions.
    pub fn set_room(&self, free: usize) {
        self.0.room.set(whole(free));
    }

    /// A sandbox ended.
    pub fn sandbox_ended(&self, reason: SandboxEnd) {
        self.0.sandbox_ends.get_or_create(&labels::Ended { reason }).inc();
    }

    /// An instance did not come up; what needs it waits for this.
    pub fn boot_failed(&self, isolation: Isolation, waiting_for: WaitingFor) {
        let isolation = labels::IsolationLabel(isolation);
        let waiting_for = labels::WaitingForLabel(waiting_for);
        self.0.boot_failures.get_or_create(&labels::BootFailed { isolation, waiting_for }).inc();
    }

    /// So many agents are connected.
    pub fn set_agents(&self, connected: usize) {
        self.0.agents.set(whole(connected));
    }

    /// An agent dialled again and resumed.
    pub fn agent_reconnected(&self) {
        self.0.reconnects.inc();
    }

    /// A call to the store ended. `operation` is the method's name.
    pub fn store_call(&self, operation: &'static str, outcome: StoreOutcome, took: Duration) {
        let labels = labels::StoreCall { operation, outcome };
        self.0.store_calls.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A call to another service ended. `operation` is a word such as `claim`, not a path.
    pub fn external_call(&self, service: Service, operation: &'static str, status: CallStatus, took: Duration) {
        let labels = labels::ExternalCall { service, operation, status };
        self.0.external_calls.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A REST request was answered. `route` is the pattern that matched, as `/v1/functions/{function}`; none: no route
    /// did.
    pub fn request(&self, method: &Method, route: Option<&str>, status: u16, took: Duration) {
        let route = route.unwrap_or("none").to_owned();
        let labels = labels::Request { method: labels::method_name(method), route, status };
        self.0.requests.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A supervised task failed and is started again.
    pub fn task_restarted(&self, task: &'static str) {
        self.0.restarts.get_or_create(&labels::Task { task }).inc();
    }
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Serves `/metrics`.
pub fn metrics_router(metrics: Metrics) -> Router {
    Router::new().route(
        "/metrics",
        get(move || {
            let text = metrics.encode();
            async move { ([(header::CONTENT_TYPE, CONTENT_TYPE)], text) }
        }),
    )
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt as _;

    use super::*;

    fn exercised() -> Metrics {
        let metrics = Metrics::new("lambda-worker");
        let took = Duration::from_millis(20);
        metrics.claimed(3);
        metrics.claimed(0);
        metrics.matched();
        metrics.inserted(2, 1);
        metrics.dead_letter(DeadLetterReason::NoTrigger);
        metrics.queue_age(Duration::from_secs(2));
        metrics.started(Start::Cold, took);
        metrics.init(took);
        metrics.handler(took);
        metrics.outcome(ExecutionState::Succeeded, None);
        metrics.outcome(ExecutionState::Failed, Some(Reason::HandlerError));
        metrics.retried();
        metrics.write_refused();
        metrics.set_executions(1, 2);
        metrics.set_fleet(3, 4);
        metrics.set_room(5);
        metrics.sandbox_ended(SandboxEnd::OutOfMemory);
        metrics.set_agents(6);
        metrics.agent_reconnected();
        metrics.store_call("ping", StoreOutcome::Ok, took);
        metrics.boot_failed(Isolation::Vm, WaitingFor::Quota);
        metrics.external_call(Service::Zaqar, "claim", CallStatus::Answered(201), took);
        metrics.external_call(Service::Zaqar, "claim", CallStatus::TimedOut, took);
        metrics.request(&Method::GET, Some("/v1/functions/{function}"), 200, took);
        metrics.request(&Method::from_bytes(b"BREW").unwrap(), None, 404, took);
        metrics.task_restarted("intake");
        metrics
    }

    #[test]
    fn every_number_is_told_under_its_name_and_labels() {
        let text = exercised().encode();
        for line in [
            "lambda_build_info{program=\"lambda-worker\",version=\"0.1.0\"} 1",
            "lambda_intake_messages_claimed_total 3",
            "lambda_intake_empty_claims_total 1",
            "lambda_intake_messages_matched_total 1",
            "lambda_intake_executions_inserted_total 2",
            "lambda_intake_duplicates_total 1",
            "lambda_dead_letters_total{reason=\"no_trigger\"} 1",
            "lambda_event_queue_age_seconds_sum 2.0",
            "lambda_dispatch_wait_seconds_bucket{le=\"0.05\"} 1",
            "lambda_starts_total{kind=\"cold\"} 1",
            "lambda_init_seconds_count 1",
            "lambda_handler_duration_seconds_count 1",
            "lambda_execution_outcomes_total{state=\"succeeded\",reason=\"none\"} 1",
            "lambda_execution_outcomes_total{state=\"failed\",reason=\"handler_error\"} 1",
            "lambda_retries_total 1",
            "lambda_executions_running 1",
            "lambda_executions_waiting 2",
            "lambda_instances 3",
            "lambda_sandboxes 4",
            "lambda_room_free 5",
            "lambda_sandbox_ends_total{reason=\"out_of_memory\"} 1",
            "lambda_boot_failures_total{isolation=\"vm\",waiting_for=\"quota\"} 1",
            "lambda_agent_connections 6",
            "lambda_agent_reconnects_total 1",
            "lambda_store_call_seconds_count{operation=\"ping\",outcome=\"ok\"} 1",
            "lambda_external_call_seconds_count{service=\"zaqar\",operation=\"claim\",status=\"201\"} 1",
            "lambda_external_call_seconds_count{service=\"zaqar\",operation=\"claim\",status=\"timed_out\"} 1",
            "lambda_api_request_seconds_count{method=\"GET\",route=\"/v1/functions/{function}\",status=\"200\"} 1",
            "lambda_api_request_seconds_count{method=\"other\",route=\"none\",status=\"404\"} 1",
            "lambda_task_restarts_total{task=\"intake\"} 1",
            "# UNIT lambda_store_call_seconds seconds",
        ] {
            assert!(text.lines().any(|known| known == line), "no line {line:?} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn every_number_has_a_help_text_and_our_prefix() {
        let text = exercised().encode();
        let helps = text.lines().filter(|line| line.starts_with("# HELP lambda_")).count();
        let types = text.lines().filter(|line| line.starts_with("# TYPE lambda_")).count();
        assert_eq!((helps, types), (28, 28), "{text}");
    }

    #[tokio::test]
    async fn the_router_serves_the_numbers_with_their_type() {
        let request = axum::http::Request::get("/metrics").body(axum::body::Body::empty()).unwrap();
        let response = metrics_router(exercised()).oneshot(request).await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()[header::CONTENT_TYPE], CONTENT_TYPE);
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        assert!(body.ends_with(b"# EOF\n"));
    }
}
