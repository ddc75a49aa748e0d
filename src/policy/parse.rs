//! Check strings: the language of policy files. What cannot be understood becomes a check that does not hold, as in
//! oslo.policy, and is told, so that it can be logged.

use serde_json::Value;

use super::check::{Check, Template};

/// How deep parentheses and `not` may stand in each other.
const DEPTH_MAX: usize = 100;

/// A check and what of its text could not be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The check.
    pub check: Check,
    /// What is wrong, if something is. Some of it makes the whole check refuse, some only a part.
    pub complaint: Option<String>,
}

/// Why the value of a rule is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoRule(pub(super) &'static str);

/// Reads the value of a rule in a file: a text, or the older list of alternatives, each a check or a list of checks that
/// must all hold.
///
/// # Errors
/// When it is neither. (oslo.policy takes nothing at all, as YAML has it behind `name:`, for permission to everybody.)
pub fn value(value: &Value) -> Result<Parsed, NoRule> {
    const NEITHER: NoRule = NoRule("must be a text or a list of texts; write \"\" for what everybody may");
    match value {
        Value::String(text) => parse(text),
        Value::Array(alternatives) => {
            let mut notes = Notes::default();
            let mut one = |value: &Value| {
                let text = value.as_str().ok_or(NEITHER)?;
                Ok(single(text, &mut notes))
            };
            let mut any = Vec::new();
            for alternative in alternatives {
                match alternative {
                    Value::Array(checks) if checks.is_empty() => {}
                    Value::Array(checks) => {
                        let mut all = checks.iter().map(&mut one).collect::<Result<Vec<_>, NoRule>>()?;
                        any.push(if all.len() == 1 { all.remove(0) } else { Check::And(all) });
                    }
                    Value::String(text) if text.is_empty() => {}
                    Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
                        any.push(one(alternative)?);
                    }
                }
            }
            let check = if alternatives.is_empty() {
                Check::True
            } else if any.is_empty() {
                Check::False
            } else if any.len() == 1 {
                any.remove(0)
            } else {
                Check::Or(any)
            };
            notes.with(check)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Err(NEITHER),
    }
}

/// Reads a check string.
///
/// # Errors
/// When it wants to ask a server: that is not built.
pub fn parse(text: &str) -> Result<Parsed, NoRule> {
    if text.is_empty() {
        return Ok(Parsed { check: Check::True, complaint: None });
    }
    let mut notes = Notes::default();
    let tokens = tokens(text, &mut notes);
    let mut reading = Reading { tokens: &tokens, depth: 0 };
    let check = match reading.any() {
        Some(check) if reading.tokens.is_empty() => check,
        Some(_) | None => {
            notes.complaint = Some(format!("'{text}' cannot be understood and refuses everybody"));
            Check::False
        }
    };
    notes.with(check)
}

/// What is found on the way.
#[derive(Default)]
struct Notes {
    complaint: Option<String>,
    asks_a_server: bool,
}

impl Notes {
    fn with(self, check: Check) -> Result<Parsed, NoRule> {
        if self.asks_a_server {
            return Err(NoRule("asks a server (http: or https:), which this service does not do"));
        }
        Ok(Parsed { check, complaint: self.complaint })
    }
}

#[derive(Clone, Debug)]
enum Token {
    Open,
    Close,
    And,
    Or,
    Not,
    /// A text in quotes: it has no place in the language.
    Quoted,
    Check(Check),
}

/// Parentheses at the ends of a word belong to the language; those inside, as in `%(name)s`, to the check.
fn tokens(text: &str, notes: &mut Notes) -> Vec<Token> {
    let mut tokens = Vec::new();
    // Python's white space has four control characters more than Unicode's.
    let between = |c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c);
    for word in text.split(between).filter(|word| !word.is_empty()) {
        let inner = word.trim_start_matches('(');
        tokens.extend(std::iter::repeat_n(Token::Open, word.len() - inner.len()));
        if inner.is_empty() {
            continue;
        }
        let clean = inner.trim_end_matches(')');
        let quoted = |quote: char| inner.len() >= 2 && inner.starts_with(quote) && inner.ends_with(quote);
        match clean.to_lowercase().as_str() {
            "and" => tokens.push(Token::And),
            "or" => tokens.push(Token::Or),
            "not" => tokens.push(Token::Not),
            "" => {}
            _ if quoted('\'') || quoted('"') => tokens.push(Token::Quoted),
            _ => tokens.push(Token::Check(single(clean, notes))),
        }
        tokens.extend(std::iter::repeat_n(Token::Close, inner.len() - clean.len()));
    }
    tokens
}

/// `or` binds least, then `and`, then `not`.
struct Reading<'a> {
    tokens: &'a [Token],
    depth: usize,
}

impl Reading<'_> {
    fn next(&mut self) -> Option<&Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first)
    }

    fn any(&mut self) -> Option<Check> {
        let first = self.all()?;
        let mut checks = vec![first];
        while let Some(Token::Or) = self.tokens.first() {
            self.next();
            checks.push(self.all()?);
        }
        if checks.len() == 1 { checks.pop() } else { Some(Check::Or(checks)) }
    }

    fn all(&mut self) -> Option<Check> {
        let first = self.one()?;
        let mut checks = vec![first];
        while let Some(Token::And) = self.tokens.first() {
            self.next();
            checks.push(self.one()?);
        }
        if checks.len() == 1 { checks.pop() } else { Some(Check::And(checks)) }
    }

    fn one(&mut self) -> Option<Check> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return None;
        }
        let check = match self.next()? {
            Token::Check(check) => Some(check.clone()),
            Token::Not => self.one().map(|check| Check::Not(Box::new(check))),
            Token::Open => {
                let check = self.any()?;
                matches!(self.next()?, Token::Close).then_some(check)
            }
            Token::Close | Token::And | Token::Or | Token::Quoted => None,
        };
        self.depth -= 1;
        check
    }
}

