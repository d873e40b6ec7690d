//! Paths of requests and prefixes of routes: whole segments, compared as an upstream would understand them. Pure.

use std::{borrow::Cow, fmt, str::FromStr};

use percent_encoding::percent_decode_str;

/// The beginning of paths, by whole segments: `/a/b` is that of `/a/b` and `/a/b/c`, not of `/a/bc`. The default is
/// `/`, the beginning of every path.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix(String);

/// The path of a request, and how it is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestPath<'a> {
    raw: &'a str,
    plain: Cow<'a, str>,
}

/// A path that an upstream may take for another one than it was compared as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a path through the gateway has no `.` and `..` segments, no escaped `/` or `\\`, and its escapes are UTF-8"
)]
pub struct Ambiguous;

/// Beginnings of paths that are the relay's own, with what they are for.
const RESERVED: [(&str, &str); 6] = [
    ("/c", "channels"),
    ("/api", "the interface for programs"),
    ("/health", "the state of the relay"),
    ("/ready", "the state of the relay"),
    ("/metrics", "the state of the relay"),
    ("/favicon.ico", "the page"),
];

/// The files of the page.
const PAGE: [&str; 5] = ["/page.js", "/subscription.js", "/tail.js", "/page.css", "/favicon.svg"];

impl Prefix {
    /// As text; `/` is none.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is `/`.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// What it is for if it is the relay's own, and no route's.
    pub fn reserved(&self) -> Option<&'static str> {
        if self.is_root() {
            return Some("the page of the channel `default`");
        }
        let named = RESERVED.iter().find(|(prefix, _)| is_below(&self.0, prefix)).map(|(_, what)| *what);
        named.or_else(|| PAGE.contains(&self.0.as_str()).then_some("the page"))
    }

    /// Whether a path is below it, or it itself.
    pub fn contains(&self, path: &RequestPath<'_>) -> bool {
        is_below(&path.plain, &self.0)
    }

    /// Whether another prefix is below it, or it itself.
    pub fn contains_prefix(&self, other: &Self) -> bool {
        is_below(&other.0, &self.0)
    }

    /// How long it is: of two that contain a path the longer one is the closer.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has no segments.
    pub fn is_empty(&self) -> bool {
        self.is_root()
    }

    /// The path that an upstream is asked for: `base`, then the path as it came, or with `rewrite` in place of this
    /// prefix, then the query. It begins with one `/`: what stands behind two, some take for a host.
    pub fn forward(
        &self,
        base: &Self,
        rewrite: Option<&Self>,
        path: &RequestPath<'_>,
        query: Option<&str>,
    ) -> String {
        let mut out = base.0.clone();
        match rewrite {
            None => out.push_str(path.raw),
            Some(rewrite) => {
                out.push_str(&rewrite.0);
                out.push_str(path.behind(self.segments()));
            }
        }
        out.replace_range(..out.len() - out.trim_start_matches('/').len(), "/");
        if let Some(query) = query {
            out.push('?');
            out.push_str(query);
        }
        out
    }

    fn segments(&self) -> usize {
        self.0.bytes().filter(|&byte| byte == b'/').count()
    }
}

impl<'a> RequestPath<'a> {
    /// Takes the path of a request as it came.
    ///
    /// # Errors
    /// If some would take it for another path, or it has escapes that are no text.
    pub fn new(raw: &'a str) -> Result<Self, Ambiguous> {
        let plain = percent_decode_str(raw).decode_utf8().map_err(|_| Ambiguous)?;
        // Some take `\` for `/`, and an escaped `/` parts the path as it is compared, but not as it is cut.
        if plain.contains('\\') || has_escaped_slash(raw) || plain.split('/').any(leads_elsewhere) {
            return Err(Ambiguous);
        }
        let plain = if plain.contains("//") { Cow::Owned(without_empty_segments(&plain)) } else { plain };
        Ok(Self { raw, plain })
    }

    /// What follows so many segments, as it came.
    fn behind(&self, segments: usize) -> &'a str {
        let mut rest = self.raw;
        for _ in 0..segments {
            let begun = rest.trim_start_matches('/');
            rest = &begun[begun.find('/').unwrap_or(begun.len())..];
        }
        rest
    }
}

fn has_escaped_slash(path: &str) -> bool {
    path.as_bytes().windows(3).any(|code| code.eq_ignore_ascii_case(b"%2f"))
}

/// Whether a segment is `.` or `..`, also for those who take what stands behind `;` for parameters.
fn leads_elsewhere(segment: &str) -> bool {
    matches!(segment.split(';').next(), Some("." | ".."))
}

fn without_empty_segments(path: &str) -> String {
    let ends = if path.ends_with('/') { "/" } else { "" };
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    segments.fold(String::new(), |out, segment| out + "/" + segment) + ends
}

fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix('/') else { return Err("a path begins with /".into()) };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.is_empty() {
            return Ok(Self::default());
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@".contains(c);
        if let Some(c) = rest.chars().find(|&c| !fits(c) && c != '/') {
            return Err(format!("a path has no `{}`; it is compared without escapes", c.escape_debug()));
        }
        if rest.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err("a path has no empty segments, and none that are . or ..".into());
        }
        Ok(Self(format!("/{rest}")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn path(text: &str) -> RequestPath<'_> {
        RequestPath::new(text).unwrap()
    }

    #[test]
    fn a_prefix_is_of_whole_segments() {
        let a = prefix("/a/b/");
        for inside in ["/a/b", "/a/b/", "/a/b/c", "/a//b/c", "/%61/b", "//a/b"] {
            assert!(a.contains(&path(inside)), "{inside}");
        }
        for outside in ["/a", "/a/bc", "/A/b", "/x/a/b", "/", "/a/b%20"] {
            assert!(!a.contains(&path(outside)), "{outside}");
        }
        assert!(prefix("/").contains(&path("/anything")));
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_none() {
        for text in
            ["/a/../b", "/a/./b", "/a/%2e%2e/b", "/a/%2E./b", "/..", "/a\\..\\b", "/a/%5c..%5c", "/%ff"]
        {
            assert_eq!(RequestPath::new(text), Err(Ambiguous), "{text}");
        }
        for text in ["/a\\b", "/a/admin\\", "/..;/b", "/a/..;x=1/b", "/a/.;/b", "/a/%2e%2e%3b/b"] {
            assert_eq!(RequestPath::new(text), Err(Ambiguous), "{text}");
        }
        for text in ["/a/..b/...", "/a;x=1/b", "/a/;/b", "/a/.b;c"] {
            assert!(RequestPath::new(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn an_escape_neither_joins_nor_parts_segments() {
        for text in ["/a%2Fb/x/admin", "/a%2fb", "/a/b%2F", "/a%5Cb", "/a/x%5cy"] {
            assert_eq!(RequestPath::new(text), Err(Ambiguous), "{text}");
        }
        // What only looks like one once it is decoded twice is a text.
        assert!(RequestPath::new("/a%252Fb").is_ok());
    }

    #[test]
    fn a_path_goes_on_as_it_came_or_with_another_prefix() {
        let forward = |base: &str, of: &str, rewrite: Option<&str>, came: &str, query: Option<&str>| {
            prefix(of).forward(&prefix(base), rewrite.map(prefix).as_ref(), &path(came), query)
        };
        assert_eq!(forward("/", "/a", None, "/a/%20b//c", Some("q=1")), "/a/%20b//c?q=1");
        assert_eq!(forward("/base", "/a", None, "/a", None), "/base/a");
        assert_eq!(forward("/", "/a", Some("/"), "/a", None), "/");
        assert_eq!(forward("/", "/a", Some("/"), "/a/b/?", Some("")), "/b/??");
        assert_eq!(forward("/x", "/a/b", Some("/y"), "//a//b//c", None), "/x/y//c");
        assert_eq!(forward("/x", "/a", Some("/"), "/a", None), "/x");
        assert_eq!(forward("/x", "/a", None, "//a//b", None), "/x//a//b");
    }

    #[test]
    fn what_goes_on_begins_with_no_host() {
        let forward = |rewrite: Option<&str>, came: &str| {
            prefix("/a").forward(&Prefix::default(), rewrite.map(prefix).as_ref(), &path(came), None)
        };
        assert_eq!(forward(None, "//a/a/admin"), "/a/a/admin");
        assert_eq!(forward(None, "///a//b"), "/a//b");
        assert_eq!(forward(Some("/"), "/a//x/admin"), "/x/admin");
        assert_eq!(forward(Some("/"), "/a//"), "/");
        assert_eq!(forward(Some("/y"), "//a//x"), "/y//x");
    }

    #[test]
    fn what_is_the_relays_own_is_no_routes() {
        for text in
            ["/", "/c", "/c/foo", "/api/v1", "/health", "/ready", "/metrics", "/page.js", "/favicon.ico"]
        {
            assert!(prefix(text).reserved().is_some(), "{text}");
        }
        for text in ["/cc", "/apis", "/terminal", "/page.js/x"] {
            assert!(prefix(text).reserved().is_none(), "{text}");
        }
    }

    #[test]
    fn a_prefix_says_what_is_wrong_with_it() {
        for (text, says) in
            [("a", "begins with /"), ("/a b", "has no ` `"), ("/a%20", "has no `%`"), ("/a//b", "empty")]
        {
            assert!(text.parse::<Prefix>().unwrap_err().contains(says), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_left_behind_a_prefix_is_what_it_was_compared_as(
            raw in "(/(a|b|%61|%62|%2F|%2f|admin|)){1,6}",
            of in prop::sample::select(vec!["/a", "/a/b", "/b/a/a"]),
        ) {
            let (Ok(came), of) = (RequestPath::new(&raw), prefix(of)) else { return Ok(()) };
            if of.contains(&came) {
                let left = of.forward(&Prefix::default(), Some(&Prefix::default()), &came, None);
                let again = RequestPath::new(&left).unwrap();
                let segments = |text: &str| text.split('/').filter(|s| !s.is_empty()).map(str::to_owned).collect::<Vec<_>>();
                prop_assert_eq!(segments(&again.plain), segments(&came.plain[of.len()..]));
            }
        }

        #[test]
        fn what_is_left_behind_a_prefix_is_a_path_again(segments in prop::collection::vec("[a-z]{1,3}", 1..5), of in 1usize..5) {
            let whole = format!("/{}", segments.join("/"));
            let of = of.min(segments.len());
            let begin = prefix(&format!("/{}", segments[..of].join("/")));
            let left = begin.forward(&Prefix::default(), Some(&Prefix::default()), &path(&whole), None);
            let rest = segments[of..].join("/");
            prop_assert_eq!(left, format!("/{rest}"));
        }
    }
}
