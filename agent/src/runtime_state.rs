//! The states of a runtime client and what each request of the Runtime API does to them. Pure: no I/O, no clock; what is
//! said on the connection is in `runtime_api`.
//!
//! One event at a time, as the contract of ordinary functions has it.

/// Where a runtime stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuntimeState {
    /// It has asked for nothing yet.
    Started,
    /// It has reported that it cannot initialise.
    InitFailed,
    /// It waits for an event.
    Ready,
    /// It has the event with this request id.
    Running(String),
    /// It has answered the event with this request id.
    Responded(String),
}

/// What happens to a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// It asks for an event.
    Next,
    /// It is given the event with this request id. Ours, not the client's.
    Deliver(&'a str),
    /// It posts the response to this request id.
    Respond(&'a str),
    /// It posts an error for this request id.
    Fail(&'a str),
    /// It reports that it cannot initialise.
    FailInit,
}

/// What a step is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The step is taken.
    Accepted,
    /// The client waits until there is an event.
    Wait,
    /// The client is given the event again that it already has.
    Again,
    /// The request id is not that of the event at hand.
    InvalidRequestId,
    /// The step is not allowed here; the names are those that AWS uses in its message.
    InvalidTransition {
        /// The state's name.
        from: &'static str,
        /// The name of the state that the step would lead to.
        to: &'static str,
    },
}

impl RuntimeState {
    /// The state's name in error messages.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Started => "RuntimeStarted",
            Self::InitFailed => "RuntimeInitError",
            Self::Ready => "RuntimeReady",
            Self::Running(_) => "RuntimeRunning",
            Self::Responded(_) => "RuntimeResponseSent",
        }
    }

    /// Takes a step, or refuses it and stays. Request ids are judged before states.
    #[must_use]
    pub fn apply(self, step: Step<'_>) -> (Self, Verdict) {
        let refused = |state: Self| {
            let verdict = Verdict::InvalidTransition { from: state.name(), to: step.leads_to() };
            (state, verdict)
        };
        match (self, step) {
            (Self::Started | Self::Ready | Self::Responded(_), Step::Next) => (Self::Ready, Verdict::Wait),
            (state @ Self::Running(_), Step::Next) => (state, Verdict::Again),
            (state @ Self::InitFailed, Step::Next) => refused(state),

            (Self::Ready, Step::Deliver(id)) => (Self::Running(id.to_owned()), Verdict::Accepted),
            (state @ (Self::Started | Self::InitFailed | Self::Running(_) | Self::Responded(_)), Step::Deliver(_)) => {
                refused(state)
            }

            (Self::Running(at_hand), Step::Respond(id) | Step::Fail(id)) if at_hand == id => {
                (Self::Responded(at_hand), Verdict::Accepted)
            }
            (Self::Responded(at_hand), Step::Respond(id) | Step::Fail(id)) if at_hand == id => {
                refused(Self::Responded(at_hand))
            }
            (state, Step::Respond(_) | Step::Fail(_)) => (state, Verdict::InvalidRequestId),

            (Self::Started, Step::FailInit) => (Self::InitFailed, Verdict::Accepted),
            (state @ (Self::InitFailed | Self::Ready | Self::Running(_) | Self::Responded(_)), Step::FailInit) => {
                refused(state)
            }
        }
    }
}

