//! The checks of `status upgrade-check`: one function each, which asks what the programs will ask when they start.

use super::upgrade_check::{Finding, Report};
use crate::config::{Config, Sources, load};
use crate::model::SERVICE_TYPE;
use crate::openstack::keystone::{self, Validated};
use crate::service::{self, Cloud};
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
    match Cloud::new(&config, &Metrics::new("lambda-manage")) {
        Err(error) => report.add("Keystone", Finding::error("[service_auth] does not do", &error)),
        Ok(cloud) => {
            identity(&mut report, &config, &cloud).await;
            report.check("Queue", queue(&cloud, &config.zaqar.queue)).await;
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

/// Who we are to Keystone, and whether its catalog has what this configuration needs.
async fn identity(report: &mut Report, config: &Config, cloud: &Cloud) {
    let keystone = match cloud.keystone() {
        Ok(Some(keystone)) => keystone,
        Ok(None) => {
            let finding = if config.api.auth_strategy == "noauth" {
                Finding::warning("there is none: the API believes everybody who names a project")
            } else {
                Finding::failure("[api] auth_strategy needs one, and [service_auth] auth_type is none")
            };
            report.add("Keystone", finding);
            return;
        }
        Err(error) => {
            report.add("Keystone", Finding::error("[service_auth] does not do", &error));
            return;
        }
    };
    let mut us = None;
    report
        .check("Keystone", async {
            match who_we_are(&keystone).await {
                Err(finding) => finding,
                Ok(validated) => {
                    let finding = roles(&validated);
                    us = Some(validated);
                    finding
                }
            }
        })
        .await;
    if let Some(validated) = us {
        report.add("Catalog", catalog(config, &validated));
    }
}

async fn who_we_are(keystone: &keystone::Client) -> Result<Validated, Finding> {
    let token = keystone.auth().token().await.map_err(|error| Finding::error("it gives us no token", &error))?;
    let token = token.to_str().map_err(|error| Finding::error("it gives us a token that cannot be read", &error))?;
    match keystone.validate(token).await {
        Ok(Some(validated)) => Ok(validated),
        Ok(None) => Err(Finding::failure("it does not know the token that it has just given us")),
        Err(error) => Err(Finding::error("it does not let us ask about tokens", &error)),
    }
}

/// `service` to ask about tokens, `member` to own queues, containers and servers.
fn roles(us: &Validated) -> Finding {
    let Some(project) = &us.project else { return Finding::failure("our token is for no project: set project_name") };
    let (user, project) = (&us.user.name, &project.name);
    let lacking: Vec<_> =
        ["service", "member"].into_iter().filter(|role| !us.roles.iter().any(|known| known.name == *role)).collect();
    if lacking.is_empty() {
        return Finding::success(format!("we are {user} in project {project}, with the roles service and member"));
    }
    let commands: Vec<_> =
        lacking.iter().map(|role| format!("openstack role add --project {project} --user {user} {role}")).collect();
    Finding::failure(format!("{user} lacks a role in project {project}: {}", commands.join("; ")))
}

/// Services of the catalog that are needed, unless their address is configured.
fn catalog(config: &Config, us: &Validated) -> Finding {
    let drivers = drivers(config);
    let has = |name: &str| drivers.iter().any(|driver| driver == name);
    let needed = [
        ("message", config.zaqar.endpoint_override.is_none()),
        ("container", has("zun") && config.zun.endpoint_override.is_none()),
        ("compute", has("nova") && config.nova.endpoint_override.is_none()),
        ("network", has("nova") && config.neutron.endpoint_override.is_none()),
        ("image", has("nova") && config.glance.endpoint_override.is_none()),
    ];
    let missing: Vec<_> = needed
        .into_iter()
        .filter(|(kind, is_needed)| *is_needed && !us.catalog.has(kind))
        .map(|(kind, _)| kind)
        .collect();
    if !missing.is_empty() {
        return Finding::failure(format!("it has no service of type {}", missing.join(", ")));
    }
    if us.catalog.has(SERVICE_TYPE) {
        Finding::success(format!("it has what we need, and {SERVICE_TYPE}, by which clients find us"))
    } else {
        Finding::warning(format!(
            "it has no service of type {SERVICE_TYPE}, so clients do not find us: see docs/install.md, step 2"
        ))
    }
}

async fn queue(cloud: &Cloud, queue: &str) -> Finding {
    let client = match cloud.zaqar() {
        Ok(client) => client,
        Err(error) => return Finding::error("[zaqar] does not do", &error),
    };
    if let Err(error) = client.ping().await {
        return Finding::error("Zaqar does not answer us", &error);
    }
    match client.stats(queue).await {
        Err(error) => Finding::error(&format!("the queue {queue} cannot be used"), &error),
        Ok(stats) => Finding::success(format!("{queue} can be used and holds {} messages", stats.total)),
    }
}

fn drivers(config: &Config) -> Vec<String> {
    config.worker.drivers.clone()
}
