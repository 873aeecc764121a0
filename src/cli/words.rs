//! The option `--words`: words to look for.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

/// Returns the words of all `--words` in their order, each once. The text encoder ignores case and repeated
/// spaces.
pub(super) fn words(given: &[String]) -> Result<Vec<String>> {
    let mut words: Vec<String> = Vec::new();
    let mut known = BTreeSet::new();
    let commas = [',', '\n', ';', '，', '、', '،', '；'];
    for word in given.iter().flat_map(|words| words.split(commas)) {
        let word = word.split_whitespace().collect::<Vec<_>>().join(" ");
        if !word.is_empty() && known.insert(word.to_lowercase()) {
            words.push(word);
        }
    }
    if words.is_empty() {
        bail!("--words names nothing to look for: \"chair, table, lamp\"");
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_trimmed_and_kept_once() {
        let given = ["chair,  dining table ,, lamp".to_owned(), "lamp,sofa".to_owned()];
        assert_eq!(words(&given).unwrap(), ["chair", "dining table", "lamp", "sofa"]);
        assert!(words(&[" , ".to_owned()]).is_err());
        assert_eq!(words(&["椅子、桌子，灯".to_owned()]).unwrap(), ["椅子", "桌子", "灯"]);
        assert_eq!(words(&["Dining  Table, dining table".to_owned()]).unwrap(), ["Dining Table"]);
    }
}
