//! The layers of ARCHITECTURE.md hold: a room uses only rooms of earlier lines, and no files use each other in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the crate: `["purify", "tiles"]` for `src/purify/tiles.rs`.
type Module = Vec<String>;

struct Source {
    /// The text without comments, strings and tests.
    code: String,
    /// Names that the module hands on, each with the path it takes it from.
    exports: BTreeMap<String, Module>,
}

fn sources() -> BTreeMap<Module, Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let module = module_of(&path.strip_prefix(&root).unwrap().with_extension(""));
                if module != ["main"] {
                    found.insert(module, Source::read(&path));
                }
            }
        }
    }
    found
}

fn module_of(path: &Path) -> Module {
    let mut module: Module = path.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if matches!(module.last().unwrap().as_str(), "mod" | "lib") {
        module.pop();
    }
    module
}

impl Source {
    fn read(path: &PathBuf) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let code: String = text.lines().map(|line| line.split("//").next().unwrap_or("").to_owned() + "\n").collect();
        let code = code.split("#[cfg(test)]\nmod ").next().unwrap().to_owned();
        let mut exports = BTreeMap::new();
        for tree in statements(&code, "pub use ").into_iter().chain(statements(&code, "pub(crate) use ")) {
            for leaf in leaves(&tree) {
                let name = leaf.last().unwrap().clone();
                exports.insert(name, leaf.into_iter().filter(|part| part != "self").collect());
            }
        }
        Self { code, exports }
    }

    /// All paths that the code names from the crate's root or from the parent, as its `use` lines and in full.
    fn paths(&self) -> BTreeSet<Module> {
        let mut paths = BTreeSet::new();
        for tree in statements(&self.code, "use ") {
            paths.extend(leaves(&tree));
        }
        for start in ["crate::", "super::"] {
            for (at, _) in self.code.match_indices(start) {
                let rest: String =
                    self.code[at..].chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':')).collect();
                paths.insert(rest.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect());
            }
        }
        paths
    }
}

/// What stands behind `keyword` in lines that begin with it, up to the semicolon.
fn statements(code: &str, keyword: &str) -> Vec<String> {
    let starts =
        code.match_indices(keyword).filter(|(at, _)| code[..*at].trim_end_matches(' ').ends_with('\n') || *at == 0);
    starts.map(|(at, _)| code[at + keyword.len()..].split(';').next().unwrap().to_owned()).collect()
}

/// The paths of a `use` tree.
fn leaves(tree: &str) -> Vec<Module> {
    let tree = tree.trim();
    let Some((prefix, group)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap();
        return vec![path.split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()];
    };
    let group = group.trim_end().strip_suffix('}').unwrap();
    let prefix: Module =
        prefix.split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect();
    let (mut parts, mut depth, mut part) = (Vec::new(), 0, String::new());
    for c in group.chars() {
        match c {
            ',' if depth == 0 => parts.push(std::mem::take(&mut part)),
            _ => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                part.push(c);
            }
        }
    }
    parts.push(part);
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| leaves(part)).map(|leaf| [prefix.clone(), leaf].concat()).collect()
}

/// The module that defines what `path`, named in `from`, leads to; `None` for what is not of this crate.
fn target(sources: &BTreeMap<Module, Source>, from: &Module, path: &[String]) -> Option<Module> {
    let mut module = match path.first()?.as_str() {
        "crate" => Module::new(),
        "super" => from[..from.len().checked_sub(1)?].to_vec(),
        "self" => from.clone(),
        child if sources.contains_key(&[from.clone(), vec![child.to_owned()]].concat()) => {
            return target(sources, from, &[&["self".to_owned()], path].concat());
        }
        _ => return None,
    };
    for (place, part) in path.iter().enumerate().skip(1) {
        if part == "super" {
            module.pop()?;
            continue;
        }
        let child = [module.clone(), vec![part.clone()]].concat();
        if sources.contains_key(&child) {
            module = child;
        } else if let Some(export) = sources[&module].exports.get(part).filter(|export| export.len() > 1) {
            let rest = [export.as_slice(), &path[place + 1..]].concat();
            return target(sources, &module, &rest).or(Some(module));
        } else {
            break;
        }
    }
    Some(module)
}

