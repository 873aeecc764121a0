//! MTL: the colours and pictures of an OBJ file's materials.

use std::collections::BTreeMap;

use crate::cloud::data::parse_f64;

/// A material.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Material {
    /// The diffuse colour.
    pub color: Option<[u8; 3]>,
    /// File of the picture with the diffuse colour.
    pub picture: Option<String>,
}

/// Adds the materials of a file to `known`. Lines that are not understood are passed over: many programs
/// add their own.
pub(super) fn read(bytes: &[u8], known: &mut BTreeMap<String, Material>) {
    let mut name = None;
    for line in bytes.split(|&byte| byte == b'\n') {
        let line = String::from_utf8_lossy(line.trim_ascii());
        let (keyword, rest) = line.split_once(char::is_whitespace).unwrap_or((&line, ""));
        let rest = rest.trim();
        if keyword == "newmtl" {
            name = Some(rest.to_owned());
            known.entry(rest.to_owned()).or_default();
            continue;
        }
        let Some(material) = name.as_ref().and_then(|name| known.get_mut(name)) else { continue };
        match keyword.to_ascii_lowercase().as_str() {
            "kd" => material.color = color(rest).or(material.color),
            "map_kd" => material.picture = Some(without_options(rest)).filter(|file| !file.is_empty()),
            _ => {}
        }
    }
}

fn color(text: &str) -> Option<[u8; 3]> {
    let numbers: Vec<f64> = text.split_whitespace().map_while(|word| parse_f64(word.as_bytes())).collect();
    let [red, green, blue] = match *numbers {
        [grey] => [grey; 3],
        [red, green, blue, ..] => [red, green, blue],
        _ => return None,
    };
    // Casting saturates and turns what is no number into 0.
    Some([red, green, blue].map(|x| (x * 255.0).round() as u8))
}

/// The file name behind the options of a picture.
fn without_options(text: &str) -> String {
    let split = |text: &str| {
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        (word.to_owned(), rest.trim_start().to_owned())
    };
    let mut text = text.trim().to_owned();
    while text.starts_with('-') {
        let (option, mut rest) = split(&text);
        let (least, most) = match option.as_str() {
            "-o" | "-s" | "-t" => (1, 3),
            "-mm" => (2, 2),
            "-blendu" | "-blendv" | "-boost" | "-bm" | "-cc" | "-clamp" | "-imfchan" | "-texres" | "-type" => (1, 1),
            _ => break,
        };
        for taken in 0..most {
            let (word, after) = split(&rest);
            if taken >= least && word.parse::<f32>().is_err() {
                break;
            }
            rest = after;
        }
        text = rest;
    }
    text.trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn materials_and_their_pictures() {
        let text = "# a\nKd 1 1 1\nnewmtl red brick\r\n Kd 1.0 0.5 0\r\nmap_Kd -s 2 2 -o 0 my wall.jpg\nillum 2\n\
                    newmtl plain\nkd 0.2\nnewmtl none\nKd spectral a.rfl\nmap_Kd\n";
        let mut known = BTreeMap::new();
        read(text.as_bytes(), &mut known);
        assert_eq!(known.len(), 3);
        let brick = Material { color: Some([255, 128, 0]), picture: Some("my wall.jpg".into()) };
        assert_eq!(known["red brick"], brick);
        assert_eq!(known["plain"], Material { color: Some([51; 3]), picture: None });
        assert_eq!(known["none"], Material::default());
    }

    #[test]
    fn options_before_a_file() {
        for (text, file) in [
            ("a.png", "a.png"),
            ("-clamp on a b.png", "a b.png"),
            ("-bm 0.5 -s 1 1 1 -mm 0 1 dir\\a.png", "dir\\a.png"),
            ("\"a b.png\"", "a b.png"),
            ("-5.png", "-5.png"),
            ("-s", ""),
        ] {
            assert_eq!(without_options(text), file, "{text}");
        }
    }
}