/// One check: `kind:match`.
fn single(text: &str, notes: &mut Notes) -> Check {
    match text {
        "!" => return Check::False,
        "@" => return Check::True,
        _ => {}
    }
    let Some((kind, matched)) = text.split_once(':') else {
        notes.complaint = Some(format!("'{text}' is no check and never holds"));
        return Check::False;
    };
    match kind {
        "rule" => Check::Rule(matched.to_owned()),
        "role" => Check::Role(Template::parse(matched)),
        "http" | "https" => {
            notes.asks_a_server = true;
            Check::False
        }
        _ => match left_side(kind) {
            Left::Literal(literal) => Check::Literal(literal, Template::parse(matched)),
            Left::Path(path) => Check::Attribute(path, Template::parse(matched)),
            Left::Broken => {
                notes.complaint = Some(format!("'{text}' cannot be evaluated and refuses everybody"));
                Check::Broken(Template::parse(matched))
            }
        },
    }
}

enum Left {
    Literal(String),
    Path(Vec<String>),
    Broken,
}

/// Words that are no name to Python, so that oslo.policy fails on them.
const KEYWORDS: [&str; 35] = [
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue", "def", "del",
    "elif", "else", "except", "finally", "for", "from", "global", "if", "import", "in", "is", "lambda", "nonlocal",
    "not", "or", "pass", "raise", "return", "try", "while", "with", "yield",
];

/// What stands before the colon: a literal as Python knows it, or else the path of an attribute.
fn left_side(kind: &str) -> Left {
    if matches!(kind, "True" | "False" | "None") {
        return Left::Literal(kind.to_owned());
    }
    for quote in ['\'', '"'] {
        let inner = kind.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
        if let Some(inner) = inner {
            // What is escaped is rare enough to be refused.
            let plain = !inner.contains([quote, '\\']);
            return if plain { Left::Literal(inner.to_owned()) } else { Left::Broken };
        }
    }
    if let Some(number) = number(kind) {
        return Left::Literal(number);
    }
    let name = |part: &str| {
        let mut characters = part.chars();
        characters.next().is_some_and(|c| c.is_alphabetic() || c == '_')
            && characters.all(|c| c.is_alphanumeric() || c == '_')
            && !KEYWORDS.contains(&part)
    };
    // A hyphen is a subtraction to Python, which is no literal, and so the path of an attribute.
    let part = |part: &str| part.split('-').all(name);
    if kind.split('.').all(part) {
        return Left::Path(kind.split('.').map(str::to_owned).collect());
    }
    Left::Broken
}

/// A number as Python writes it again.
fn number(text: &str) -> Option<String> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let negative = text.starts_with('-');
    let whole = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let sign = if negative { "-" } else { "" };
    if whole(digits) {
        let zeros = digits.bytes().all(|b| b == b'0');
        return match (zeros, digits.starts_with('0')) {
            (true, _) => Some("0".to_owned()),
            (false, true) => None,
            (false, false) => Some(format!("{sign}{digits}")),
        };
    }
    let (before, after) = digits.split_once('.')?;
    let canonical = whole(before)
        && whole(after)
        && (before == "0" || !before.starts_with('0'))
        && (after == "0" || !after.ends_with('0'))
        && digits.len() <= 15
        && !digits.starts_with("0.0000");
    canonical.then(|| format!("{sign}{digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_understood_refuses_and_is_told() {
        for text in ["role:a and", "(role:a", "role:a)", "role:a role:b", "'a':'b'", " ", "and", "not", "()"] {
            let parsed = parse(text).unwrap();
            assert_eq!(parsed.check, Check::False, "{text}");
            assert!(parsed.complaint.is_some(), "{text}");
        }
        assert!(parse("is:x").unwrap().complaint.is_some());
        assert!(parse("member").unwrap().complaint.is_some());
    }

    #[test]
    fn the_parenthesis_after_a_check_closes_the_group() {
        let parsed = parse("(role:member and project_id:%(project_id)s) or rule:admin").unwrap();
        let Check::Or(alternatives) = parsed.check else { panic!("{parsed:?}") };
        assert!(matches!(&alternatives[0], Check::And(checks) if checks.len() == 2));
        assert_eq!(alternatives[1], Check::Rule("admin".to_owned()));
    }

    #[test]
    fn nothing_at_all_is_no_permission() {
        for text in ["null", "true", "0", "{}", "[1]", "[[null]]", "[\"http://policy.example/\"]"] {
            assert!(value(&serde_json::from_str(text).unwrap()).is_err(), "{text}");
        }
        assert!(parse("role:a and http://policy.example/").is_err());
    }

    #[test]
    fn depth_is_bounded() {
        let text = |depth| format!("{}role:a{}", "(".repeat(depth), ")".repeat(depth));
        assert!(matches!(parse(&text(90)).unwrap().check, Check::Role(_)));
        assert_eq!(parse(&text(200_000)).unwrap().check, Check::False);
        assert_eq!(parse(&("not ".repeat(200_000) + "role:a")).unwrap().check, Check::False);
    }
}
