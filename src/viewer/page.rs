//! The page, as `scripts/viewer-bundle` makes it of the sources in `web/`.

/// The page with its script and style. It loads nothing else.
pub(super) const PAGE: &str = include_str!("page.html");
/// Where data go in a page that needs no server.
const DATA: &str = "<!-- data -->";

/// The page with `blocks` of data in it, each with its kind. The blocks are base64, so they can hold no markup.
pub(super) fn with_data(blocks: &[(&str, String)]) -> String {
    let block = |(kind, text): &(&str, String)| {
        format!("<script type=\"application/octet-stream\" data-kind=\"{kind}\">{text}</script>\n")
    };
    PAGE.replacen(DATA, &blocks.iter().map(block).collect::<String>(), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_loads_nothing() {
        assert_eq!(PAGE.matches(DATA).count(), 1);
        assert!(PAGE.contains("Content-Security-Policy") && PAGE.contains("default-src 'none'"));
        assert!(PAGE.contains("three.js authors") && PAGE.contains("Permission is hereby granted"));
        let page = with_data(&[("scan", "QUJD".to_owned())]);
        assert!(page.contains("data-kind=\"scan\">QUJD</script>") && !page.contains(DATA));
        for tag in ["<img ", "<iframe", " src=\"http"] {
            assert!(!PAGE.contains(tag), "{tag}");
        }
    }
}
