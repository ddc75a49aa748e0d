//! The sample file, in the manner of `oslo-config-generator`: every option commented out with its default, its help
//! above it.

use std::fmt::Write as _;

use super::Config;
use super::check::Form;
use super::ini;
use super::option::OptionHelp;

/// Lines are at most this long, as in oslo's samples.
const WIDTH: usize = 70;

/// The text of `etc/lambda/lambda.conf.sample`.
#[must_use]
pub fn sample() -> String {
    let mut text = String::new();
    for (group, options) in Config::help() {
        if !text.is_empty() {
            text.push_str("\n\n");
        }
        let _ = writeln!(text, "[{}]", group.name);
        text.push_str(&wrapped(&paragraph(group.help)));
        text.push_str("\n#\n# From lambda\n#\n");
        for option in options {
            text.push('\n');
            text.push_str(&described(&option));
        }
    }
    text
}

fn described(option: &OptionHelp) -> String {
    let mut text = wrapped(&format!("{} ({})", paragraph(option.help), option.kind));
    if let Some((min, max)) = option.range {
        let _ = writeln!(text, "# Minimum value: {min}\n# Maximum value: {max}");
    }
    if let Some(Form::OneOf(words)) = option.form {
        let _ = writeln!(text, "# Possible values: {}", words.join(", "));
    }
    if option.mutable {
        text.push_str("# Note: This option can be changed without restarting.\n");
    }
    match &option.default {
        None => {
            let _ = writeln!(text, "#{} = <None>", option.name);
        }
        Some(default) => {
            // What the grammar cannot write is shown as it is.
            let written = ini::write_value(default).unwrap_or_else(|| default.clone());
            let space = if written.is_empty() { "" } else { " " };
            let _ = writeln!(text, "#{} ={space}{}", option.name, written.replace('\n', "\n#"));
        }
    }
    text
}

/// The lines of a doc comment as one paragraph.
fn paragraph(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// A paragraph as comment lines.
fn wrapped(paragraph: &str) -> String {
    let mut text = String::new();
    let mut line = String::from("#");
    for word in paragraph.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > WIDTH && line.len() > 1 {
            let _ = writeln!(text, "{line}");
            "#".clone_into(&mut line);
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(text, "{line}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigPath, Sources};

    #[test]
    fn the_sample_in_the_tree_is_the_generated_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/lambda/lambda.conf.sample");
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(path, sample()).unwrap();
        }
        let kept = std::fs::read_to_string(path).unwrap();
        assert_eq!(kept, sample(), "run this test with UPDATE_SNAPSHOTS=1 to write the file anew");
    }

    #[test]
    fn the_sample_with_its_options_uncommented_sets_every_option_to_its_default() {
        let mut count = 0;
        let text: String = sample()
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(option) if !option.starts_with(' ') && option.contains(" =") && !option.ends_with("<None>") => {
                    count += 1;
                    format!("{option}\n")
                }
                _ => format!("{line}\n"),
            })
            .collect();
        let with_default =
            Config::help().iter().flat_map(|(_, options)| options).filter(|option| option.default.is_some()).count();
        assert_eq!(count, with_default);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lambda.conf");
        std::fs::write(&path, text).unwrap();
        let config = Config::load(&Sources::none().with_paths([ConfigPath::File(path)])).unwrap();
        assert_eq!(config, Config::default());
    }

    #[test]
    fn no_line_of_help_is_longer_than_the_width() {
        for line in sample().lines().filter(|line| line.starts_with("# ")) {
            assert!(line.chars().count() <= WIDTH || !line[2..].contains(' '), "{line}");
        }
    }

    #[test]
    fn every_option_is_explained_in_sentences() {
        for (group, options) in Config::help() {
            assert!(!paragraph(group.help).is_empty(), "[{}]", group.name);
            for option in options {
                let help = paragraph(option.help);
                assert!(help.ends_with('.') && help.len() > 10, "{}.{}: {help}", group.name, option.name);
            }
        }
    }
}
