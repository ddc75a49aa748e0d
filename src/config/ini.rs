//! The grammar of oslo's INI files: text in, assignments with their lines out, and back.
//!
//! It follows `oslo_config.iniparser` character for character, because DevStack's `iniset` and every deployment tool
//! were written against that; `tests/it/config.rs` compares the two. It knows no option and converts nothing.

/// One `key = value` of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The section's name as it was written.
    pub section: String,
    /// The key as it was written.
    pub key: String,
    /// The value: outer quotes are gone, the lines of a continued value are joined by line breaks.
    pub value: String,
    /// The line that the assignment begins on, from 1.
    pub line: usize,
}

/// A file that is not in the grammar. It does not quote the line, which may hold a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct SyntaxError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

/// What Python's `str.strip` takes for space: Unicode's white space and four separators of ASCII.
const fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// Removes what Python's `str.strip` removes.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// Reads a whole file. Sections may come more than once, keys too: every assignment is kept, in order.
///
/// # Errors
/// On the first line that is not in the grammar.
pub fn parse(text: &str) -> Result<Vec<Assignment>, SyntaxError> {
    let mut done = Vec::new();
    let mut section: Option<String> = None;
    let mut open: Option<Assignment> = None;
    // Python opens files with universal newlines: \r\n and a lone \r end a line too.
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    for (index, line) in text.split('\n').enumerate() {
        let number = index + 1;
        let error = |what| SyntaxError { line: number, what };
        let line = line.trim_end_matches(is_space);
        if line.starts_with([' ', '\t']) {
            let Some(assignment) = open.as_mut() else {
                return Err(error("a line that begins with space continues a value, but there is none before it"));
            };
            assignment.value.push('\n');
            assignment.value.push_str(line.trim_start_matches(is_space));
            continue;
        }
        done.extend(open.take());
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(rest) = line.strip_prefix('[') {
            match rest.strip_suffix(']') {
                None => return Err(error("the name of a section must end with ]")),
                Some("") => return Err(error("the name of a section must not be empty")),
                Some(name) => section = Some(name.to_owned()),
            }
            continue;
        }
        let Some((key, value)) = line.split_once(['=', ':']) else {
            return Err(error("there is no = or : in it, and it is no comment and no section"));
        };
        let key = strip(key);
        if key.is_empty() {
            return Err(error("there is no name before the = or :"));
        }
        let Some(section) = section.as_ref() else {
            return Err(error("a section such as [DEFAULT] must come before the first option"));
        };
        open = Some(Assignment {
            section: section.clone(),
            key: key.to_owned(),
            value: unquote(strip(value)).to_owned(),
            line: number,
        });
    }
    done.extend(open);
    Ok(done)
}

/// Takes one pair of matching quotes away. A single quote character counts as an empty pair, as it does in oslo.
fn unquote(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(rest) = value.strip_prefix(quote) {
            if rest.is_empty() {
                return rest;
            }
            if let Some(inner) = rest.strip_suffix(quote) {
                return inner;
            }
        }
    }
    value
}

/// Writes a value so that [`parse`], and the substitution of `$` after it, give it back. None when the dialect has no
/// way to say it: a line after the first that is empty or has space around it, a backslash before a `$`, a carriage
/// return.
#[must_use]
pub fn write_value(value: &str) -> Option<String> {
    if value.contains("\\$") || value.contains('\r') {
        return None;
    }
    let escaped = value.replace('$', "$$");
    let mut lines = escaped.split('\n');
    let first = lines.next().unwrap_or_default();
    let mut written =
        if strip(first) != first || unquote(first) != first { format!("\"{first}\"") } else { first.to_owned() };
    for line in lines {
        if line.is_empty() || strip(line) != line {
            return None;
        }
        written.push_str("\n    ");
        written.push_str(line);
    }
    Some(written)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(text: &str) -> Vec<(String, String, String)> {
        parse(text).unwrap().into_iter().map(|a| (a.section, a.key, a.value)).collect()
    }

    fn one(line: &str) -> String {
        let parsed = parse(&format!("[s]\n{line}\n")).unwrap();
        assert_eq!(parsed.len(), 1, "{line}");
        parsed[0].value.clone()
    }

    #[test]
    fn the_first_of_equals_and_colon_separates() {
        assert_eq!(one("a = b:c"), "b:c");
        assert_eq!(one("a: b=c"), "b=c");
        assert_eq!(one("connection=mongodb://h/d?x=y"), "mongodb://h/d?x=y");
    }

    #[test]
    fn comments_are_whole_lines_only() {
        assert_eq!(one("a = b # not a comment"), "b # not a comment");
        assert_eq!(values("[s]\n# c\n; c\na = 1\n").len(), 1);
    }

    #[test]
    fn indented_lines_continue_a_value_even_when_they_look_like_comments() {
        assert_eq!(one("a = b\n  c\n\t# d"), "b\nc\n# d");
    }

    #[test]
    fn quotes_go_when_they_match_and_stay_when_not() {
        assert_eq!(one("a = ' b '"), " b ");
        assert_eq!(one("a = \"b\""), "b");
        assert_eq!(one("a = \"b'"), "\"b'");
        assert_eq!(one("a = \""), "");
        assert_eq!(one("a = 'b' 'c'"), "b' 'c");
    }

    #[test]
    fn an_empty_value_is_the_empty_text() {
        assert_eq!(one("a ="), "");
    }

    #[test]
    fn sections_and_keys_may_repeat() {
        let got = values("[a]\nx = 1\n[b]\nx = 2\n[a]\nx = 3\ny = 4\n");
        let want = [("a", "x", "1"), ("b", "x", "2"), ("a", "x", "3"), ("a", "y", "4")]
            .map(|(s, k, v)| (s.to_owned(), k.to_owned(), v.to_owned()));
        assert_eq!(got, want);
    }

    #[test]
    fn assignments_know_their_line() {
        let lines: Vec<_> = parse("[s]\r\n\r\na = 1\r\n  2\r\nb = 3").unwrap().iter().map(|a| a.line).collect();
        assert_eq!(lines, [3, 5]);
    }

    #[test]
    fn lines_outside_the_grammar_are_refused_with_their_number() {
        for (text, line) in [
            ("a = 1", 1),
            ("[s]\nnonsense", 2),
            ("[s]\n = 1", 2),
            ("[s", 1),
            ("[]", 1),
            ("[s]\n  a = 1", 2),
            ("[s]\na = 1\n\n  b", 4),
            ("[s]\na = 1\n# c\n  b", 4),
        ] {
            assert_eq!(parse(text).unwrap_err().line, line, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in "[ -~\u{a0}\u{e9}\n$\\\\'\"]{0,40}") {
            if let Some(written) = write_value(&value) {
                let parsed = parse(&format!("[s]\nkey = {written}\n[t]\n")).unwrap();
                prop_assert_eq!(parsed.len(), 1);
                let read = crate::config::substitute::expand(&parsed[0].value, |_| Err(())).unwrap();
                prop_assert_eq!(read, value);
            }
        }

        #[test]
        fn single_lines_without_backslashes_can_all_be_written(value in "[ -\\[\\]-~]{0,40}") {
            prop_assert!(write_value(&value).is_some());
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "(\\PC|[\\[\\]=:# \t\r\n'\"]){0,200}") {
            let _ = parse(&text);
        }
    }
}
