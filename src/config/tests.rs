//! Loading as a whole: precedence, references, refusals, reloads.

use std::path::PathBuf;

use super::*;

struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn sources(&self, names: &[&str]) -> Sources {
        Sources::none().with_paths(names.iter().map(|name| ConfigPath::File(self.path(name))))
    }
}

fn load_text(text: &str) -> Result<Config, String> {
    let files = Files::new(&[("lambda.conf", text)]);
    let root = format!("{}/", files.directory.path().display());
    Config::load(&files.sources(&["lambda.conf"])).map_err(|error| error.to_string().replace(&root, ""))
}

fn refusal(text: &str) -> String {
    load_text(text).expect_err("it was accepted")
}

#[test]
fn nothing_set_gives_the_defaults() {
    assert_eq!(Config::load(&Sources::none()).unwrap(), Config::default());
}

#[test]
fn values_of_every_kind_are_read_as_oslo_reads_them() {
    let config = load_text(
        "[default]\ndebug = YES\nuse_json: oN\ndefault_log_levels = a=INFO,\n  b.c=WARNING\nhost = 'node 1'\n\
         [API]\nmax_limit = 080\ndefault_limit = 8\npublic_endpoint = http://h/function\n\
         [worker]\nheartbeat_interval = 1\ndead_after = 2.50\n[api]\nbind = \"0.0.0.0:80\"\n",
    );
    assert_eq!(
        config.unwrap_err(),
        "lambda.conf:6: DEFAULT.host is \"node 1\", but has to be a word of at most 255 \
                                     characters, without space"
    );
    let config = load_text(
        "[default]\ndebug = YES\nuse_json: oN\ndefault_log_levels = a=INFO,\n  b.c=WARNING\n\
         [API]\nmax_limit = 080\ndefault_limit = 8\npublic_endpoint = http://h/function\n\
         [worker]\nheartbeat_interval = 1\ndead_after = 2.50\n[api]\nbind = \"0.0.0.0:80\"\n",
    )
    .unwrap();
    assert!(config.default.debug && config.default.use_json);
    assert_eq!(config.default.default_log_levels, ["a=INFO", "b.c=WARNING"]);
    assert_eq!((config.api.max_limit, config.api.bind.as_str()), (80, "0.0.0.0:80"));
    assert_eq!(config.api.public_endpoint.as_deref(), Some("http://h/function"));
    assert!((config.worker.dead_after - 2.5).abs() < 1e-9);
}

#[test]
fn the_command_line_beats_the_environment_which_beats_files_of_which_the_later_wins() {
    let files = Files::new(&[
        ("a.conf", "[worker]\nmax_running = 1\nmax_waiting = 1\nmax_starting = 1\nkeep_alive = 1\n"),
        ("d/b.conf", "[worker]\nmax_waiting = 2\nmax_starting = 2\nkeep_alive = 2\n"),
    ]);
    let sources = Sources::none()
        .with_paths([ConfigPath::File(files.path("a.conf")), ConfigPath::Directory(files.path("d"))])
        .with_environment([("OS_WORKER__MAX_STARTING", "3"), ("OS_WORKER__KEEP_ALIVE", "3")])
        .with_override("worker", "keep_alive", "4", "--keep-alive");
    let worker = Config::load(&sources).unwrap().worker;
    assert_eq!((worker.max_running, worker.max_waiting, worker.max_starting, worker.keep_alive), (1, 2, 3, 4));
}

#[test]
fn the_environment_sets_the_default_group_too_and_other_programs_variables_are_left_alone() {
    let sources = Sources::none().with_environment([
        ("OS_DEFAULT__DEBUG", "true"),
        ("OS_PLACEMENT_DATABASE__CONNECTION", "x"),
        ("OS_DEFAULT__TRANSPORT_URL", "rabbit://"),
    ]);
    assert!(Config::load(&sources).unwrap().default.debug);
    let misspelled = Sources::none().with_environment([("OS_DEFAULT__DEBGU", "true")]);
    assert_eq!(
        Config::load(&misspelled).unwrap_err().to_string(),
        "environment variable OS_DEFAULT__DEBGU: the group [DEFAULT] has no option 'debgu', did you mean 'debug'?"
    );
}

#[test]
fn references_are_replaced_from_the_same_group_the_default_group_and_others() {
    let config = load_text(
        "[DEFAULT]\nmy_ip = 10.0.0.1\nhost = h\n[api]\nbind = $my_ip:$default_limit\ndefault_limit = 080\n\
         default_project = ${default.host}-$zaqar.project_id-$$x\n[zaqar]\nendpoint_override = http://${my_ip}:8888\n",
    )
    .unwrap();
    assert_eq!(config.api.bind, "10.0.0.1:80");
    assert_eq!(config.api.default_project, "h-demo-$x");
    assert_eq!(config.zaqar.endpoint_override.as_deref().unwrap(), "http://10.0.0.1:8888");
}

