//! Just enough of Rust to find which paths a file names: comments, texts and unit tests are left out, `use` trees are
//! spread out, `self` and `super` are resolved.

use std::path::{Path, PathBuf};

/// A source file of this repository.
pub struct File {
    /// Its path from the root of the repository.
    pub path: String,
    /// All of it.
    pub text: String,
}

/// The root of the repository, as cargo tells it when it runs the tests.
fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// The file at this path from the root of the repository.
pub fn read(path: &str) -> String {
    let whole = root().join(path);
    std::fs::read_to_string(&whole).unwrap_or_else(|error| panic!("{}: {error}", whole.display()))
}

/// All Rust files below these directories, as far as they are there.
pub fn files(directories: &[&str]) -> Vec<File> {
    let mut found = Vec::new();
    for directory in directories {
        walk(&root(), Path::new(directory), &mut found);
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "nothing below {directories:?}");
    found
}

fn walk(root: &Path, directory: &Path, found: &mut Vec<File>) {
    let Ok(entries) = std::fs::read_dir(root.join(directory)) else { return };
    for entry in entries {
        let entry = entry.unwrap();
        let path = directory.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            walk(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let path = path.to_str().unwrap().to_owned();
            found.push(File { text: read(&path), path });
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    /// `::`
    Into,
    Mark(char),
}

impl File {
    /// The module's path in its crate.
    fn module(&self) -> Vec<String> {
        let inside = self.path.trim_start_matches("agent/").trim_start_matches("src/").trim_end_matches(".rs");
        let mut parts: Vec<_> = inside.split('/').map(str::to_owned).collect();
        if parts.last().is_some_and(|last| last == "mod" || last == "lib" || last == "main") {
            parts.pop();
        }
        parts
    }

    /// The first module on the way to the file; empty for the root of the crate.
    pub fn room(&self) -> String {
        self.module().first().cloned().unwrap_or_default()
    }

    /// A path from the root of the crate, where it begins with `crate`, `self` or `super`; else as it is.
    pub fn absolute(&self, path: &[String]) -> Vec<String> {
        let mut module = self.module();
        let mut rest = path;
        match path[0].as_str() {
            "crate" => return path.to_vec(),
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|word| word == "super") {
                    module.pop();
                    rest = &rest[1..];
                }
            }
            _ => return path.to_vec(),
        }
        let mut whole = vec!["crate".to_owned()];
        whole.extend(module);
        whole.extend_from_slice(rest);
        whole
    }

    /// The room that a path leads to, if it leads into our library.
    pub fn room_of(&self, path: &[String]) -> Option<String> {
        let path = self.absolute(path);
        // `pub(crate)` and `crate` alone lead nowhere.
        (path[0] == "crate" || path[0] == "lambda_openstack").then(|| path.get(1).cloned()).flatten()
    }

    /// Every path that the file names outside its unit tests. Single words are paths of one part.
    pub fn paths(&self) -> Vec<Vec<String>> {
        if self.is_test() {
            return Vec::new();
        }
        let tokens = without_tests(tokens(&self.text));
        let mut paths = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            match (&tokens[at], at.checked_sub(1).map(|before| &tokens[before])) {
                (Token::Word(_), before) if before != Some(&Token::Into) => {
                    at = path(&tokens, at, &[], &mut paths);
                }
                _ => at += 1,
            }
        }
        paths
    }

    /// Whether the whole file is a module of unit tests.
    fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// Lines up to the unit tests.
    pub fn lines_of_code(&self) -> usize {
        self.text.lines().position(|line| line == "#[cfg(test)]").unwrap_or_else(|| self.text.lines().count())
    }
}

/// Reads a path that begins at a word, spreading out the braces of a `use`; where it ends.
fn path(tokens: &[Token], mut at: usize, before: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    let mut parts = before.to_vec();
    loop {
        match tokens.get(at) {
            Some(Token::Word(word)) => parts.push(word.clone()),
            Some(Token::Mark('{')) if !parts.is_empty() => {
                at += 1;
                while let Some(token) = tokens.get(at) {
                    match token {
                        Token::Mark('}') => return at + 1,
                        // `x as y`: the new name is no path.
                        Token::Word(word) if word == "as" => at += 2,
                        Token::Word(_) => at = path(tokens, at, &parts, paths),
                        Token::Mark(_) | Token::Into => at += 1,
                    }
                }
                return at;
            }
            // `::*`, `::<…>`
            _ => break,
        }
        at += 1;
        if tokens.get(at) != Some(&Token::Into) {
            break;
        }
        at += 1;
    }
    paths.push(parts);
    at
}

