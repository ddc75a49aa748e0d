//! Access rules of application credentials: what a token may be used for, whatever its roles.

/// One thing that an application credential may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRule {
    /// The type of the service.
    pub service: String,
    /// The method.
    pub method: String,
    /// The path; `*` and `{…}` stand for a segment, `**` for all that follows, slashes too.
    pub path: String,
}

impl AccessRule {
    /// Whether a request to a service of this type is what the rule is about.
    pub(super) fn allows(&self, service: &str, method: &str, path: &str) -> bool {
        self.service == service && self.method == method && path_matches(&pieces(&self.path), path)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    /// This character.
    Exactly(char),
    /// One character or more, none of which is a slash.
    Segment,
    /// Anything, or nothing.
    Rest,
}

/// A brace without its partner stands for nothing at all, as in keystonemiddleware.
fn pieces(pattern: &str) -> Vec<Piece> {
    let (mut pieces, mut rest) = (Vec::new(), pattern);
    while let Some(c) = rest.chars().next() {
        let mut taken = c.len_utf8();
        match c {
            '{' => {
                if let Some(end) = rest.find('}') {
                    pieces.push(Piece::Segment);
                    taken = end + 1;
                }
            }
            '}' => {}
            '*' if rest.starts_with("**") => {
                pieces.push(Piece::Rest);
                taken = 2;
            }
            '*' => pieces.push(Piece::Segment),
            c => pieces.push(Piece::Exactly(c)),
        }
        rest = &rest[taken..];
    }
    pieces
}

/// Goes through the path once for each piece, keeping the places where the pieces before it can have ended: no pattern
/// takes longer than the product of both lengths.
fn path_matches(pieces: &[Piece], path: &str) -> bool {
    let path: Vec<char> = path.chars().collect();
    let mut ends = vec![false; path.len() + 1];
    ends[0] = true;
    for piece in pieces {
        let mut next = vec![false; path.len() + 1];
        for place in 0..=path.len() {
            let before = place.checked_sub(1).and_then(|before| path.get(before).map(|c| (before, *c)));
            next[place] = match (piece, before) {
                (Piece::Exactly(wanted), Some((before, c))) => c == *wanted && ends[before],
                (Piece::Segment, Some((before, c))) => c != '/' && (ends[before] || next[before]),
                (Piece::Rest, Some((before, _))) => ends[place] || next[before],
                (Piece::Rest, None) => ends[place],
                (Piece::Exactly(_) | Piece::Segment, None) => false,
            };
        }
        ends = next;
    }
    ends.last().copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_keystonemiddleware() {
        for (pattern, path, wanted) in [
            ("/v1/functions", "/v1/functions", true),
            ("/v1/functions", "/v1/functions/", false),
            ("/v1/functions/*", "/v1/functions/a", true),
            ("/v1/functions/*", "/v1/functions/", false),
            ("/v1/functions/*", "/v1/functions/a/code", false),
            ("/v1/functions/*/code", "/v1/functions/a/code", true),
            ("/v1/functions/{id}/code", "/v1/functions/a/code", true),
            ("/v1/functions/{id}", "/v1/functions/a/code", false),
            ("/v1/**", "/v1/functions/a/code", true),
            ("/v1/**", "/v1/", true),
            ("/v1/**", "/v1", false),
            ("/v1**", "/v1", true),
            ("**", "/anything", true),
            ("/v1/f*s", "/v1/functions", true),
            ("/v1/f*s", "/v1/fs", false),
            // A point is a point: there it stands for any character.
            ("/v1.0/a", "/v1x0/a", false),
            ("", "/", false),
            ("", "", true),
            ("/a{b", "/ab", true),
        ] {
            assert_eq!(path_matches(&pieces(pattern), path), wanted, "{pattern} {path}");
        }
        let long = "a".repeat(2000);
        assert!(!path_matches(&pieces(&"*a".repeat(300)), &format!("/{long}b")));
    }

    #[test]
    fn method_and_service_must_be_the_same() {
        let rule = AccessRule { service: "function".into(), method: "GET".into(), path: "/v1/functions".into() };
        assert!(rule.allows("function", "GET", "/v1/functions"));
        assert!(!rule.allows("function", "POST", "/v1/functions"));
        assert!(!rule.allows("compute", "GET", "/v1/functions"));
    }
}
