//! Sources as a figment provider: every option that somebody set, by precedence, with its references replaced.
//!
//! Values stay texts, or lists and maps of texts; figment's lossy extraction makes numbers and flags of them. Where each
//! came from is kept beside them, for messages.

use std::collections::BTreeMap;

use figment::value::{Dict, Empty, Map, Value};
use figment::{Metadata, Profile, Provider};

use super::error::{Origin, Problem, nearest};
use super::option::{OptionHelp, Shape};
use super::sources::{Located, Sources};
use super::{GroupHelp, foreign, ini, substitute};

/// Group and option, as they are written in code.
type Name = (&'static str, &'static str);

/// All that is set, resolved. A provider for figment, and the memory of where values came from.
pub(super) struct Resolved {
    values: BTreeMap<Name, Vec<Located>>,
    shapes: BTreeMap<Name, Shape>,
    /// Options that are accepted and not read, as `group.option (origin)`.
    pub(super) unread: Vec<String>,
}

impl Resolved {
    /// Reads all sources and resolves what they set. What is wrong is noted; the rest is resolved all the same.
    pub(super) fn read(sources: &Sources, known: &[(GroupHelp, Vec<OptionHelp>)], problems: &mut Vec<Problem>) -> Self {
        let mut raw = Raw { known, values: BTreeMap::new(), others: BTreeMap::new(), unread: Vec::new() };
        let mut unknown_groups = Vec::new();
        for entry in sources.file_entries(problems) {
            let at = entry.value.origin.clone();
            match raw.find(&entry.group, &entry.option) {
                Found::Ours(name, Shape::Multi) => raw.values.entry(name).or_default().push(entry.value),
                Found::Ours(name, _) => {
                    raw.values.insert(name, vec![entry.value]);
                }
                Found::Others => raw.keep_other(&entry.group, entry.option, entry.value),
                Found::NoOption(nearest) => problems.push(Problem::UnknownOption {
                    origin: at,
                    group: entry.group,
                    option: entry.option,
                    nearest,
                }),
                // Once a group and file is enough.
                Found::NoGroup(_) if unknown_groups.contains(&(entry.group.clone(), file_of(&at))) => {}
                Found::NoGroup(nearest) => {
                    unknown_groups.push((entry.group.clone(), file_of(&at)));
                    problems.push(Problem::UnknownGroup { origin: at, group: entry.group, nearest });
                }
            }
        }
        for mut entry in sources.environment() {
            if let Some((known, _)) = raw.group(&entry.group) {
                known.name.clone_into(&mut entry.group);
            }
            match raw.find(&entry.group, &entry.option) {
                Found::Ours(name, _) => {
                    raw.values.insert(name, vec![entry.value]);
                }
                // Variables of groups that are not ours belong to other programs of this environment.
                Found::Others | Found::NoGroup(_) => {}
                Found::NoOption(nearest) => problems.push(Problem::UnknownOption {
                    origin: entry.value.origin,
                    group: entry.group,
                    option: entry.option,
                    nearest,
                }),
            }
        }
        for (group, option, value) in sources.overrides() {
            raw.values.insert((group, option), vec![value.clone()]);
        }
        raw.resolve(problems)
    }

    /// Where the value of an option comes from.
    pub(super) fn origin(&self, group: &'static str, option: &'static str) -> Origin {
        let last = self.values.get(&(group, option)).and_then(|values| values.last());
        last.map_or(Origin::Default, |located| located.origin.clone())
    }

    /// The text of an option as it was resolved; none: nobody set it.
    pub(super) fn text(&self, group: &'static str, option: &'static str) -> Option<String> {
        let values = self.values.get(&(group, option))?;
        Some(values.iter().map(|located| located.text.as_str()).collect::<Vec<_>>().join(","))
    }
}

fn file_of(origin: &Origin) -> Option<std::path::PathBuf> {
    match origin {
        Origin::File { path, .. } => Some(path.clone()),
        Origin::Environment(_) | Origin::CommandLine(_) | Origin::Default => None,
    }
}