/// Takes `#[cfg(test)] mod name { … }` away.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    let marker: Vec<Token> = [
        Token::Mark('#'),
        Token::Mark('['),
        word("cfg"),
        Token::Mark('('),
        word("test"),
        Token::Mark(')'),
        Token::Mark(']'),
    ]
    .into();
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at..].starts_with(&marker) {
            at += marker.len();
            // To the end of the item: its block, or a semicolon before one.
            let mut depth = 0;
            while let Some(token) = tokens.get(at) {
                at += 1;
                match token {
                    Token::Mark('{') => depth += 1,
                    Token::Mark('}') if depth == 1 => break,
                    Token::Mark('}') => depth -= 1,
                    Token::Mark(';') if depth == 0 => break,
                    Token::Word(_) | Token::Into | Token::Mark(_) => {}
                }
            }
            continue;
        }
        kept.push(tokens[at].clone());
        at += 1;
    }
    kept
}

fn word(text: &str) -> Token {
    Token::Word(text.to_owned())
}

/// Words and marks; no comments, no texts, no characters, no lifetimes, no numbers.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let next = chars.get(at + 1).copied();
        match c {
            '/' if next == Some('/') => at = skip_to(&chars, at, "\n"),
            '/' if next == Some('*') => at = skip_to(&chars, at + 2, "*/"),
            '"' => at = skip_text(&chars, at + 1),
            'r' | 'b' if raw_hashes(&chars, at).is_some() => {
                let (begin, hashes) = raw_hashes(&chars, at).unwrap();
                at = skip_to(&chars, begin, &format!("\"{}", "#".repeat(hashes)));
            }
            '\'' => at = skip_quote(&chars, at),
            ':' if next == Some(':') => {
                found.push(Token::Into);
                at += 2;
            }
            c if c.is_alphanumeric() || c == '_' => {
                let begin = at;
                while chars.get(at).is_some_and(|c| c.is_alphanumeric() || *c == '_') {
                    at += 1;
                }
                if !c.is_numeric() {
                    found.push(Token::Word(chars[begin..at].iter().collect()));
                }
            }
            c if c.is_whitespace() => at += 1,
            c => {
                found.push(Token::Mark(c));
                at += 1;
            }
        }
    }
    found
}

/// Behind the next `end`.
fn skip_to(chars: &[char], mut at: usize, end: &str) -> usize {
    let end: Vec<char> = end.chars().collect();
    while at < chars.len() && !chars[at..].starts_with(&end) {
        at += 1;
    }
    at + end.len()
}

/// Behind the quotation mark that ends a text.
fn skip_text(chars: &[char], mut at: usize) -> usize {
    while let Some(c) = chars.get(at) {
        match c {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

/// Behind a character, or behind the mark of a lifetime.
fn skip_quote(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => skip_to(chars, at + 3, "'"),
        (Some(_), Some('\'')) => at + 3,
        _ => at + 1,
    }
}

/// Of `r"`, `r#"`, `br##"`…: where the text begins and how many hashes it has. `b"` is found by its quotation mark.
fn raw_hashes(chars: &[char], mut at: usize) -> Option<(usize, usize)> {
    if at.checked_sub(1).is_some_and(|before| chars[before].is_alphanumeric() || chars[before] == '_') {
        return None;
    }
    if chars[at] == 'b' {
        at += 1;
    }
    if chars.get(at) != Some(&'r') {
        return None;
    }
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    (chars.get(at + 1 + hashes) == Some(&'"')).then_some((at + 2 + hashes, hashes))
}

mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    fn rooms(path: &str, text: &str) -> Vec<String> {
        let file = file(path, text);
        file.paths().iter().filter_map(|path| file.room_of(path)).collect()
    }

    #[test]
    fn trees_and_inline_paths_are_found() {
        let text = "use crate::{api::{self, x}, worker as w, store::*};\nfn f() { crate::cli::run::<u8>() }";
        assert_eq!(rooms("src/model/a.rs", text), ["api", "api", "worker", "store", "cli"]);
    }

    #[test]
    fn relative_paths_are_resolved() {
        assert_eq!(
            rooms("src/api/a/b.rs", "use super::super::super::worker::x; use super::y; use self::z;"),
            ["worker", "api", "api"]
        );
        assert_eq!(rooms("src/bin/lambda-api.rs", "use lambda_openstack::api;"), ["api"]);
    }

    #[test]
    fn comments_texts_and_unit_tests_are_left_out() {
        let text = "// crate::a\n/* crate::b */ fn f<'a>(x: &'a str) { \"crate::c\"; r#\"\"crate::d\"#; b'\\''; '\"'; crate::kept }\n\
                    #[cfg(test)]\nmod tests { use crate::e; fn g() { } }\nuse crate::also_kept;";
        assert_eq!(rooms("src/api.rs", text), ["kept", "also_kept"]);
    }

    #[test]
    fn a_visibility_leads_nowhere() {
        assert!(rooms("src/api.rs", "pub(crate) fn f() {} pub(in crate::api) fn g() {}").contains(&"api".to_owned()));
        assert!(rooms("src/api.rs", "pub(crate) fn f() {}").is_empty());
    }
}