#[test]
fn references_to_nothing_and_in_circles_are_refused() {
    assert_eq!(
        refusal("[api]\nbind = $my_ip:80\n"),
        "lambda.conf:2: api.bind refers to '$my_ip', and there is no such option"
    );
    assert!(refusal("[zaqar]\nqueue = $queue\n").contains("zaqar.queue refers to '$queue', which refers back to it"));
    let circle = refusal("[zaqar]\nqueue = $dead_letter_queue\ndead_letter_queue = $queue\n");
    assert!(circle.contains("lambda.conf:2: zaqar.queue refers to '$queue', which refers back to it"), "{circle}");
}

#[test]
fn unknown_groups_and_options_are_refused_where_they_stand() {
    for (text, message) in [
        (
            "[DEFAULT]\n\nlog-file = x\n",
            "lambda.conf:3: the group [DEFAULT] has no option 'log-file', did you mean 'log_file'?",
        ),
        ("[worker]\nbanana = 1\n", "lambda.conf:2: the group [worker] has no option 'banana'"),
        ("[DEFAULT]\nDebug = 1\n", "lambda.conf:2: the group [DEFAULT] has no option 'Debug', did you mean 'debug'?"),
        ("[wroker]\na = 1\nb = 2\n", "lambda.conf:2: there is no group [wroker], did you mean 'worker'?"),
    ] {
        assert_eq!(refusal(text), message);
    }
}

#[test]
fn what_other_libraries_need_is_accepted_and_said_to_be_unread() {
    let files = Files::new(&[(
        "lambda.conf",
        "[service_user]\nanything = secret\n[zaqar]\npassword = secret\n[DEFAULT]\nuse_syslog = False\n",
    )]);
    let loaded = load(&files.sources(&["lambda.conf"])).unwrap();
    assert_eq!(loaded.config, Config::default());
    let unread = loaded.unread.join("\n");
    assert!(unread.contains("service_user.anything (") && unread.contains("lambda.conf:6)"), "{unread}");
    assert!(!unread.contains("secret"), "{unread}");
}

#[test]
fn wrong_values_say_where_what_and_what_else() {
    for (text, message) in [
        (
            "[DEFAULT]\ndebug = maybe\n",
            "lambda.conf:2: DEFAULT.debug is \"maybe\", but has to be true or false (or yes/no, on/off, 1/0)",
        ),
        (
            "[zaqar]\nclaim_ttl = 59\n",
            "lambda.conf:2: zaqar.claim_ttl is \"59\", but has to be a whole number from 60 to 43200",
        ),
        (
            "[zaqar]\nclaim_ttl = 1.5\n",
            "lambda.conf:2: zaqar.claim_ttl is \"1.5\", but has to be a whole number from 60 to 43200",
        ),
        (
            "[zaqar]\nclaim_ttl =\n",
            "lambda.conf:2: zaqar.claim_ttl is empty, but has to be a whole number from 60 to 43200",
        ),
        (
            "[worker]\nretry_base = nan\n",
            "lambda.conf:2: worker.retry_base is \"nan\", but has to be a number from 0.01 to 3600",
        ),
        (
            "[worker]\nmax_running = -1\n",
            "lambda.conf:2: worker.max_running is \"-1\", but has to be a whole number from 1 to 10000",
        ),
        (
            "[worker]\ngateway_bind = localhost:1\n",
            "lambda.conf:2: worker.gateway_bind is \"localhost:1\", but has to be an IP address and a port, such as 127.0.0.1:9070",
        ),
        (
            "[worker]\ndrivers = docker\n",
            "lambda.conf:2: worker.drivers is \"docker\", but has to be a list in which each element is one of local, zun, nova",
        ),
        (
            "[DEFAULT]\ndefault_log_levels = a=INFO,b\n",
            "lambda.conf:2: DEFAULT.default_log_levels is \"a=INFO,b\", but has to be a list in which each element is module=LEVEL, the level being DEBUG, INFO, WARNING, ERROR or CRITICAL",
        ),
        (
            "[worker]\nheartbeat_interval = 6\n",
            "default: worker.dead_after is \"10\", but has to be more than twice heartbeat_interval, which is 6",
        ),
    ] {
        assert_eq!(refusal(text), message);
    }
}