impl Provider for Resolved {
    fn metadata(&self) -> Metadata {
        Metadata::named("oslo-style configuration")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut groups = Dict::new();
        for ((group, option), values) in &self.values {
            let texts = || values.iter().map(|located| located.text.clone());
            let last = values.last().map_or("", |located| &located.text);
            let shape = self.shapes.get(&(*group, *option)).copied().unwrap_or(Shape::Text);
            let value = match shape {
                Shape::Text => Value::from(last),
                Shape::Flag => Value::from(ini::strip(last)),
                // An empty number is none in oslo.config.
                Shape::Integer | Shape::Float if ini::strip(last).is_empty() => Value::from(Empty::None),
                Shape::Integer => Value::from(ini::strip(last)),
                // Figment does not know 1e3.
                Shape::Float => {
                    let text = ini::strip(last);
                    text.parse::<f64>().map_or_else(|_| Value::from(text), Value::from)
                }
                Shape::List => Value::from(list(last)),
                Shape::Multi => Value::from(texts().collect::<Vec<_>>()),
                // What is no map stays a text, which figment then refuses.
                Shape::Map => map(last).map_or_else(|| Value::from(last), Value::from),
            };
            let entry = groups.entry((*group).to_owned()).or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, options) = entry {
                options.insert((*option).to_owned(), value);
            }
        }
        Ok(Profile::Default.collect(groups))
    }
}

/// The elements of a list: between commas, without the space around them; commas at the end mean nothing.
#[must_use]
pub fn list(text: &str) -> Vec<String> {
    let text = ini::strip(text).trim_end_matches(',');
    if text.is_empty() {
        return Vec::new();
    }
    text.split(',').map(|element| ini::strip(element).to_owned()).collect()
}

/// The pairs of a map, `key:value` between commas; a piece without a colon belongs to the key after it. None when it
/// is no map: a key is missing, empty, or there twice.
#[must_use]
pub fn map(text: &str) -> Option<BTreeMap<String, String>> {
    let text = ini::strip(text);
    let mut pairs = BTreeMap::new();
    if text.is_empty() {
        return Some(pairs);
    }
    // Pieces that have no colon yet.
    let mut pending: Option<String> = None;
    for piece in text.split(',') {
        let pair = pending.take().map_or_else(|| piece.to_owned(), |before| format!("{before},{piece}"));
        match pair.split_once(':') {
            None => pending = Some(pair),
            Some((key, value)) => {
                let key = ini::strip(key);
                if key.is_empty() || pairs.insert(key.to_owned(), ini::strip(value).to_owned()).is_some() {
                    return None;
                }
            }
        }
    }
    pending.is_none().then_some(pairs)
}

/// Whose an assignment is.
enum Found {
    Ours(Name, Shape),
    Others,
    NoGroup(Option<String>),
    NoOption(Option<String>),
}

/// What is set, before references are replaced.
struct Raw<'a> {
    known: &'a [(GroupHelp, Vec<OptionHelp>)],
    values: BTreeMap<Name, Vec<Located>>,
    /// Other people's options, by group in lower case: they may be referred to.
    others: BTreeMap<(String, String), String>,
    unread: Vec<String>,
}

