//! What is known of an option besides its value: how it is called, written, read, checked and explained.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::check::Form;
use super::load::Reader;

/// What is known of one option.
#[derive(Clone, Debug)]
pub struct OptionHelp {
    /// Its name in the file.
    pub name: &'static str,
    /// Its type in words, as oslo.config writes it: `string value`, `integer value`, …
    pub kind: &'static str,
    /// How its text becomes a value.
    pub shape: Shape,
    /// The lines of its doc comment.
    pub help: &'static [&'static str],
    /// Its default in words; none: no default.
    pub default: Option<String>,
    /// Whether SIGHUP re-reads it.
    pub mutable: bool,
    /// Whether its value is kept out of logs and messages.
    pub secret: bool,
    /// Smallest and largest number, both allowed.
    pub range: Option<(f64, f64)>,
    /// What its text, or each element of its list, must look like.
    pub form: Option<Form>,
}

impl OptionHelp {
    /// An option without further rules.
    #[must_use]
    pub fn new<T: OptionValue>(name: &'static str, help: &'static [&'static str], default: &T) -> Self {
        Self {
            name,
            kind: T::KIND,
            shape: T::SHAPE,
            help,
            default: default.show(),
            mutable: false,
            secret: false,
            range: None,
            form: None,
        }
    }

    /// SIGHUP re-reads it.
    #[must_use]
    pub const fn mutable(mut self) -> Self {
        self.mutable = true;
        self
    }

    /// Its value is never shown.
    #[must_use]
    pub const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// It is a number from `min` to `max`.
    #[must_use]
    pub fn range(mut self, min: impl Into<f64>, max: impl Into<f64>) -> Self {
        self.range = Some((min.into(), max.into()));
        self
    }

    /// It, or each element of it, looks like this.
    #[must_use]
    pub const fn form(mut self, form: Form) -> Self {
        self.form = Some(form);
        self
    }

    /// Checks the elements of a value.
    ///
    /// # Errors
    /// What was expected instead, in words.
    pub fn check(&self, elements: &[String]) -> Result<(), String> {
        let in_range = |text: &String| match (self.range, text.parse::<f64>()) {
            (Some((min, max)), Ok(number)) => (min..=max).contains(&number),
            (Some(_), Err(_)) => false,
            (None, _) => true,
        };
        let in_form = |text: &String| self.form.is_none_or(|form| form.accepts(text));
        if elements.iter().all(|text| in_range(text) && in_form(text)) { Ok(()) } else { Err(self.expected()) }
    }

    /// What a value has to be, in words.
    #[must_use]
    pub fn expected(&self) -> String {
        let one = match (self.form, self.range) {
            (Some(form), _) => form.to_string(),
            (None, Some((min, max))) => format!("{} from {min} to {max}", self.shape.noun()),
            (None, None) => self.shape.noun().to_owned(),
        };
        match (self.shape, self.form) {
            (Shape::List | Shape::Multi, Some(_)) => format!("a list in which each element is {one}"),
            _ => one,
        }
    }

    /// A value of it as logs and messages may show it.
    #[must_use]
    pub fn masked<'a>(&self, value: &'a str) -> &'a str {
        if self.secret { MASK } else { value }
    }
}

/// What stands in the place of a secret, as in oslo.config's logs.
pub const MASK: &str = "****";

/// How the text of an option becomes its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// It is taken as it is.
    Text,
    /// yes/no, true/false, on/off, 1/0, in any case.
    Flag,
    /// A whole number; leading zeros mean nothing.
    Integer,
    /// A number.
    Float,
    /// Elements between commas, without the space around them.
    List,
    /// `key:value` pairs between commas.
    Map,
    /// Every assignment of the key is one element.
    Multi,
}

impl Shape {
    const fn noun(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Flag => "true or false (or yes/no, on/off, 1/0)",
            Self::Integer => "a whole number",
            Self::Float => "a number",
            Self::List => "a list with commas between its elements",
            Self::Map => "key:value pairs with commas between them, no key twice",
            Self::Multi => "a text; the option may be given more than once",
        }
    }
}

/// A type that an option can have.
pub trait OptionValue: Clone + PartialEq + DeserializeOwned {
    /// The type in oslo.config's words.
    const KIND: &'static str;
    /// How its text is read.
    const SHAPE: Shape;

    /// The value as texts: one, or one for each element; none: unset.
    fn elements(&self) -> Option<Vec<String>>;

    /// The value in one text, as it would stand in the file; none: unset.
    fn show(&self) -> Option<String> {
        self.elements().map(|elements| elements.join(","))
    }
}

macro_rules! shown_by_display {
    ($($type:ty => $kind:literal, $shape:ident);*) => {
        $(impl OptionValue for $type {
            const KIND: &'static str = $kind;
            const SHAPE: Shape = Shape::$shape;
            fn elements(&self) -> Option<Vec<String>> {
                Some(vec![self.to_string()])
            }
        })*
    };
}
shown_by_display!(
    String => "string value", Text;
    u16 => "integer value", Integer;
    u32 => "integer value", Integer;
    u64 => "integer value", Integer;
    usize => "integer value", Integer;
    i64 => "integer value", Integer;
    f64 => "floating point value", Float;
    bool => "boolean value", Flag
);

impl<T: OptionValue> OptionValue for Option<T> {
    const KIND: &'static str = T::KIND;
    const SHAPE: Shape = T::SHAPE;
    fn elements(&self) -> Option<Vec<String>> {
        self.as_ref().and_then(OptionValue::elements)
    }
}

impl OptionValue for Vec<String> {
    const KIND: &'static str = "list value";
    const SHAPE: Shape = Shape::List;
    fn elements(&self) -> Option<Vec<String>> {
        Some(self.clone())
    }
}

impl OptionValue for BTreeMap<String, String> {
    const KIND: &'static str = "dict value";
    const SHAPE: Shape = Shape::Map;
    fn elements(&self) -> Option<Vec<String>> {
        Some(self.iter().map(|(key, value)| format!("{key}:{value}")).collect())
    }
}

/// An option that may be given more than once, each time with one more value: oslo's `MultiStrOpt`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Multi(pub Vec<String>);

impl OptionValue for Multi {
    const KIND: &'static str = "multi valued";
    const SHAPE: Shape = Shape::Multi;
    fn elements(&self) -> Option<Vec<String>> {
        Some(self.0.clone())
    }
}

/// A group of options: what `options!` makes of a struct.
pub trait Group: Clone + Default + PartialEq + fmt::Debug {
    /// The group's name in the file.
    const GROUP: &'static str;
    /// The lines of its doc comment.
    const HELP: &'static [&'static str];

    /// What is known of each option, in the order of the struct.
    fn help() -> Vec<OptionHelp>;

    /// The values in words, in the order of [`Self::help`]; none: unset.
    fn show(&self) -> Vec<Option<String>>;

    /// Reads the group; what is wrong is noted in the reader, and the default stands in for it.
    fn read(reader: &mut Reader<'_>) -> Self;

    /// Takes over what differs in `newer` and may change while the program runs.
    fn adopt(&mut self, newer: &Self, differences: &mut Differences);
}

/// What a reload found changed, as `group.option`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// These hold from now on.
    pub taken: Vec<String>,
    /// These need a restart.
    pub waiting: Vec<String>,
}

impl Differences {
    /// Notes one that differs.
    pub fn note(&mut self, group: &str, help: &OptionHelp) {
        let list = if help.mutable { &mut self.taken } else { &mut self.waiting };
        list.push(format!("{group}.{}", help.name));
    }
}
