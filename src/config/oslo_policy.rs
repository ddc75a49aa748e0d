//! `[oslo_policy]`.

use super::Multi;
use super::check::Form;

options! {
    /// Who may do what: where the operator's rules stand that override the service's own. lambda-manage policy-sample
    /// prints those.
    OsloPolicyOptions in "oslo_policy" {
        /// File of rules. A path that is not absolute is looked for beside the configuration files, then in ~/.lambda, ~,
        /// /etc/lambda and /etc. It need not be there, unless it is named here. It is read again when it changes.
        [form(Form::Path)] policy_file: String = "policy.yaml".to_owned();
        /// Directories of further files of rules, looked for likewise; files are taken in the order of their names, the
        /// later is the stronger. They need not be there.
        [form(Form::Path)] policy_dirs: Multi = Multi(vec!["policy.d".to_owned()]);
        /// The rule that stands in for one that is not there.
        [form(Form::Word)] policy_default_rule: String = "default".to_owned();
        /// Refuse tokens whose scope is not that of the rule.
        enforce_scope: bool = true;
        /// Accepted for the sake of deployment tools: there are no older defaults that could hold beside the new ones.
        enforce_new_defaults: bool = true;
    }
}