impl Raw<'_> {
    fn group(&self, group: &str) -> Option<&(GroupHelp, Vec<OptionHelp>)> {
        self.known.iter().find(|(known, _)| known.name.eq_ignore_ascii_case(group))
    }

    fn find(&self, group: &str, option: &str) -> Found {
        let Some((known, options)) = self.group(group) else {
            if foreign::is_group(&group.to_ascii_lowercase()) {
                return Found::Others;
            }
            return Found::NoGroup(nearest(group, self.known.iter().map(|(group, _)| group.name)));
        };
        if let Some(help) = options.iter().find(|help| help.name == option) {
            return Found::Ours((known.name, help.name), help.shape);
        }
        if foreign::is_option(known.name, option) {
            return Found::Others;
        }
        Found::NoOption(nearest(option, options.iter().map(|help| help.name)))
    }

    fn keep_other(&mut self, group: &str, option: String, value: Located) {
        self.unread.push(format!("{group}.{option} ({})", value.origin));
        self.others.insert((group.to_ascii_lowercase(), option), value.text);
    }

    fn resolve(self, problems: &mut Vec<Problem>) -> Resolved {
        let mut values = BTreeMap::new();
        for (name, located) in &self.values {
            let mut done = Vec::with_capacity(located.len());
            for Located { text, origin } in located {
                match self.expand(text, name.0, &mut vec![(name.0.to_owned(), name.1.to_owned())]) {
                    Ok(text) => done.push(Located { text, origin: origin.clone() }),
                    Err(refused) => problems.push(Problem::Reference {
                        origin: origin.clone(),
                        group: name.0.to_owned(),
                        option: name.1.to_owned(),
                        name: refused.name,
                        why: refused.why,
                    }),
                }
            }
            if !done.is_empty() {
                values.insert(*name, done);
            }
        }
        let shapes = self
            .known
            .iter()
            .flat_map(|(group, options)| options.iter().map(|help| ((group.name, help.name), help.shape)))
            .collect();
        Resolved { values, shapes, unread: self.unread }
    }

    /// Replaces the references of a value that stands in `group`. `trail` are the options that are being resolved.
    fn expand(&self, text: &str, group: &str, trail: &mut Vec<(String, String)>) -> Result<String, Refused> {
        substitute::expand(text, |name| {
            let refuse = |why| Refused { name: name.to_owned(), why };
            let places = match name.split_once('.') {
                Some((group, option)) => vec![(group, option)],
                // As in oslo.config: the option of the same group, else that of [DEFAULT].
                None => vec![(group, name), ("DEFAULT", name)],
            };
            for (group, option) in places {
                let key = (group.to_owned(), option.to_owned());
                if trail.contains(&key) {
                    return Err(refuse("which refers back to it"));
                }
                let Some((group, text, shape)) = self.raw(group, option) else { continue };
                if trail.len() >= 16 {
                    return Err(refuse("at the end of too long a chain of references"));
                }
                trail.push(key);
                let done = self.expand(&text, &group, trail)?;
                trail.pop();
                // A number is put in as it is meant: 080 as 80.
                return Ok(match (shape, ini::strip(&done).parse::<i128>()) {
                    (Shape::Integer, Ok(number)) => number.to_string(),
                    _ => done,
                });
            }
            Err(refuse("and there is no such option"))
        })
    }

    /// The text of an option, set or by default, with its group's proper name and its shape; the empty text where it is
    /// unset.
    fn raw(&self, group: &str, option: &str) -> Option<(String, String, Shape)> {
        if let Some((known, options)) = self.group(group)
            && let Some(help) = options.iter().find(|help| help.name == option)
        {
            let set = self.values.get(&(known.name, help.name)).and_then(|values| values.last());
            let text = match set {
                Some(located) => located.text.clone(),
                None => help.default.clone().unwrap_or_default().replace('$', "$$"),
            };
            return Some((known.name.to_owned(), text, help.shape));
        }
        let key = (group.to_ascii_lowercase(), option.to_owned());
        self.others.get(&key).map(|text| (group.to_owned(), text.clone(), Shape::Text))
    }
}

struct Refused {
    name: String,
    why: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_split_at_commas_and_trimmed() {
        assert_eq!(list(" a, b\n,c ,"), ["a", "b", "c"]);
        assert_eq!(list("a,,b"), ["a", "", "b"]);
        assert!(list(" ").is_empty() && list(",").is_empty());
    }

    #[test]
    fn maps_are_pairs_between_commas() {
        let pairs = |text| map(text).map(|map| map.into_iter().collect::<Vec<_>>());
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        assert_eq!(pairs("k:v, k2 : v:2 "), Some(vec![pair("k", "v"), pair("k2", "v:2")]));
        assert_eq!(pairs("x,k:v"), Some(vec![pair("x,k", "v")]));
        assert_eq!(pairs(""), Some(vec![]));
        for bad in ["k", ":v", "k:v,k:w", "k:v,x", "k:v,"] {
            assert_eq!(pairs(bad), None, "{bad}");
        }
    }
}
