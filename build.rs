//! Resolves `#import` and `#ifdef` in `shaders/`, reflects every permutation with naga and writes
//! `shaders.rs`: one module per shader with its source, parameter struct, constants and bindings. Asks the linker
//! to merge equal functions of the program, if it can.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=shaders");
    println!("cargo::rerun-if-changed=build.rs");
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("shaders");
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    if links_with(MERGE, &out) {
        println!("cargo::rustc-link-arg-bins={MERGE}");
    }
    match generate(&root) {
        Ok(code) => fs::write(out.join("shaders.rs"), code).expect("OUT_DIR is writable"),
        Err(message) => {
            eprintln!("{message}");
            std::process::exit(1);
        }
    }
}

/// Merges equal functions. lld, gold and mold know it, GNU ld does not.
const MERGE: &str = "-Wl,--icf=all";

/// True if an empty program can be linked with `argument`, by the compiler, for the target and with the flags
/// of this build.
fn links_with(argument: &str, out: &Path) -> bool {
    let source = out.join("empty.rs");
    fs::write(&source, "fn main() {}\n").expect("OUT_DIR is writable");
    let mut rustc = Command::new(env::var_os("RUSTC").expect("cargo sets it"));
    rustc.args(["--target", &env::var("TARGET").expect("cargo sets it"), "-C", &format!("link-arg={argument}")]);
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut choice = OsString::from("linker=");
        choice.push(linker);
        rustc.arg("-C").arg(choice);
    }
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    rustc.args(flags.split('\u{1f}').filter(|flag| !flag.is_empty()));
    rustc.arg(&source).arg("-o").arg(out.join("empty")).stdout(Stdio::null()).stderr(Stdio::null());
    rustc.status().is_ok_and(|status| status.success())
}

/// `op/stage` → the extra sets of defines it is compiled with; the empty set is always there.
type Permutations = BTreeMap<String, Vec<Vec<String>>>;

fn generate(root: &Path) -> Result<String, String> {
    let permutations = read_permutations(&root.join("permutations"))?;
    let mut code = String::new();
    let mut all = Vec::new();
    for op in sorted_entries(root)? {
        let op_name = file_stem(&op);
        if !op.is_dir() || op_name == "shared" {
            continue;
        }
        writeln!(code, "pub mod {op_name} {{").expect("writing to a String");
        for file in sorted_entries(&op)? {
            if file.extension().is_none_or(|e| e != "wgsl") {
                return Err(format!("{}: only .wgsl files belong here", file.display()));
            }
            let stage = file_stem(&file);
            let name = format!("{op_name}/{stage}");
            let mut variants = vec![Vec::new()];
            variants.extend(permutations.get(&name).cloned().unwrap_or_default());
            code.push_str(&shader_module(root, &file, &name, &stage, &variants, &mut all)?);
        }
        code.push_str("}\n");
    }
    for name in permutations.keys() {
        if !root.join(format!("{name}.wgsl")).is_file() {
            return Err(format!("shaders/permutations names {name}, which is not there"));
        }
    }
    writeln!(code, "/// Every shader in every permutation.\npub static ALL: &[&Shader] = &[{}];", all.join(", "))
        .expect("writing to a String");
    Ok(code)
}

fn sorted_entries(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir)
        .map_err(|e| format!("{}: {e}", dir.display()))?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()
        .map_err(|e| format!("{}: {e}", dir.display()))?;
    entries.sort();
    Ok(entries)
}

fn file_stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Lines `op/stage: A, B+C` give the variants with A, and with B and C together.
fn read_permutations(path: &Path) -> Result<Permutations, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut permutations = Permutations::new();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (name, sets) =
            line.split_once(':').ok_or_else(|| format!("shaders/permutations: `{line}` wants `op/stage: DEFINES`"))?;
        let sets = sets.split(',').map(|set| set.trim().split('+').map(|d| d.trim().to_owned()).collect()).collect();
        permutations.insert(name.trim().to_owned(), sets);
    }
    Ok(permutations)
}

