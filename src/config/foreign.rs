//! Options that stand in a lambda.conf without being ours. DevStack, Kolla and the like write the groups of the oslo
//! libraries and of Keystone's clients into every service's file; refusing them would refuse those tools. They are
//! accepted, listed once at start as not read, and have no effect in this release.

/// Groups that are accepted whole.
const GROUPS: &[&str] = &[
    // Who we are to Keystone stands in [service_auth].
    "service_user",
    "service_credentials",
    "trustee",
    "keystone",
    // Libraries that every Python service has.
    "oslo_middleware",
    "oslo_limit",
    "oslo_concurrency",
    "oslo_messaging_kafka",
    "oslo_messaging_metrics",
    "oslo_messaging_notifications",
    "oslo_messaging_rabbit",
    "oslo_reports",
    "oslo_versionedobjects",
    "cache",
    "cors",
    "healthcheck",
    "profiler",
    "profiler_jaeger",
    "profiler_otlp",
    "ssl",
];

/// keystoneauth's options for authentication, session and adapter. Who we are stands in [service_auth] alone.
const KEYSTONEAUTH: &[&str] = &[
    "application_credential_id",
    "application_credential_name",
    "application_credential_secret",
    "auth_section",
    "auth_type",
    "auth_url",
    "cafile",
    "certfile",
    "collect_timing",
    "connect_retries",
    "connect_retry_delay",
    "default_domain_id",
    "default_domain_name",
    "domain_id",
    "domain_name",
    "insecure",
    "keyfile",
    "max_version",
    "min_version",
    "password",
    "project_domain_id",
    "project_domain_name",
    "project_name",
    "retriable_status_codes",
    "service_name",
    "service_type",
    "split_loggers",
    "status_code_retries",
    "status_code_retry_delay",
    "system_scope",
    "tls_ciphers",
    "tls_min_version",
    "trust_id",
    "user_domain_id",
    "user_domain_name",
    "user_id",
    "username",
];

/// Options of other libraries inside groups of ours.
const OPTIONS: &[(&str, &[&str])] = &[
    (
        "DEFAULT",
        &[
            // oslo.log
            "instance_format",
            "instance_uuid_format",
            "log_color",
            "log_config_append",
            "log_date_format",
            "log_rotate_interval",
            "log_rotate_interval_type",
            "log_rotation_type",
            "logging_context_format_string",
            "logging_debug_format_suffix",
            "logging_default_format_string",
            "logging_exception_prefix",
            "logging_user_identity_format",
            "max_logfile_count",
            "max_logfile_size_mb",
            "publish_errors",
            "rate_limit_burst",
            "rate_limit_except_level",
            "rate_limit_interval",
            "syslog_log_facility",
            "use_journal",
            "use_stderr",
            "use_syslog",
            "watch_log_file",
            // oslo.messaging, oslo.service and what most services share
            "control_exchange",
            "executor_thread_pool_size",
            "fatal_deprecations",
            "my_ip",
            "region_name",
            "rpc_response_timeout",
            "state_path",
            "transport_url",
        ],
    ),
    (
        "database",
        // oslo.db
        &[
            "backend",
            "connection_debug",
            "connection_parameters",
            "connection_recycle_time",
            "connection_trace",
            "db_inc_retry_interval",
            "db_max_retries",
            "db_max_retry_interval",
            "db_retry_interval",
            "max_overflow",
            "max_pool_size",
            "max_retries",
            "mysql_sql_mode",
            "mysql_wsrep_sync_wait",
            "pool_timeout",
            "retry_interval",
            "slave_connection",
            "sqlite_synchronous",
            "synchronous_reader",
        ],
    ),
    (
        "keystone_authtoken",
        // keystonemiddleware and keystoneauth: what else they have. Tokens are remembered in the process, and Keystone is
        // asked at auth_url.
        &[
            "auth_section",
            "auth_uri",
            "auth_version",
            "cache",
            "default_domain_id",
            "default_domain_name",
            "delay_auth_decision",
            "domain_id",
            "domain_name",
            "enforce_token_bind",
            "http_request_max_retries",
            "include_service_catalog",
            "interface",
            "memcache_password",
            "memcache_pool_conn_get_timeout",
            "memcache_pool_dead_retry",
            "memcache_pool_maxsize",
            "memcache_pool_socket_timeout",
            "memcache_pool_unused_timeout",
            "memcache_sasl_enabled",
            "memcache_secret_key",
            "memcache_security_strategy",
            "memcache_tls_allowed_ciphers",
            "memcache_tls_cafile",
            "memcache_tls_certfile",
            "memcache_tls_enabled",
            "memcache_tls_keyfile",
            "memcache_use_advanced_pool",
            "memcache_username",
            "memcached_servers",
            "region_name",
            "service_type",
            "signing_dir",
            "system_scope",
            "timeout",
            "trust_id",
        ],
    ),
    (
        "oslo_policy",
        // Checks that ask a server are refused.
        &[
            "remote_content_type",
            "remote_ssl_ca_crt_file",
            "remote_ssl_client_crt_file",
            "remote_ssl_client_key_file",
            "remote_ssl_verify_server_crt",
            "remote_timeout",
        ],
    ),
    ("zaqar", KEYSTONEAUTH),
    ("zun", KEYSTONEAUTH),
    ("zun", &["project_id"]),
    ("nova", KEYSTONEAUTH),
    ("nova", &["project_id"]),
    ("neutron", KEYSTONEAUTH),
    ("neutron", &["project_id", "timeout"]),
    ("glance", KEYSTONEAUTH),
    ("glance", &["project_id", "timeout"]),
    (
        "service_auth",
        // keystoneauth: what else it has
        &[
            "auth_section",
            "collect_timing",
            "connect_retries",
            "connect_retry_delay",
            "default_domain_id",
            "default_domain_name",
            "domain_id",
            "domain_name",
            "endpoint_override",
            "max_version",
            "min_version",
            "retriable_status_codes",
            "service_name",
            "service_type",
            "split_loggers",
            "status_code_retries",
            "status_code_retry_delay",
            "system_scope",
            "tls_ciphers",
            "tls_min_version",
            "trust_id",
        ],
    ),
];

/// Whether a whole group belongs to others. Names are compared in lower case.
pub(super) fn is_group(group: &str) -> bool {
    GROUPS.contains(&group)
}

/// Whether an option belongs to others.
pub(super) fn is_option(group: &str, option: &str) -> bool {
    is_group(group) || OPTIONS.iter().any(|(known, options)| *known == group && options.contains(&option))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn no_option_of_ours_is_taken_for_a_foreign_one() {
        for (group, options) in Config::help() {
            assert!(!is_group(group.name), "{}", group.name);
            for option in options {
                assert!(!is_option(group.name, option.name), "{}.{}", group.name, option.name);
            }
        }
    }
}
