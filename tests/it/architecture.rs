//! The shape of the tree, held by reading it: which room may use which, what stands where, how long files may be. The
//! rooms are those of the design's table.

mod source;

use std::collections::BTreeSet;

use source::File;

/// What every room may use beside itself.
const LEAVES: [&str; 5] = ["clock", "config", "model", "task", "telemetry"];

/// Each module of the library, and which others it may use besides the leaves. Imports run one way:
/// bin → api, worker, standalone, cli → driver, store, openstack, scheduler → model.
const ROOMS: [(&str, &[&str]); 20] = [
    ("api", &["driver", "health", "openstack", "policy", "scheduler", "store"]),
    ("cli", &["openstack"]),
    ("driver", &["openstack"]),
    // Which parts there are is known where they are wired; what they answer is served by api.
    ("health", &[]),
    ("manage", &["api", "driver", "openstack", "service", "store"]),
    ("openstack", &[]),
    // The language of policy files knows no route: those who ask bring their rules.
    ("policy", &[]),
    ("program", &[]),
    ("scheduler", &[]),
    // It puts the rooms together, for programs to call.
    (
        "service",
        &["api", "driver", "health", "openstack", "policy", "program", "scheduler", "standalone", "store", "worker"],
    ),
    ("standalone", &["store"]),
    ("store", &[]),
    ("worker", &["driver", "health", "openstack", "scheduler", "store"]),
    ("clock", &[]),
    ("config", &[]),
    ("model", &[]),
    ("task", &[]),
    ("telemetry", &[]),
    // Not rooms: the library's root and the programs.
    ("", &[]),
    (
        "bin",
        &[
            "api",
            "cli",
            "driver",
            "health",
            "manage",
            "openstack",
            "program",
            "scheduler",
            "service",
            "standalone",
            "store",
            "worker",
        ],
    ),
];

/// Leaves stand in an order too: each may use those before it.
const ORDER_OF_LEAVES: [&str; 5] = ["model", "clock", "task", "config", "telemetry"];

/// Paths that may be used only in these rooms.
const CONFINED: [(&[&str], &[&str], &str); 13] = [
    (&["bson"], &["store"], "documents are the store's own affair"),
    (&["mongodb"], &["store"], "the database is the store's own affair"),
    (&["rusqlite"], &["store", "standalone"], "SQL is for the store and for the laptop's queue"),
    (&["reqwest"], &["openstack", "cli"], "requests go out through the one session"),
    (&["openstack"], &["openstack"], "its types stay behind our thin clients"),
    (&["osauth"], &["openstack", "cli"], "its types stay behind our thin clients"),
    (&["axum"], &["api", "service", "standalone", "telemetry"], "only what serves HTTP knows a server"),
    (&["axum", "http", "StatusCode"], &["api", "standalone"], "what a status means is decided at the edge"),
    (&["utoipa"], &["api"], "the document is made from the handlers"),
    (&["anyhow"], &["bin", "program"], "libraries say which error it is"),
    (&["clap"], &["bin", "cli", "program"], "arguments are read at the edge"),
    (&["figment"], &["config"], "configuration is read in one place"),
    (&["prometheus_client"], &["telemetry"], "rooms call methods with names"),
];

/// What pure rooms must not touch: no I/O, no async, no clock, no randomness.
const PURE: [&str; 2] = ["model", "scheduler"];
const IMPURE: [&[&str]; 13] = [
    &["async_trait"],
    &["crate", "clock"],
    &["futures"],
    &["rand"],
    &["std", "env"],
    &["std", "fs"],
    &["std", "process"],
    &["std", "thread"],
    &["tokio"],
    &["tokio_util"],
    &["Instant", "now"],
    &["SystemTime"],
    &["Utc", "now"],
];

/// Files whose code, without its unit tests, may be longer than [`LINES_MAX`], how long, and why.
const LONG: [(&str, usize, &str); 2] = [
    ("src/model/execution.rs", 800, "the record and every change it may go through are one contract, read together"),
    ("agent/src/wire.rs", 600, "the messages of both ends are one enum, and its framing and resending belong to it"),
];
const LINES_MAX: usize = 500;

fn list(complaints: &[String]) -> String {
    complaints.join("\n")
}

#[test]
fn imports_run_one_way() {
    let mut complaints = Vec::new();
    for file in source::files(&["src"]) {
        let room = file.room();
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            complaints.push(format!("{}: the room '{room}' is not in the table of this test", file.path));
            continue;
        };
        for path in file.paths() {
            let Some(other) = file.room_of(&path) else { continue };
            if !ROOMS.iter().any(|(name, _)| *name == other) {
                complaints.push(format!("{}: '{}' leads to no room of the table", file.path, path.join("::")));
            } else if other != room && !may_use(&room, allowed, &other) {
                complaints.push(format!("{}: {room} must not use {other} ({})", file.path, path.join("::")));
            }
        }
    }
    assert!(complaints.is_empty(), "{}", list(&complaints));
}