#[test]
fn a_wrong_secret_is_not_quoted() {
    let message = refusal("[database]\nconnection = mysql://root:hunter2@h/d\n");
    assert!(message.starts_with("lambda.conf:2: database.connection is not readable"), "{message}");
    assert!(!message.contains("hunter2"), "{message}");
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let message = refusal("[api]\nbind = x\nmax_limit = 0\nnope = 1\n[zaqar]\nqueue = a b\n");
    assert_eq!(message.matches("lambda.conf:").count(), 4, "{message}");
}

#[test]
fn a_file_that_is_missing_or_not_in_the_grammar_is_refused() {
    let missing = Sources::none().with_paths([ConfigPath::File("/nonexistent.conf".into())]);
    assert!(Config::load(&missing).unwrap_err().to_string().starts_with("/nonexistent.conf: cannot be read: "));
    assert_eq!(refusal("debug = 1\n"), "lambda.conf:1: a section such as [DEFAULT] must come before the first option");
}

#[test]
fn a_reload_takes_over_what_is_mutable_and_tells_what_waits_for_a_restart() {
    let files = Files::new(&[("lambda.conf", "[worker]\nkeep_alive = 10\nmax_running = 10\n")]);
    let sources = files.sources(&["lambda.conf"]);
    let first = Config::load(&sources).unwrap();
    std::fs::write(files.path("lambda.conf"), "[worker]\nkeep_alive = 20\nmax_running = 20\n").unwrap();
    let (second, differences) = first.reload(&sources).unwrap();
    assert_eq!((second.worker.keep_alive, second.worker.max_running), (20, 10));
    assert_eq!(differences.taken, ["worker.keep_alive"]);
    assert_eq!(differences.waiting, ["worker.max_running"]);
    std::fs::write(files.path("lambda.conf"), "[worker]\nkeep_alive = x\n").unwrap();
    assert!(second.reload(&sources).is_err());
}

#[test]
fn secrets_are_masked_wherever_values_are_shown() {
    let mut config = Config::default();
    config.database.connection = "mongodb://lambda:hunter2@h/d".to_owned();
    let values = config.values();
    assert!(values.contains(&("database.connection".to_owned(), Some("****".to_owned()))));
    assert!(values.contains(&("api.public_endpoint".to_owned(), None)));
    assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
}

mod kinds {
    //! Kinds of options that no group of ours has yet.

    use std::collections::BTreeMap;

    use super::*;

    options! {
        /// One of each rare kind.
        Rare in "rare" {
            /// A map.
            [mutable()] map: BTreeMap<String, String> = BTreeMap::new();
            /// More than one.
            multi: Multi = Multi(vec!["default".to_owned()]);
            /// A number that may be unset.
            [range(1, 9)] number: Option<u16> = Some(1);
        }
    }

    fn read(files: &Files, names: &[&str], environment: &[(&str, &str)]) -> Result<Rare, String> {
        let sources = files.sources(names).with_environment(environment.iter().copied());
        let known = vec![(GroupHelp { name: Rare::GROUP, help: Rare::HELP }, Rare::help())];
        super::super::load::read(&sources, &known, Rare::read).map(|(rare, _)| rare).map_err(|error| error.to_string())
    }

    #[test]
    fn maps_repeated_options_and_unset_numbers_are_read() {
        let files = Files::new(&[
            ("a.conf", "[rare]\nmulti = 1\nmulti = 2\nmap = k:v,\n  k2:v2\nnumber =\n"),
            ("b.conf", "[rare]\nmulti = 3\n"),
        ]);
        let rare = read(&files, &["a.conf", "b.conf"], &[]).unwrap();
        assert_eq!(rare.multi, Multi(["1", "2", "3"].map(str::to_owned).to_vec()));
        assert_eq!(
            rare.map.into_iter().collect::<Vec<_>>(),
            [("k", "v"), ("k2", "v2")].map(|(k, v)| (k.to_owned(), v.to_owned()))
        );
        assert_eq!(rare.number, None);
        let rare = read(&files, &["a.conf"], &[("OS_RARE__MULTI", "4")]).unwrap();
        assert_eq!(rare.multi, Multi(vec!["4".to_owned()]));
        assert_eq!(read(&files, &[], &[]).unwrap(), Rare::default());
    }

    #[test]
    fn a_map_that_is_none_is_refused() {
        let files = Files::new(&[("a.conf", "[rare]\nmap = k\n")]);
        assert!(
            read(&files, &["a.conf"], &[])
                .unwrap_err()
                .ends_with("but has to be key:value pairs with commas between them, no key twice")
        );
    }
}

#[test]
fn a_directory_is_no_file() {
    let message = Config::load(&Sources::none().with_paths([ConfigPath::File("/".into())]));
    assert!(message.unwrap_err().to_string().starts_with("/: cannot be read"));
}
