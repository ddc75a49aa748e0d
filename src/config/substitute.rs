//! `$option`, `${option}`, `$group.option`, `${group.option}` and the escapes `$$` and `\$` in a value, as
//! `oslo_config` and Python's `string.Template` read them. Who a name stands for is the caller's knowledge.

/// Puts values in the place of names.
///
/// # Errors
/// What `lookup` said of the first name that it refused.
pub fn expand<E>(text: &str, mut lookup: impl FnMut(&str) -> Result<String, E>) -> Result<String, E> {
    // oslo does this first and blindly, so that a backslash before a $ is never kept.
    let text = text.replace("\\$", "$$");
    let mut done = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find('$') {
        done.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            done.push('$');
            rest = after;
        } else if let Some((name, after)) = braced(rest) {
            done.push_str(&lookup(name)?);
            rest = after;
        } else {
            let name = name(rest);
            if name.is_empty() {
                // `$1`, `${`, `$ `: not a reference, it stays as it is.
                done.push('$');
            } else {
                done.push_str(&lookup(name)?);
                rest = &rest[name.len()..];
            }
        }
    }
    done.push_str(rest);
    Ok(done)
}

/// The longest name at the beginning: a letter or `_`, then letters, digits, `_` and `.`.
fn name(text: &str) -> &str {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !text.starts_with(first) {
        return "";
    }
    let end = text.find(|c: char| !(first(c) || c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    &text[..end]
}

/// A name in braces at the beginning, and what follows it.
fn braced(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('{')?;
    let name = name(inner);
    let after = inner[name.len()..].strip_prefix('}')?;
    (!name.is_empty()).then_some((name, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        expand(text, |name| Ok::<_, ()>(format!("<{name}>"))).unwrap()
    }

    #[test]
    fn names_are_replaced_in_all_four_forms() {
        assert_eq!(shown("$a ${b} $g.c ${g.d}e"), "<a> <b> <g.c> <g.d>e");
        assert_eq!(shown("http://$my_ip:8888/v2"), "http://<my_ip>:8888/v2");
    }

    #[test]
    fn both_escapes_give_a_dollar() {
        assert_eq!(shown(r"$$a \$a $$$a"), "$a $a $<a>");
    }

    #[test]
    fn what_is_no_name_stays() {
        assert_eq!(shown("$ $1 ${ ${a $-"), "$ $1 ${ ${a $-");
        assert_eq!(shown("5$"), "5$");
    }

    #[test]
    fn a_refused_name_stops_the_reading() {
        assert_eq!(expand("x $a $b", |name| Err::<String, _>(name.to_owned())), Err("a".to_owned()));
    }
}