fn may_use(room: &str, allowed: &[&str], other: &str) -> bool {
    let place = |name| ORDER_OF_LEAVES.iter().position(|leaf| *leaf == name);
    match (place(room), place(other)) {
        (Some(room), Some(other)) => other < room,
        (None, Some(_)) => !PURE.contains(&room) || other == "model",
        (Some(_), None) => false,
        (None, None) => allowed.contains(&other),
    }
}

#[test]
fn every_leaf_stands_in_the_order_of_leaves() {
    let leaves: BTreeSet<_> = LEAVES.into();
    assert_eq!(leaves, ORDER_OF_LEAVES.into());
}

#[test]
fn libraries_stay_in_their_rooms() {
    let mut complaints = Vec::new();
    for file in source::files(&["src"]) {
        let room = file.room();
        let paths = file.paths();
        // Where `crate::openstack` is imported, `openstack::` is that and not the crate.
        let ours: BTreeSet<_> =
            paths.iter().filter(|path| file.absolute(path)[0] == "crate").filter_map(|path| path.last()).collect();
        // A single word may be a variable.
        for path in paths.iter().filter(|path| path.len() > 1 && !ours.contains(&path[0])) {
            for (confined, rooms, why) in CONFINED {
                if starts_with(path, confined) && !rooms.contains(&room.as_str()) {
                    complaints.push(format!("{}: {} is not for {room}: {why}", file.path, path.join("::")));
                }
            }
        }
    }
    assert!(complaints.is_empty(), "{}", list(&complaints));
}

fn starts_with(path: &[String], beginning: &[&str]) -> bool {
    path.len() >= beginning.len() && path.iter().zip(beginning).all(|(a, b)| a == b)
}

#[test]
fn model_and_scheduler_are_pure() {
    let mut complaints = Vec::new();
    for file in source::files(&["src"]).into_iter().filter(|file| PURE.contains(&file.room().as_str())) {
        for path in file.paths() {
            let whole = file.absolute(&path);
            let impure = IMPURE.iter().find(|impure| whole.windows(impure.len()).any(|part| part == **impure));
            if impure.is_some() {
                complaints.push(format!("{}: {}", file.path, path.join("::")));
            }
            if path.iter().any(|word| word == "async" || word == "await") {
                complaints.push(format!("{}: async", file.path));
            }
        }
    }
    assert!(complaints.is_empty(), "{}", list(&complaints));
}

#[test]
fn the_agent_knows_nothing_of_the_service_and_the_service_only_what_they_share() {
    let mut complaints = Vec::new();
    for file in source::files(&["agent/src"]) {
        for path in file.paths() {
            if ["lambda_openstack", "openstack", "osauth", "mongodb", "bson", "reqwest", "rusqlite"]
                .contains(&path[0].as_str())
            {
                complaints.push(format!("{}: {}", file.path, path.join("::")));
            }
        }
    }
    for file in source::files(&["src"]) {
        for path in file.paths().into_iter().filter(|path| path[0] == "lambda_agent") {
            // What a package may be is said in one place too: the API refuses at upload what the agent would at start.
            let shared: &[&str] = match file.room().as_str() {
                "api" => &["wire", "archive", "tls"],
                // How an agent is started is between it and the driver.
                "driver" => &["address", "args", "wire"],
                // Both ends of a connection have it.
                "worker" => &["address", "tls", "wire"],
                "service" => &["address"],
                _ => &["wire"],
            };
            if path.get(1).is_none_or(|module| !shared.contains(&module.as_str())) {
                complaints.push(format!("{}: {} is not shared", file.path, path.join("::")));
            }
        }
    }
    assert!(complaints.is_empty(), "{}", list(&complaints));
    let manifest = source::read("agent/Cargo.toml");
    assert!(!manifest.contains("lambda-openstack"), "the agent depends on the root package");
}

#[test]
fn every_file_says_first_what_it_is_for() {
    let without: Vec<_> =
        all().iter().filter(|file| !file.text.starts_with("//! ")).map(|file| file.path.clone()).collect();
    assert!(without.is_empty(), "{}", list(&without));
}

#[test]
fn files_are_short_enough_to_have_one_purpose() {
    let mut complaints = Vec::new();
    for file in all() {
        let lines = file.lines_of_code();
        let most = LONG.iter().find(|(path, ..)| *path == file.path).map_or(LINES_MAX, |(_, most, _)| *most);
        if lines > most {
            complaints.push(format!("{}: {lines} lines, at most {most}", file.path));
        }
    }
    assert!(complaints.is_empty(), "{}", list(&complaints));
}

#[test]
fn every_exception_for_a_long_file_is_still_needed() {
    for (path, ..) in LONG {
        let file = all().into_iter().find(|file| file.path == path).unwrap_or_else(|| panic!("{path} is gone"));
        assert!(file.lines_of_code() > LINES_MAX, "{path} is short now, take it off the list");
    }
}

#[test]
fn programs_only_put_together() {
    for file in source::files(&["src/bin"]) {
        assert!(file.lines_of_code() <= 150, "{}: logic belongs into the library", file.path);
    }
}

fn all() -> Vec<File> {
    source::files(&["src", "agent/src", "agent/tests", "tests"])
}