fn shader_module(
    root: &Path,
    file: &Path,
    name: &str,
    stage: &str,
    variants: &[Vec<String>],
    all: &mut Vec<String>,
) -> Result<String, String> {
    let mut code = String::new();
    let mut shared: Option<Reflection> = None;
    writeln!(code, "pub mod {stage} {{\nuse crate::gpu::{{Access, Shader}};").expect("writing to a String");
    for (index, defines) in variants.iter().enumerate() {
        let defines: BTreeSet<&str> = defines.iter().map(String::as_str).collect();
        let mut used = BTreeSet::new();
        let source = preprocess(root, file, &defines, &mut BTreeSet::new(), &mut used)?;
        if let Some(unused) = defines.iter().find(|d| !used.contains(**d)) {
            return Err(format!("{name}: permutation defines {unused}, which the source never tests"));
        }
        let module = naga::front::wgsl::parse_str(&source)
            .map_err(|e| format!("{name} {defines:?}: {}", e.emit_to_string(&source)))?;
        let reflection = reflect(&module).map_err(|e| format!("{name} {defines:?}: {e}"))?;
        let (bindings, size) = (reflection.bindings.clone(), reflection.workgroup_size);
        match &mut shared {
            None => shared = Some(reflection),
            Some(first) if first.params != reflection.params => {
                return Err(format!("{name}: parameters must not depend on defines"));
            }
            // A value that a define changes is no constant of the shader.
            Some(first) => first.constants.retain(|c| reflection.constants.contains(c)),
        }
        let ident =
            if defines.is_empty() { "BASE".to_owned() } else { defines.iter().copied().collect::<Vec<_>>().join("_") };
        // Tensors may be slices of one shared page, and wgpu tracks usage per buffer: a page bound
        // both `read` and `read_write` is refused. Sources keep `read`, which documents intent.
        let emitted = source.replace("var<storage, read>", "var<storage, read_write>");
        writeln!(
            code,
            "/// Permutation {defines:?}.\npub static {ident}: Shader = Shader {{ name: {name:?}, variant: {index}, \
             source: {emitted:?}, workgroup_size: [{}, {}, {}], bindings: &[{bindings}] }};",
            size[0], size[1], size[2]
        )
        .expect("writing to a String");
        let (op, _) = name.split_once('/').expect("name is op/stage");
        all.push(format!("&{op}::{stage}::{ident}"));
    }
    let shared = shared.expect("there is always the permutation without defines");
    for constant in &shared.constants {
        code.push_str(constant);
    }
    code.push_str(&shared.params);
    code.push_str("}\n");
    Ok(code)
}

/// Resolves `#import path` (once per file) and `#ifdef` / `#ifndef` / `#else` / `#endif`.
fn preprocess(
    root: &Path,
    file: &Path,
    defines: &BTreeSet<&str>,
    imported: &mut BTreeSet<PathBuf>,
    used: &mut BTreeSet<String>,
) -> Result<String, String> {
    let text = fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let mut out = String::new();
    let mut active = vec![true];
    for (number, line) in text.lines().enumerate() {
        let at = || format!("{}:{}", file.display(), number + 1);
        let mut words = line.split_whitespace();
        let directive = words.next().unwrap_or_default();
        let argument = words.next().unwrap_or_default();
        let enclosing = *active.last().expect("never empty");
        match directive {
            "#ifdef" | "#ifndef" => {
                used.insert(argument.to_owned());
                active.push(enclosing && (defines.contains(argument) == (directive == "#ifdef")));
            }
            "#else" => {
                let was = active.pop().expect("never empty");
                let parent = *active.last().ok_or_else(|| format!("{}: #else without #ifdef", at()))?;
                active.push(parent && !was);
            }
            "#endif" => {
                active.pop();
                if active.is_empty() {
                    return Err(format!("{}: #endif without #ifdef", at()));
                }
            }
            "#import" if enclosing => {
                let path = root.join(format!("{argument}.wgsl"));
                if imported.insert(path.clone()) {
                    out.push_str(&preprocess(root, &path, defines, imported, used)?);
                }
            }
            _ if directive.starts_with('#') && directive != "#import" => {
                return Err(format!("{}: unknown directive {directive}", at()));
            }
            _ if enclosing => {
                out.push_str(line);
                out.push('\n');
            }
            _ => {}
        }
    }
    if active.len() != 1 {
        return Err(format!("{}: #ifdef without #endif", file.display()));
    }
    Ok(out)
}

