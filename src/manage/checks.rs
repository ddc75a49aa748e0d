//! The checks of `status upgrade-check`: one function each, which asks what the programs will ask when they start.

use super::upgrade_check::{Finding, Report};
use crate::config::{Config, Sources, load};
use crate::openstack::zaqar;
use crate::service;
use crate::store;
use crate::telemetry::metrics::Metrics;

/// All checks that can be made with these sources. What needs what has failed is left out.
pub async fn all(sources: &Sources) -> Report {
    let mut report = Report::default();
    let Some(config) = configuration(&mut report, sources) else { return report };
    let policy = match service::policy(&config, sources) {
        Ok(_) => Finding::success("the rules in code, and those of the policy files over them, can be read"),
        Err(error) => Finding::error("a policy file cannot be used", &error),
    };
    report.add("Policy", policy);
    report.check("Store", store(&config)).await;
    let metrics = Metrics::new("lambda-manage");
    match service::Cloud::new(&config, &metrics).and_then(|cloud| cloud.zaqar()) {
        Err(error) => report.add("Queue", Finding::error("[zaqar] does not do", &error)),
        Ok(client) => {
            report.check("Queue", queue(&client, &config.zaqar.queue)).await;
        }
    }
    report
}

fn configuration(report: &mut Report, sources: &Sources) -> Option<Config> {
    match load(sources) {
        Err(error) => {
            report.add("Configuration", Finding::failure(error.to_string()));
            None
        }
        Ok(loaded) => {
            let finding = if loaded.unread.is_empty() {
                Finding::success("every option is known and valid")
            } else {
                Finding::success(format!("valid; not read by this release: {}", loaded.unread.join(", ")))
            };
            report.add("Configuration", finding);
            Some(loaded.config)
        }
    }
}

async fn store(config: &Config) -> Finding {
    if config.database.connection.is_empty() {
        return Finding::failure("[database] connection must be set, for example to mongodb://127.0.0.1:27017/lambda");
    }
    let store = match store::open(&config.database).await {
        Ok(store) => store,
        Err(error) => return Finding::error("it cannot be opened", &error),
    };
    if let Err(error) = store.ping().await {
        return Finding::error("it does not answer", &error);
    }
    match store.missing().await {
        Err(error) => Finding::error("its shape cannot be read", &error),
        Ok(missing) if missing.is_empty() => Finding::success("it answers and has this release's shape"),
        Ok(missing) => Finding::warning(format!(
            "it lacks {}; run lambda-manage db-sync, or let the first program that starts do it",
            missing.join(", ")
        )),
    }
}

async fn queue(client: &zaqar::Client, queue: &str) -> Finding {
    if let Err(error) = client.ping().await {
        return Finding::error("Zaqar does not answer us", &error);
    }
    match client.stats(queue).await {
        Err(error) => Finding::error(&format!("the queue {queue} cannot be used"), &error),
        Ok(stats) => Finding::success(format!("{queue} can be used and holds {} messages", stats.total)),
    }
}
