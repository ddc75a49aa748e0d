//! A check: what a check string says, as a tree, and whether it holds for a caller and a target.
//!
//! Whether a check holds is what oslo.policy would say. Where oslo.policy fails with an exception instead, which its
//! callers see as a refusal of the whole request, evaluation ends with [`Unusable`]: a `not` around the failing part must
//! not turn it into permission.

use serde_json::{Map, Value};

/// Attributes of a target or of a caller.
pub type Attributes = Map<String, Value>;

/// A check cannot be evaluated for what it is given. It is a refusal, whatever stands around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unusable;

/// The tree of a check string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// `@`, or an empty text: holds.
    True,
    /// `!`, or what cannot be understood: does not hold.
    False,
    /// `not …`.
    Not(Box<Check>),
    /// All of them.
    And(Vec<Check>),
    /// One of them.
    Or(Vec<Check>),
    /// `rule:name`: as that rule.
    Rule(String),
    /// `role:name`: the caller has the role, in upper or lower case.
    Role(Template),
    /// `'text':%(attribute)s`, `True:…`, `5:…`: the text is equal to what the template becomes.
    Literal(String, Template),
    /// `user_id:%(user_id)s`, `token.roles.name:x`: an attribute of the caller, found by its path, is equal to what the
    /// template becomes. A list on the way is searched.
    Attribute(Vec<String>, Template),
    /// What oslo.policy only finds out to be wrong when it is asked, after it has filled the template.
    Broken(Template),
}

/// A text with `%(attribute)s` in it, which stands for an attribute of the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Attribute(String),
    Malformed,
}

impl Template {
    /// Reads a text. What is malformed in it shows when it is used.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once('%') {
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            if let Some(after) = after.strip_prefix('%') {
                pieces.push(Piece::Text("%".to_owned()));
                rest = after;
            } else if let Some((name, after)) = named(after) {
                pieces.push(Piece::Attribute(name.to_owned()));
                rest = after;
            } else {
                pieces.push(Piece::Malformed);
                return Self(pieces);
            }
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Self(pieces)
    }

    /// The text for a target; none when an attribute is not there or is no single value, so that nothing is equal to it.
    fn fill(&self, target: &Attributes) -> Result<Option<String>, Unusable> {
        let mut filled = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Attribute(name) => match target.get(name).and_then(text_of) {
                    Some(text) => filled.push_str(&text),
                    None => return Ok(None),
                },
                Piece::Malformed => return Err(Unusable),
            }
        }
        Ok(Some(filled))
    }
}

/// The name in `(name)s`, parentheses in it being in pairs, and what follows.
fn named(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('(')?;
    let mut depth = 1_usize;
    for (place, c) in inner.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((&inner[..place], inner[place + 1..].strip_prefix('s')?));
        }
    }
    None
}

/// A single value as Python writes it; none for what has parts.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some("None".to_owned()),
        Value::Bool(true) => Some("True".to_owned()),
        Value::Bool(false) => Some("False".to_owned()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

impl Check {
    /// Whether it holds. `rule` finds the check of a name; rules that lead back to themselves must not be given.
    ///
    /// # Errors
    /// When it cannot be evaluated: a refusal.
    pub fn holds<'a>(
        &'a self,
        target: &Attributes,
        caller: &Attributes,
        rule: &impl Fn(&str) -> Option<&'a Check>,
    ) -> Result<bool, Unusable> {
        match self {
            Self::True => Ok(true),
            Self::False => Ok(false),
            Self::Broken(template) => match template.fill(target)? {
                Some(_) => Err(Unusable),
                None => Ok(false),
            },
            Self::Not(check) => check.holds(target, caller, rule).map(|holds| !holds),
            Self::And(checks) => {
                for check in checks {
                    if !check.holds(target, caller, rule)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Self::Or(checks) => {
                for check in checks {
                    if check.holds(target, caller, rule)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Self::Rule(name) => match rule(name) {
                Some(check) => check.holds(target, caller, rule),
                None => Ok(false),
            },
            Self::Role(template) => {
                let Some(wanted) = template.fill(target)? else { return Ok(false) };
                let Some(roles) = caller.get("roles") else { return Ok(false) };
                let roles = roles.as_array().ok_or(Unusable)?;
                let names = roles.iter().map(|role| role.as_str().map(str::to_lowercase).ok_or(Unusable));
                let names = names.collect::<Result<Vec<_>, _>>()?;
                Ok(names.contains(&wanted.to_lowercase()))
            }
            Self::Literal(text, template) => Ok(template.fill(target)?.is_some_and(|filled| filled == *text)),
            Self::Attribute(path, template) => match (template.fill(target)?, path.split_first()) {
                (Some(wanted), Some((first, rest))) => match caller.get(first) {
                    Some(value) => leads_to(value, rest, &wanted),
                    None => Ok(false),
                },
                (None, _) | (_, None) => Ok(false),
            },
        }
    }

    /// The rules that it names, wherever.
    pub fn rules(&self, found: &mut Vec<String>) {
        match self {
            Self::Not(check) => check.rules(found),
            Self::And(checks) | Self::Or(checks) => checks.iter().for_each(|check| check.rules(found)),
            Self::Rule(name) => found.push(name.clone()),
            Self::True | Self::False | Self::Role(_) | Self::Literal(..) | Self::Attribute(..) | Self::Broken(_) => {}
        }
    }
}

/// Whether a path ends at the wanted text; of a list, one element's.
fn leads_to(value: &Value, path: &[String], wanted: &str) -> Result<bool, Unusable> {
    if let Value::Array(elements) = value {
        for element in elements {
            if step(element, path, wanted)? {
                return Ok(true);
            }
        }
        return Ok(false);
    }
    step(value, path, wanted)
}

fn step(value: &Value, path: &[String], wanted: &str) -> Result<bool, Unusable> {
    let Some((first, rest)) = path.split_first() else {
        return Ok(text_of(value).is_some_and(|text| text == wanted));
    };
    match value.as_object().ok_or(Unusable)?.get(first) {
        Some(next) => leads_to(next, rest, wanted),
        None => Ok(false),
    }
}