/// The facts about a parsed shader that Rust needs.
struct Reflection {
    /// Rust source of the binding list.
    bindings: String,
    /// Rust declarations of the shader's scalar constants.
    constants: Vec<String>,
    /// Rust source of `Params`.
    params: String,
    workgroup_size: [u32; 3],
}

fn reflect(module: &naga::Module) -> Result<Reflection, String> {
    let [entry] = module.entry_points.as_slice() else {
        return Err("wants exactly one entry point".into());
    };
    if entry.name != "main" {
        return Err(format!("the entry point is `{}`, wants `main`", entry.name));
    }
    let mut bindings = BTreeMap::new();
    let mut constants = Vec::new();
    for (_, constant) in module.constants.iter() {
        let Some(name) = &constant.name else { continue };
        if let naga::Expression::Literal(literal) = module.global_expressions[constant.init] {
            let (ty, value) = match literal {
                naga::Literal::U32(v) => ("u32", v.to_string()),
                naga::Literal::I32(v) => ("i32", v.to_string()),
                naga::Literal::F32(v) => ("f32", format!("{v:?}")),
                _ => continue,
            };
            constants.push(format!("pub const {name}: {ty} = {value};\n"));
        }
    }
    let mut params = None;
    for (_, variable) in module.global_variables.iter() {
        let Some(binding) = &variable.binding else { continue };
        let name = variable.name.clone().unwrap_or_default();
        if binding.group != 0 {
            return Err(format!("`{name}` is in group {}, wants 0", binding.group));
        }
        let access = match variable.space {
            naga::AddressSpace::Uniform if name == "params" => {
                params = Some(params_struct(module, variable.ty)?);
                bind(&mut bindings, binding.binding, "Access::Params".to_owned(), &name)?;
                continue;
            }
            naga::AddressSpace::Storage { access } if access.contains(naga::StorageAccess::STORE) => "Access::Write",
            naga::AddressSpace::Storage { .. } => "Access::Read",
            _ => return Err(format!("`{name}`: only storage buffers and the uniform `params` are bound")),
        };
        bind(&mut bindings, binding.binding, access.to_owned(), &name)?;
    }
    let params = params.ok_or("wants a uniform `params: Params`")?;
    let last = bindings.len() as u32 - 1;
    for (i, (&number, (access, name))) in bindings.iter().enumerate() {
        if number != i as u32 {
            return Err(format!("`{name}` is binding {number}, wants {i}: bindings are numbered without gaps"));
        }
        if (access == "Access::Params") != (number == last) {
            return Err("`params` must be the last binding".into());
        }
    }
    let list = bindings.values().map(|(access, name)| format!("({name:?}, {access})")).collect::<Vec<_>>().join(", ");
    Ok(Reflection { bindings: list, constants, params, workgroup_size: entry.workgroup_size })
}

fn bind(bindings: &mut BTreeMap<u32, (String, String)>, number: u32, access: String, name: &str) -> Result<(), String> {
    match bindings.insert(number, (access, name.to_owned())) {
        None => Ok(()),
        Some((_, other)) => Err(format!("`{name}` and `{other}` share binding {number}")),
    }
}

/// The Rust twin of the WGSL `Params`: 32-bit scalars only, so the layouts agree by construction.
fn params_struct(module: &naga::Module, ty: naga::Handle<naga::Type>) -> Result<String, String> {
    let naga::TypeInner::Struct { members, .. } = &module.types[ty].inner else {
        return Err("`params` must be a struct".into());
    };
    let mut code = String::from(
        "#[repr(C)]\n#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]\npub struct Params {\n",
    );
    for member in members {
        let name = member.name.clone().unwrap_or_default();
        let scalar = match &module.types[member.ty].inner {
            naga::TypeInner::Scalar(naga::Scalar { kind: naga::ScalarKind::Uint, width: 4 }) => "u32",
            naga::TypeInner::Scalar(naga::Scalar { kind: naga::ScalarKind::Sint, width: 4 }) => "i32",
            naga::TypeInner::Scalar(naga::Scalar { kind: naga::ScalarKind::Float, width: 4 }) => "f32",
            _ => return Err(format!("Params.{name}: only u32, i32 and f32")),
        };
        writeln!(code, "pub {name}: {scalar},").expect("writing to a String");
    }
    code.push_str("}\n");
    Ok(code)
}
