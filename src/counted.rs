//! Counts with their nouns, for messages.

/// A count with its noun: "1 frame", "2 frames".
pub(crate) fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        assert_eq!([0, 1, 2].map(|count| counted(count, "scene")), ["0 scenes", "1 scene", "2 scenes"]);
    }
}
