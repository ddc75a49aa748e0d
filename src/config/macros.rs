//! `options!`: a group of options as a struct, with its defaults and with what is known of each.

/// Makes a group of options. In brackets before a name stand the rules of
/// [`OptionHelp`](crate::config::OptionHelp) that hold for it: `[mutable()]`, `[secret()]`, `[range(1, 64)]`,
/// `[form(Form::Address)]`, or several of them.
macro_rules! options {
    (
        $(#[doc = $group_doc:literal])*
        $name:ident in $group:literal {
            $(
                $(#[doc = $doc:literal])*
                $([ $( $rule:ident ( $($argument:expr),* ) ),+ ])?
                $field:ident : $type:ty = $default:expr ;
            )*
        }
    ) => {
        $(#[doc = $group_doc])*
        #[derive(Clone, PartialEq)]
        pub struct $name {
            $( $(#[doc = $doc])* pub $field: $type, )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )* }
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                use $crate::config::Group as _;
                let mut shown = f.debug_struct(stringify!($name));
                for (help, value) in Self::help().iter().zip(self.show()) {
                    shown.field(help.name, &value.as_deref().map(|value| help.masked(value)));
                }
                shown.finish()
            }
        }

        impl $crate::config::Group for $name {
            const GROUP: &'static str = $group;
            const HELP: &'static [&'static str] = &[$($group_doc),*];

            fn help() -> Vec<$crate::config::OptionHelp> {
                let defaults = Self::default();
                vec![ $(
                    $crate::config::OptionHelp::new(stringify!($field), &[$($doc),*], &defaults.$field)
                        $( $( .$rule($($argument),*) )+ )?,
                )* ]
            }

            fn show(&self) -> Vec<Option<String>> {
                use $crate::config::OptionValue as _;
                vec![ $( self.$field.show(), )* ]
            }

            fn read(reader: &mut $crate::config::Reader<'_>) -> Self {
                let defaults = Self::default();
                let mut help = Self::help().into_iter();
                Self { $( $field: reader.option($group, help.next(), defaults.$field), )* }
            }

            fn adopt(&mut self, newer: &Self, differences: &mut $crate::config::Differences) {
                let mut help = Self::help().into_iter();
                $(
                    if let Some(help) = help.next() && self.$field != newer.$field {
                        differences.note($group, &help);
                        if help.mutable {
                            self.$field = newer.$field.clone();
                        }
                    }
                )*
            }
        }
    };
}
