//! `[zaqar]`.

use super::check::Form;

options! {
    /// The queue that events come from.
    ZaqarOptions in "zaqar" {
        /// Base address of the messaging service, without /v2.
        [form(Form::HttpUrl)] endpoint_override: String = "http://127.0.0.1:8888".to_owned();
        /// The platform queue.
        [form(Form::QueueName)] queue: String = "lambda-events".to_owned();
        /// Where messages go that are no event or that match no trigger, and events of functions that name no queue of
        /// their own.
        [form(Form::QueueName)] dead_letter_queue: String = "lambda-dead-letters".to_owned();
        /// Project of the platform queue, sent as X-Project-Id where there is no token.
        [form(Form::Word)] project_id: String = "demo".to_owned();
        /// Seconds a request may take.
        [range(1, 300)] timeout: u64 = 30;
        /// Seconds for which a claim hides its messages. It is not renewed: messages are deleted as
        /// soon as the store has them.
        [range(60, 43_200)] claim_ttl: u32 = 60;
        /// Seconds that messages live on beyond the claim.
        [range(60, 43_200)] claim_grace: u32 = 60;
        /// Most claims under way at once in one worker.
        [range(1, 64)] claims: usize = 4;
        /// Milliseconds between two looks at an empty queue, shortly after something was there.
        [range(1, 60_000)] poll_min_ms: u64 = 20;
        /// Milliseconds between two looks at a queue that has been empty for long.
        [range(1, 60_000)] poll_max_ms: u64 = 200;
        /// Seconds for which a dead letter is kept. Zaqar takes no more than its own max_message_ttl.
        [range(60, 1_209_600)] dead_letter_ttl: u32 = 1_209_600;
    }
}
