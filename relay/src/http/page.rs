//! The page of a channel for browsers: the files of `relay/page`, embedded, and the headers that keep them safe.
//! What a payload says can't become part of the page: no script runs that is not one of these files.

/// A file as it is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asset {
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// Its bytes.
    pub body: &'static [u8],
}

/// The document, served at `/` and at `/c/{channel or pattern}`; its script takes the channel from the URL.
pub const PAGE: Asset =
    Asset { content_type: "text/html; charset=utf-8", body: include_bytes!("../../page/index.html") };

/// Headers of every answer that carries an [`Asset`].
///
/// A browser asks again each time: the files have the names they will have after an upgrade, and are small.
pub const SECURITY: [(&str, &str); 4] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
         frame-ancestors 'none'; base-uri 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-cache"),
];

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The file at a path, if it is one that the page refers to.
pub fn asset(path: &str) -> Option<Asset> {
    let (content_type, body): (_, &[u8]) = match path {
        "/page.js" => (SCRIPT, include_bytes!("../../page/page.js")),
        "/subscription.js" => (SCRIPT, include_bytes!("../../page/subscription.js")),
        "/tail.js" => (SCRIPT, include_bytes!("../../page/tail.js")),
        "/page.css" => ("text/css; charset=utf-8", include_bytes!("../../page/page.css")),
        "/favicon.svg" | "/favicon.ico" => ("image/svg+xml", include_bytes!("../../page/favicon.svg")),
        _ => return None,
    };
    Some(Asset { content_type, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATHS: [&str; 5] = ["/page.js", "/subscription.js", "/tail.js", "/page.css", "/favicon.svg"];

    /// The most that the page's own source may have, in bytes.
    const MAX_SOURCE: usize = 60_000;

    fn text(asset: Asset) -> &'static str {
        std::str::from_utf8(asset.body).unwrap()
    }

    /// What stands between quotes after `before`, each time.
    fn quoted<'a>(text: &'a str, before: &'a str, quote: char) -> impl Iterator<Item = &'a str> {
        text.split(before).skip(1).filter_map(move |rest| rest.split(quote).next())
    }

    #[test]
    fn everything_the_page_refers_to_is_there() {
        let document = text(PAGE);
        let references = quoted(document, "src=\"", '"').chain(quoted(document, "href=\"", '"'));
        let mut count = 0;
        for path in references {
            assert!(asset(path).is_some(), "{path}");
            count += 1;
        }
        assert_eq!(count, PATHS.len());
        for script in PATHS.iter().filter(|path| path.ends_with(".js")) {
            for import in quoted(text(asset(script).unwrap()), " from './", '\'') {
                assert!(asset(&format!("/{import}")).is_some(), "{import}");
            }
        }
        assert_eq!(asset("/favicon.ico"), asset("/favicon.svg"));
        assert_eq!(asset("/page.html"), None);
    }

    #[test]
    fn every_element_the_script_looks_for_is_in_the_document() {
        let script = text(asset("/page.js").unwrap());
        for id in quoted(script, "element('", '\'').chain(quoted(script, "show('", '\'')) {
            assert!(text(PAGE).contains(&format!("id=\"{id}\"")), "{id}");
        }
    }

    #[test]
    fn the_document_has_no_script_or_style_of_its_own() {
        let document = text(PAGE);
        assert!(!document.contains("<style") && !document.contains(" style="));
        assert!(!document.contains("javascript:"));
        assert!(!document.split_whitespace().any(|word| word.starts_with("on") && word.contains('=')));
        for script in document.split("<script").skip(1) {
            let (attributes, rest) = script.split_once('>').unwrap();
            assert!(attributes.contains(" src=\""));
            assert!(rest.starts_with("</script>"));
        }
    }

    #[test]
    fn payloads_reach_the_document_as_text_only() {
        for path in PATHS.iter().filter(|path| path.ends_with(".js")) {
            let script = text(asset(path).unwrap());
            for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "srcdoc"] {
                assert!(!script.contains(way), "{path} uses {way}");
            }
        }
    }

    #[test]
    fn the_page_stays_small() {
        let bytes = PAGE.body.len() + PATHS.iter().map(|path| asset(path).unwrap().body.len()).sum::<usize>();
        assert!(bytes <= MAX_SOURCE, "{bytes} bytes");
    }

    #[test]
    fn headers_have_names_and_values_that_http_allows() {
        for (name, value) in SECURITY {
            assert_eq!(name, name.to_ascii_lowercase());
            assert!(value.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{name}");
            assert!(!value.contains("unsafe-"), "{name}");
        }
    }
}
