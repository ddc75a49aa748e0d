//! `options!`: a group of options as a struct, with its defaults and with what the sample file says of each.

/// What the sample file says of one option.
#[derive(Clone, Debug)]
pub struct OptionHelp {
    /// Its name in the file.
    pub name: &'static str,
    /// Its type in words, as oslo.config writes it: `string value`, `integer value`, …
    pub kind: &'static str,
    /// The lines of its doc comment.
    pub help: &'static [&'static str],
    /// Its default as it would stand in the file; none: no default.
    pub default: Option<String>,
    /// Whether SIGHUP re-reads it.
    pub mutable: bool,
}

/// How a default is written into the sample, and what its type is called there.
pub trait OptionValue {
    /// The type in oslo.config's words.
    const KIND: &'static str;
    /// The value as it would stand in the file; none: unset.
    fn show(&self) -> Option<String>;
}

macro_rules! shown_by_display {
    ($($type:ty => $kind:literal),*) => {
        $(impl OptionValue for $type {
            const KIND: &'static str = $kind;
            fn show(&self) -> Option<String> {
                Some(self.to_string())
            }
        })*
    };
}
shown_by_display!(
    String => "string value",
    u16 => "integer value",
    u32 => "integer value",
    u64 => "integer value",
    usize => "integer value",
    f64 => "floating point value",
    bool => "boolean value"
);

impl<T: OptionValue> OptionValue for Option<T> {
    const KIND: &'static str = T::KIND;
    fn show(&self) -> Option<String> {
        self.as_ref().and_then(OptionValue::show)
    }
}

impl OptionValue for Vec<String> {
    const KIND: &'static str = "list value";
    fn show(&self) -> Option<String> {
        Some(self.join(","))
    }
}

/// Makes a group of options. `mutable` before a name marks what SIGHUP re-reads.
macro_rules! options {
    (
        $(#[doc = $group_doc:literal])*
        $name:ident in $group:literal {
            $( $(#[doc = $doc:literal])* $([$mutable:ident])? $field:ident : $type:ty = $default:expr ; )*
        }
    ) => {
        $(#[doc = $group_doc])*
        #[derive(Clone, Debug, PartialEq, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $( $(#[doc = $doc])* pub $field: $type, )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )* }
            }
        }

        impl $name {
            /// The group's name in the file.
            pub const GROUP: &'static str = $group;

            /// What the sample says of the group.
            pub const HELP: &'static [&'static str] = &[$($group_doc),*];

            /// What the sample says of each option.
            #[must_use]
            pub fn help() -> Vec<$crate::config::OptionHelp> {
                use $crate::config::macros::OptionValue as _;
                let defaults = Self::default();
                vec![ $( $crate::config::OptionHelp {
                    name: stringify!($field),
                    kind: <$type as $crate::config::macros::OptionValue>::KIND,
                    help: &[$($doc),*],
                    default: defaults.$field.show(),
                    mutable: options!(@mutable $($mutable)?),
                }, )* ]
            }
        }
    };
    (@mutable mutable) => { true };
    (@mutable) => { false };
}
