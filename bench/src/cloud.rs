//! The cloud in a box, and this service on it: `lambda-api` and one `lambda-worker`, on a database and queues of their own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lambda_openstack::openstack::keystone::{Credentials, Domain, KeystoneAuth, KeystoneOptions, Named, Scope};
use lambda_openstack::openstack::{Session, SessionOptions, TlsOptions, zaqar};
use serde_json::json;
use tempfile::TempDir;

use crate::bench::{Bench, directory};
use crate::program::{Program, command, free_port};
use crate::service::Api;

/// Longest that a program of ours takes to be ready on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// An account of the cloud: the variables of its `openrc`.
pub struct Account(BTreeMap<String, String>);

impl Account {
    /// What a shell knows once it has read that file.
    async fn read(file: &Path) -> Result<Self> {
        let mut shell = command(Path::new("/bin/bash"));
        shell.args(["-c", "set -ae; . \"$1\"; env -0", "bash"]).arg(file);
        let output = shell.output().await?;
        ensure!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout)?;
        let variables = text.split('\0').filter_map(|line| line.split_once('='));
        Ok(Self(variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()))
    }

    /// The variable of this name.
    pub fn var(&self, name: &str) -> Result<&str> {
        self.0.get(name).map(String::as_str).with_context(|| format!("the openrc says nothing of {name}"))
    }

    /// This account to Keystone.
    pub fn auth(&self) -> Result<KeystoneAuth> {
        let domain = |name: &str| Ok::<_, anyhow::Error>(Domain::Name(self.var(name)?.to_owned()));
        let user = Named::Name(self.var("OS_USERNAME")?.to_owned(), domain("OS_USER_DOMAIN_NAME")?);
        let project = Named::Name(self.var("OS_PROJECT_NAME")?.to_owned(), domain("OS_PROJECT_DOMAIN_NAME")?);
        let options = KeystoneOptions {
            auth_url: self.var("OS_AUTH_URL")?.to_owned(),
            credentials: Credentials::Password { user, password: self.var("OS_PASSWORD")?.to_owned() },
            scope: Scope::Project(project),
            timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
            tls: TlsOptions::default(),
            observer: None,
        };
        Ok(KeystoneAuth::new(options)?)
    }

    /// A session as this account.
    pub fn session(&self) -> Result<Session> {
        let region = Some(self.var("OS_REGION_NAME")?.to_owned());
        Ok(Session::new(Arc::new(self.auth()?), SessionOptions { region, ..SessionOptions::default() })?)
    }
}

/// The cloud.
pub struct Cloud {
    /// An ordinary user.
    pub user: Account,
    /// The user that this service is.
    pub service: Account,
}

impl Cloud {
    /// The one that runs, or one that is started; whoever started the measures ends it.
    pub async fn up(bench: &Bench) -> Result<Self> {
        bench.cloud_up.get_or_try_init(async || start(bench).await).await?;
        let account = async |name: &str| Account::read(&bench.cloud.join(name)).await;
        Ok(Self { user: account("openrc").await?, service: account("openrc-service").await? })
    }
}

async fn start(bench: &Bench) -> Result<()> {
    let mut script = tokio::process::Command::new(bench.root.join("tests/cloud/cloud.sh"));
    script.arg("up").env("LAMBDA_CLOUD_DIR", &bench.cloud).env("LAMBDA_BIN_DIR", &bench.programs);
    let status = script.stdout(std::process::Stdio::null()).status().await?;
    ensure!(status.success(), "the cloud in a box does not start: {status}");
    Ok(())
}

/// This service on the cloud.
pub struct Deployment {
    api_program: Program,
    /// The worker, if it was not stopped.
    pub worker: Program,
    /// Its REST service, as the ordinary user's project.
    pub api: Api,
    /// The platform queue.
    pub queue: String,
    /// The ordinary user's project.
    pub project: String,
    /// The name of its database.
    pub database: String,
    /// Where MongoDB is, with the database.
    pub connection: String,
    zaqar: zaqar::Client,
    _directory: TempDir,
}