/// Which modules each module uses. Arrows between a module and its own parts are left out: they are one thing.
fn arrows(sources: &BTreeMap<Module, Source>) -> BTreeMap<&Module, BTreeSet<Module>> {
    let of = |module: &Module, source: &Source| {
        let targets = source.paths().into_iter().filter_map(|path| target(sources, module, &path));
        targets.filter(|to| !to.starts_with(module) && !module.starts_with(to)).collect()
    };
    sources.iter().map(|(module, source)| (module, of(module, source))).collect()
}

fn layers() -> Vec<Vec<String>> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    let section = text.split("\n## Layers\n").nth(1).expect("ARCHITECTURE.md has a section Layers");
    let block = section.split("```").nth(1).expect("the section has a list");
    let lines = block.lines().skip(1).filter(|line| !line.trim().is_empty());
    lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

#[test]
fn rooms_use_only_rooms_of_earlier_lines() {
    let sources = sources();
    let layers = layers();
    let layer_of = |room: &str| layers.iter().position(|layer| layer.iter().any(|name| name == room));
    let rooms: BTreeSet<&String> = sources.keys().filter_map(|module| module.first()).collect();
    for room in &rooms {
        assert!(layer_of(room).is_some(), "ARCHITECTURE.md names no layer for src/{room}");
    }
    for name in layers.iter().flatten() {
        assert!(rooms.contains(name), "ARCHITECTURE.md has a layer for {name}, which is not in src");
    }
    let mut wrong = Vec::new();
    for (from, targets) in arrows(&sources) {
        for to in &targets {
            let (Some(room), Some(other)) = (from.first(), to.first()) else { continue };
            if room != other && layer_of(other) >= layer_of(room) {
                wrong.push(format!("{} uses {}", from.join("::"), to.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "against the layers of ARCHITECTURE.md:\n{}", wrong.join("\n"));
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let sources = sources();
    let arrows = arrows(&sources);
    assert!(arrows.values().map(BTreeSet::len).sum::<usize>() > 500, "too few arrows were read");
    let circle: Vec<String> = circle(&arrows).iter().map(|module| module.join("::")).collect();
    assert!(circle.is_empty(), "a circle: {}", circle.join(" -> "));
}

/// The modules of one circle, if there is any.
fn circle(arrows: &BTreeMap<&Module, BTreeSet<Module>>) -> Vec<Module> {
    let mut done: BTreeSet<&Module> = BTreeSet::new();
    for &start in arrows.keys() {
        let mut way: Vec<(&Module, Vec<&Module>)> = vec![(start, arrows[start].iter().collect())];
        while let Some((module, rest)) = way.last_mut() {
            let Some(next) = rest.pop() else {
                done.insert(module);
                way.pop();
                continue;
            };
            if let Some(place) = way.iter().position(|(on_way, _)| *on_way == next) {
                return way[place..].iter().map(|(module, _)| (*module).clone()).collect();
            }
            if let Some((next, targets)) = arrows.get_key_value(next).filter(|(next, _)| !done.contains(*next)) {
                way.push((next, targets.iter().collect()));
            }
        }
    }
    Vec::new()
}

#[test]
fn the_readme_shows_the_example_as_it_is() {
    let read = |name: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    // Its first lines say how it is run.
    let example = read("examples/label_scan.rs");
    let code = example.split_once("\n\n").expect("a comment, then the code").1;
    assert!(
        read("README.md").contains(&format!("```rust\n{code}```\n")),
        "README's example differs from examples/label_scan.rs"
    );
}

#[test]
fn use_trees_are_read() {
    let path = |text: &str| text.split("::").map(str::to_owned).collect::<Module>();
    let found = leaves("crate::a::{b::{C, d as e}, self}");
    assert_eq!(found, [path("crate::a::b::C"), path("crate::a::b::d"), path("crate::a::self")]);
    assert_eq!(statements("use a::b;\npub use c::d;\n    use e;\n", "use "), ["a::b", "e"]);
}