impl Step<'_> {
    const fn leads_to(&self) -> &'static str {
        match self {
            Self::Next => "RuntimeReady",
            Self::Deliver(_) => "RuntimeRunning",
            Self::Respond(_) => "InvocationResponse",
            Self::Fail(_) => "InvocationErrorResponse",
            Self::FailInit => "RuntimeInitError",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn walk(steps: &[Step<'_>]) -> (RuntimeState, Vec<Verdict>) {
        let mut state = RuntimeState::Started;
        let mut verdicts = Vec::new();
        for step in steps {
            let (next, verdict) = state.apply(*step);
            state = next;
            verdicts.push(verdict);
        }
        (state, verdicts)
    }

    #[test]
    fn a_runtime_handles_one_event_after_the_other() {
        let (state, verdicts) = walk(&[
            Step::Next,
            Step::Deliver("1"),
            Step::Respond("1"),
            Step::Next,
            Step::Deliver("2"),
            Step::Fail("2"),
            Step::Next,
        ]);
        assert_eq!(state, RuntimeState::Ready);
        use Verdict::{Accepted, Wait};
        assert_eq!(verdicts, [Wait, Accepted, Accepted, Wait, Accepted, Accepted, Wait]);
    }

    #[test]
    fn the_same_event_is_given_again_to_a_client_that_asks_twice() {
        let (state, verdicts) = walk(&[Step::Next, Step::Deliver("1"), Step::Next]);
        assert_eq!((state, verdicts[2]), (RuntimeState::Running("1".to_owned()), Verdict::Again));
    }

    #[test]
    fn a_second_answer_is_an_invalid_transition_and_a_foreign_id_is_judged_first() {
        let (_, verdicts) = walk(&[
            Step::Respond("1"),
            Step::Next,
            Step::Respond("1"),
            Step::Deliver("1"),
            Step::Respond("2"),
            Step::Respond("1"),
            Step::Respond("1"),
            Step::Fail("1"),
            Step::Fail("2"),
            Step::FailInit,
        ]);
        let refused = |to| Verdict::InvalidTransition { from: "RuntimeResponseSent", to };
        assert_eq!(verdicts[0], Verdict::InvalidRequestId);
        assert_eq!(verdicts[2], Verdict::InvalidRequestId);
        assert_eq!(verdicts[4], Verdict::InvalidRequestId);
        assert_eq!(verdicts[6], refused("InvocationResponse"));
        assert_eq!(verdicts[7], refused("InvocationErrorResponse"));
        assert_eq!(verdicts[8], Verdict::InvalidRequestId);
        assert_eq!(verdicts[9], refused("RuntimeInitError"));
    }

    #[test]
    fn init_may_fail_once_and_only_before_the_first_event_is_asked_for() {
        let (state, verdicts) = walk(&[Step::FailInit, Step::FailInit, Step::Next]);
        assert_eq!(state, RuntimeState::InitFailed);
        assert_eq!(verdicts[0], Verdict::Accepted);
        assert!(matches!(verdicts[1], Verdict::InvalidTransition { .. }));
        assert!(matches!(verdicts[2], Verdict::InvalidTransition { .. }));
    }

    fn any_step() -> impl Strategy<Value = Step<'static>> {
        let id = prop::sample::select(vec!["1", "2"]);
        prop_oneof![
            Just(Step::Next),
            Just(Step::FailInit),
            id.clone().prop_map(Step::Deliver),
            id.clone().prop_map(Step::Respond),
            id.prop_map(Step::Fail),
        ]
    }

    proptest! {
        #[test]
        fn whatever_a_client_does_each_delivered_event_is_answered_at_most_once(
            steps in prop::collection::vec(any_step(), 0..60)
        ) {
            let mut state = RuntimeState::Started;
            let mut open = None;
            for step in steps {
                let before = state.clone();
                let (after, verdict) = state.apply(step);
                match (step, verdict) {
                    (Step::Deliver(id), Verdict::Accepted) => {
                        prop_assert_eq!(open, None);
                        open = Some(id);
                    }
                    (Step::Respond(id) | Step::Fail(id), Verdict::Accepted) => {
                        prop_assert_eq!(open, Some(id));
                        open = None;
                    }
                    (_, Verdict::InvalidRequestId | Verdict::InvalidTransition { .. } | Verdict::Again) => {
                        prop_assert_eq!(&before, &after);
                    }
                    _ => {}
                }
                prop_assert_eq!(matches!(after, RuntimeState::Running(_)), open.is_some());
                state = after;
            }
        }
    }
}
