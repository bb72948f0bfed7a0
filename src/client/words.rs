//! Words and quotes, as the shell and transactions have them.

/// Splits a line at its blanks. `"…"` and `'…'` hold blanks, and `"…"` the escapes `\"`, `\\`, `\n` and `\t`. None where a
/// quote is left open or an escape is not one of these.
pub(super) fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word = None; // there may be a word and nothing in it: ""
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                let word: &mut String = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => word.push(unescaped(chars.next()?)?),
                        c => word.push(c),
                    }
                }
            }
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

/// The parts of a line between its semicolons; one within quotes is no end of a part.
pub(super) fn parts(line: &str) -> Vec<&str> {
    let (mut quote, mut is_escaped) = (None, false);
    let is_end = |c: char| {
        match quote {
            _ if is_escaped => is_escaped = false,
            Some('"') if c == '\\' => is_escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None => return c == ';',
        }
        false
    };
    line.split(is_end).collect()
}

fn unescaped(c: char) -> Option<char> {
    match c {
        '"' | '\\' => Some(c),
        'n' => Some('\n'),
        't' => Some('\t'),
        _ => None,
    }
}

/// A word as [`words`] reads it back, quoted only where it must be.
pub(super) fn quoted(word: &str) -> String {
    if !word.is_empty() && !word.contains(|c: char| c.is_ascii_whitespace() || c == '"' || c == '\'') {
        return word.to_owned();
    }
    let word = word.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\t', "\\t");
    format!("\"{word}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_at_blanks_and_joined_by_quotes() {
        let words = |line| words(line).unwrap();
        assert_eq!(words("  PUT\tb  k v\r\n"), ["PUT", "b", "k", "v"]);
        assert_eq!(words(r#"a "b c" 'd "e"' """#), ["a", "b c", "d \"e\"", ""]);
        assert_eq!(words(r#""\"\\\n\t" '\n'"#), ["\"\\\n\t", r"\n"]);
        assert_eq!(words(r#"a"b c"d C:\new"#), ["ab cd", r"C:\new"]);
    }

    #[test]
    fn parts_end_at_semicolons_that_are_not_in_quotes() {
        assert_eq!(parts("a b; c;d"), ["a b", " c", "d"]);
        assert_eq!(parts(r#"a ";" ';"' "\";" \;x"#), [r#"a ";" ';"' "\";" \"#, "x"]);
        assert_eq!(parts(""), [""]);
    }

    #[test]
    fn a_quoted_word_is_read_back_as_it_was() {
        for word in ["plain", "", "a b", "it's", "say \"hi\" \\ there", "tab\tand\nnewline"] {
            assert_eq!(words(&quoted(word)).unwrap(), [word]);
        }
    }
}