impl Deployment {
    /// Starts both; `more` are lines of configuration, in which `GATEWAY_PORT` stands for the port of the gateway.
    pub async fn start(bench: &Bench, cloud: &Cloud, more: &str) -> Result<Self> {
        let directory = directory()?;
        let mark = uuid::Uuid::new_v4().simple().to_string();
        let database = format!("bench_{mark}");
        let mongodb = cloud.user.var("MONGODB_URI")?;
        let (base, query) = mongodb.split_once('?').unwrap_or((mongodb, ""));
        let connection = format!("{}/{database}?{query}", base.trim_end_matches('/'));
        let project = cloud.user.auth()?.project_id().await?.context("the user has no project")?;
        let (port, gateway) = (free_port()?, free_port()?);
        let service = &cloud.service;
        let configuration = format!(
            "[database]\nconnection = {connection}\n[api]\nbind = 127.0.0.1:{port}\ndefault_project = {project}\n\
             [service_auth]\nauth_type = password\nauth_url = {url}\nusername = {user}\npassword = {password}\n\
             user_domain_name = Default\nproject_name = {of}\nproject_domain_name = Default\nregion_name = {region}\n\
             [zaqar]\nqueue = events-{mark}\ndead_letter_queue = letters-{mark}\ntrusted_posters = all\n\
             [worker]\ngateway_bind = 0.0.0.0:{gateway}\ngateway_advertise = 127.0.0.1:{gateway}\nstate_dir = {state}\n\
             {more}\n",
            url = service.var("OS_AUTH_URL")?,
            user = service.var("OS_USERNAME")?,
            password = service.var("OS_PASSWORD")?,
            of = service.var("OS_PROJECT_NAME")?,
            region = service.var("OS_REGION_NAME")?,
            state = directory.path().join("state").display(),
            more = more.replace("GATEWAY_PORT", &gateway.to_string()),
        );
        let file = directory.path().join("lambda.conf");
        std::fs::write(&file, configuration)?;
        let start = |name: &str| {
            let mut start = command(&bench.programs.join(name));
            Program::start(start.arg("--config-file").arg(&file), directory.path().join(format!("{name}.log")))
        };
        let mut api_program = start("lambda-api")?;
        let api = Api::new(&format!("http://127.0.0.1:{port}"), &[]);
        api_program.until("its REST service", PATIENCE, async |_| api.ok("GET", "/v1", None).await.ok()).await?;
        let mut worker = start("lambda-worker")?;
        worker
            .until("its taking of events", PATIENCE, async |worker| {
                worker.output().contains("takes events").then_some(())
            })
            .await?;
        Ok(Self {
            api_program,
            worker,
            api,
            queue: format!("events-{mark}"),
            project,
            database,
            connection,
            zaqar: zaqar::Client::new(service.session()?),
            _directory: directory,
        })
    }

    /// The end: the programs stop, queues and database go.
    pub async fn stop(self) -> Result<()> {
        self.worker.stop().await?;
        self.api_program.stop().await?;
        for queue in [self.queue.clone(), self.queue.replace("events-", "letters-")] {
            self.zaqar.delete_queue(&queue).await?;
        }
        let client = mongodb::Client::with_uri_str(&self.connection).await?;
        client.database(&self.database).drop().await?;
        Ok(())
    }
}

/// A message for a queue: an event of the type that a function of this name has a trigger for.
pub fn message(kind: &str, project: &str, data: &serde_json::Value) -> Result<zaqar::NewMessage> {
    let event = json!({"source": "bench", "type": kind, "projectid": project, "data": data});
    let body = serde_json::value::RawValue::from_string(event.to_string())?;
    Ok(zaqar::NewMessage { ttl: Duration::from_secs(3600), body })
}
