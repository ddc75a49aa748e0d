//! Who calls and where to, for every way to say it.

use serde_json::json;

use super::*;

fn settings(options: &[(&'static str, &str)], environment: &[(&str, &str)], clouds: Value) -> Result<Settings> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let clouds: Clouds = serde_json::from_value(clouds).unwrap();
    let clouds = clouds.into_iter().map(|(name, cloud)| (name, super::super::clouds::normalized(cloud))).collect();
    let options = options.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Settings::new(options, &environment.iter().map(owned).collect(), clouds)
}

fn cloud(password: &str) -> Value {
    json!({"auth": {"auth_url": "http://k/v3", "username": "me", "password": password, "project_name": "p"},
           "region_name": "one"})
}

const OPENRC: [(&str, &str); 5] = [
    ("OS_AUTH_URL", "http://e/v3"),
    ("OS_USERNAME", "env"),
    ("OS_PASSWORD", "s"),
    ("OS_PROJECT_NAME", "ep"),
    ("OS_USER_DOMAIN_ID", "ud"),
];

#[test]
fn an_option_wins_over_the_cloud_and_a_cloud_over_the_environment() {
    let clouds = json!({"a": cloud("1"), "b": cloud("2")});
    let chosen = [&OPENRC[..], &[("OS_CLOUD", "a")]].concat();
    let get = |settings: Result<Settings>, key: &str| settings.unwrap().get(key);
    assert_eq!(get(settings(&[], &chosen, clouds.clone()), "password").unwrap(), "1");
    assert_eq!(get(settings(&[("cloud", "b")], &chosen, clouds.clone()), "password").unwrap(), "2");
    assert_eq!(get(settings(&[("password", "o")], &chosen, clouds.clone()), "password").unwrap(), "o");
    assert_eq!(get(settings(&[], &OPENRC, clouds.clone()), "username").unwrap(), "env");
    // One that says nothing of a cloud does not stand for one; and where there is only one, it is meant.
    let only = settings(&[], &[("OS_REGION_NAME", "two"), ("OS_TEST_X", "y")], json!({"a": cloud("1")})).unwrap();
    assert_eq!((only.get("password").as_deref(), only.region()), (Some("1"), Some("two")));
    assert_eq!(get(settings(&[], &[], clouds), "password"), None);
}

#[test]
fn what_is_missing_is_named_where_it_would_have_to_be() {
    let incomplete = json!({"a": {"auth": {"auth_url": "http://k", "username": "me"}}});
    let profile = json!({"a": {"profile": "vexxhost", "auth": {"username": "me"}}});
    let regions = json!({"a": {"regions": ["one", {"name": "two", "values": {"interface": "admin"}}]}});
    for (options, environment, clouds, part) in [
        (&[][..], &[][..], json!({}), "set OS_AUTH_TYPE=none and OS_ENDPOINT=http://HOST:9070"),
        (&[], &[("OS_AUTH_TYPE", "none")], json!({}), "OS_ENDPOINT"),
        (&[], &[("OS_AUTH_URL", "http://k")], json!({}), "OS_USERNAME or OS_USER_ID is not set"),
        (&[], &OPENRC[..2], json!({}), "OS_PASSWORD is not set"),
        (&[], &OPENRC[..3], json!({}), "OS_PROJECT_NAME or OS_PROJECT_ID is not set"),
        (&[("cloud", "a")], &[], incomplete, "password is not in the cloud 'a'"),
        (&[("cloud", "b")], &[], json!({"a": {}}), "there is no cloud 'b' in clouds.yaml, only: a"),
        (&[("cloud", "b")], &[], json!({}), "no clouds.yaml was found"),
        (&[("cloud", "a")], &[], profile, "names a profile"),
        (&[("region_name", "three")], &[], regions, "the cloud 'a' has no region 'three', only: one, two"),
        (&[("auth_type", "v2password")], &OPENRC, json!({}), "OS_AUTH_TYPE is 'v2password'"),
        (&[("auth_type", "token")], &OPENRC, json!({}), "OS_TOKEN is not set"),
        (&[("auth_type", "v3applicationcredential")], &OPENRC, json!({}), "OS_APPLICATION_CREDENTIAL_SECRET"),
        (&[("system_scope", "all")], &OPENRC, json!({}), "a system scope has no project"),
    ] {
        let error = settings(options, environment, clouds)
            .and_then(|settings| match (settings.identity()?, settings.endpoint()) {
                (Identity::None { .. }, None) => Err(settings.without_endpoint()),
                _ => Ok(()),
            })
            .expect_err(part);
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}

#[test]
fn every_way_to_authenticate_is_understood() {
    let identity = |environment: &[(&str, &str)]| settings(&[], environment, json!({})).unwrap().identity().unwrap();
    let parts = |environment: &[(&str, &str)]| match identity(environment) {
        Identity::Keystone { credentials, scope, .. } => (credentials, scope),
        Identity::None { .. } => panic!("{environment:?}"),
    };
    let domain = |id: &str| Domain::Id(id.to_owned());
    let (credentials, scope) = parts(&OPENRC);
    let Credentials::Password { user, .. } = credentials else { panic!() };
    assert_eq!(user, Named::Name("env".to_owned(), domain("ud")));
    assert_eq!(scope, Scope::Project(Named::Name("ep".to_owned(), domain("default"))));

    let url = ("OS_AUTH_URL", "http://k");
    let secret = ("OS_APPLICATION_CREDENTIAL_SECRET", "s");
    let (credentials, scope) = parts(&[url, secret, ("OS_APPLICATION_CREDENTIAL_ID", "i")]);
    let expected = Credentials::ApplicationCredential { id: "i".to_owned(), secret: "s".to_owned() };
    assert_eq!((credentials, scope), (expected, Scope::Unscoped));
    let (credentials, _) = parts(&[url, secret, ("OS_APPLICATION_CREDENTIAL_NAME", "n"), ("OS_USER_ID", "u")]);
    let Credentials::NamedApplicationCredential { name, user, .. } = credentials else { panic!() };
    assert_eq!((name.as_str(), user), ("n", Named::Id("u".to_owned())));

    let token = [url, ("OS_AUTH_TYPE", "v3token"), ("OS_TOKEN", "t"), ("OS_PROJECT_ID", "p")];
    assert_eq!(parts(&token), (Credentials::Token("t".to_owned()), Scope::Project(Named::Id("p".to_owned()))));
    let trust = [&OPENRC[..], &[("OS_TRUST_ID", "t")]].concat();
    assert_eq!(parts(&trust).1, Scope::Trust("t".to_owned()));
    let Identity::None { project } = identity(&[("OS_AUTH_TYPE", "none"), ("OS_PROJECT_ID", "p")]) else { panic!() };
    assert_eq!(project.as_deref(), Some("p"));
    assert!(matches!(identity(&[("OS_ENDPOINT", "http://h")]), Identity::None { .. }));
}

#[test]
fn a_name_as_an_option_wins_over_an_id_of_the_cloud() {
    let clouds = json!({"a": {"auth": {"auth_url": "http://k", "user_id": "u", "password": "p", "project_id": "p"}}});
    let settings = settings(&[("project_name", "other"), ("project_domain_name", "D")], &[], clouds).unwrap();
    let Identity::Keystone { scope, credentials, .. } = settings.identity().unwrap() else { panic!() };
    assert_eq!(scope, Scope::Project(Named::Name("other".to_owned(), Domain::Name("D".to_owned()))));
    assert!(matches!(credentials, Credentials::Password { user: Named::Id(_), .. }));
}

#[test]
fn a_region_may_have_settings_of_its_own_and_the_service_its_address() {
    let regions = json!({"a": {"regions": ["one", {"name": "two", "values": {"interface": ["internal", "public"],
                               "function-endpoint-override": "http://f2"}}]}});
    let first = settings(&[], &[], regions.clone()).unwrap();
    assert_eq!((first.region(), first.interfaces(), first.endpoint()), (Some("one"), vec!["public".to_owned()], None));
    let second = settings(&[("region_name", "two")], &[], regions.clone()).unwrap();
    assert_eq!(second.interfaces(), ["internal", "public"]);
    assert_eq!(second.endpoint(), Some("http://f2"));
    let third = settings(&[], &[("OS_REGION_NAME", "two"), ("OS_ENDPOINT", "http://o")], regions).unwrap();
    assert_eq!(third.endpoint(), Some("http://o"));
}

#[test]
fn certificates_are_checked_unless_somebody_says_no() {
    let tls =
        |options: &[(&'static str, &str)], cloud: Value| settings(options, &[], json!({"a": cloud})).unwrap().tls();
    let path = |text: &str| Some(PathBuf::from(text));
    assert_eq!(tls(&[], json!({})), TlsOptions::default());
    assert_eq!(tls(&[], json!({"cacert": "/c"})).cafile, path("/c"));
    for cloud in [json!({"verify": false}), json!({"verify": "no"}), json!({"insecure": true, "cacert": "/c"})] {
        let tls = tls(&[], cloud);
        assert!(tls.insecure && tls.cafile.is_none());
    }
    let tls = tls(&[("cacert", "/o"), ("cert", "/x"), ("key", "/y")], json!({"verify": false, "cacert": "/c"}));
    assert_eq!((tls.cafile, tls.certfile, tls.keyfile), (path("/o"), path("/x"), path("/y")));
    assert!(!tls.insecure, "whoever names authorities wants them asked");
}
