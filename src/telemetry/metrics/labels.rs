//! The words that labels may say, and the sets in which they stand.

use std::fmt::{self, Write as _};

use axum::http::Method;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

use crate::model::execution::{ExecutionState, Reason, Start, WaitingFor};
use crate::model::instance::Isolation;

macro_rules! words {
    ($( $(#[doc = $doc:literal])* $name:ident { $( $(#[doc = $word_doc:literal])* $word:ident = $text:literal ),* $(,)? } )*) => {
        $(
            $(#[doc = $doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
            pub enum $name {
                $( $(#[doc = $word_doc])* $word, )*
            }

            impl $name {
                /// The word as it stands in labels, logs and documents.
                #[must_use]
                pub const fn as_str(self) -> &'static str {
                    match self {
                        $( Self::$word => $text, )*
                    }
                }
            }

            impl EncodeLabelValue for $name {
                fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
                    encoder.write_str(self.as_str())
                }
            }
        )*
    };
}

words! {
    /// Why a message or an event went to a dead letter queue.
    DeadLetterReason {
        /// It is no event.
        InvalidEvent = "invalid_event",
        /// No trigger matches it.
        NoTrigger = "no_trigger",
        /// It lay on the platform queue, but the service had not posted it.
        UntrustedPoster = "untrusted_poster",
        /// Its execution was given up.
        GivenUp = "given_up",
    }

    /// Why a sandbox ended.
    SandboxEnd {
        /// Nothing had come for `keep_alive`.
        Idle = "idle",
        /// It made room for another function's sandbox.
        Evicted = "evicted",
        /// Its function was changed or deleted.
        Outdated = "outdated",
        /// Its handler ran into the timeout, or its owner cancelled what ran in it.
        Stopped = "stopped",
        /// Its process ended by itself.
        Exited = "exited",
        /// It reached its memory limit.
        OutOfMemory = "out_of_memory",
        /// It never became ready: package, import or start failed.
        InitFailed = "init_failed",
        /// Its instance was lost.
        InstanceLost = "instance_lost",
        /// The worker stopped.
        Shutdown = "shutdown",
        /// The fault is the platform's.
        Platform = "platform",
    }

    /// A service that we call.
    Service {
        /// Identity.
        Keystone = "keystone",
        /// Messages.
        Zaqar = "zaqar",
        /// Containers.
        Zun = "zun",
        /// Servers.
        Nova = "nova",
        /// Networks.
        Neutron = "neutron",
        /// Images.
        Glance = "glance",
        /// A worker's gateway, called by the API.
        Gateway = "gateway",
    }

    /// What the store said.
    StoreOutcome {
        /// It did what it was asked.
        Ok = "ok",
        /// No such document.
        NotFound = "not_found",
        /// The unique value is taken.
        Taken = "taken",
        /// The document had changed.
        Stale = "stale",
        /// The marker names nothing.
        BadMarker = "bad_marker",
        /// The database did not answer.
        Unavailable = "unavailable",
        /// The database answered something unexpected.
        Unexpected = "unexpected",
        /// The caller went away before the answer.
        Abandoned = "abandoned",
    }
}

/// How a call to another service ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallStatus {
    /// With this HTTP status.
    Answered(u16),
    /// Not within its time.
    TimedOut,
    /// Without an answer: no connection, or one that broke.
    Unreachable,
}

impl EncodeLabelValue for CallStatus {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::Answered(status) => write!(encoder, "{status}"),
            Self::TimedOut => encoder.write_str("timed_out"),
            Self::Unreachable => encoder.write_str("unreachable"),
        }
    }
}

/// A model's word as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct StateLabel(pub(super) ExecutionState);

impl EncodeLabelValue for StateLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(self.0.as_str())
    }
}

/// A model's word as a label; `none` where nothing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ReasonLabel(pub(super) Option<Reason>);

impl EncodeLabelValue for ReasonLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        match self.0 {
            Some(reason) => encoder.write_str(&reason.to_string()),
            None => encoder.write_str("none"),
        }
    }
}

/// A model's word as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum StartLabel {
    Cold,
    Warm,
}

impl From<Start> for StartLabel {
    fn from(start: Start) -> Self {
        match start {
            Start::Cold => Self::Cold,
            Start::Warm => Self::Warm,
        }
    }
}

impl EncodeLabelValue for StartLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
        })
    }
}

/// A model's word as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct IsolationLabel(pub(super) Isolation);

impl EncodeLabelValue for IsolationLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(self.0.as_str())
    }
}

/// A model's word as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct WaitingForLabel(pub(super) WaitingFor);

impl EncodeLabelValue for WaitingForLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(self.0.as_str())
    }
}

/// The name of a method; callers may invent methods, labels may not.
pub(super) fn method_name(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

macro_rules! sets {
    ($( $name:ident { $( $field:ident : $type:ty ),* } )*) => {
        $(
            #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
            pub(super) struct $name {
                $( pub(super) $field: $type, )*
            }
        )*
    };
}

sets! {
    Build { program: String, version: String }
    DeadLetter { reason: DeadLetterReason }
    Started { kind: StartLabel }
    Outcome { state: StateLabel, reason: ReasonLabel }
    Ended { reason: SandboxEnd }
    BootFailed { isolation: IsolationLabel, waiting_for: WaitingForLabel }
    StoreCall { operation: &'static str, outcome: StoreOutcome }
    ExternalCall { service: Service, operation: &'static str, status: CallStatus }
    Request { method: &'static str, route: String, status: u16 }
    Task { task: &'static str }
}
