//! `[standalone]`.

use super::check::Form;

options! {
    /// Everything in one process.
    StandaloneOptions in "standalone" {
        /// Directory of all state.
        [form(Form::Path)] data_dir: String = "lambda-data".to_owned();
        /// Address and port of the REST service.
        [form(Form::Address)] api_bind: String = "127.0.0.1:9070".to_owned();
        /// Address and port of the Zaqar-v2 queue.
        [form(Form::Address)] queue_bind: String = "127.0.0.1:8888".to_owned();
    }
}
