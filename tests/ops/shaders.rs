//! Every shader in every permutation parses and validates, without a GPU.

use std::collections::BTreeSet;
use std::path::Path;

use geopurify::gpu::{Access, shaders};
use naga::valid::{Capabilities, ValidationFlags, Validator};

#[test]
fn every_permutation_validates() {
    assert!(!shaders::ALL.is_empty());
    for shader in shaders::ALL {
        let name = format!("{} permutation {}", shader.name, shader.variant);
        let module = naga::front::wgsl::parse_str(shader.source)
            .unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(shader.source)));
        // `unpack2x16float` is part of WGSL proper; only naga lists it apart, for OpenGL's sake.
        let capabilities = Capabilities::default() | Capabilities::SHADER_FLOAT16_IN_FLOAT32;
        let info = Validator::new(ValidationFlags::all(), capabilities)
            .validate(&module)
            .unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(shader.source)));
        // wgpu derives the layout from the bindings an entry point uses: one that is declared and not
        // used would shift nothing but make the launch fail.
        let entry = info.get_entry_point(0);
        for (handle, variable) in module.global_variables.iter() {
            if variable.binding.is_some() {
                assert!(!entry[handle].is_empty(), "{name}: `{:?}` is bound and never used", variable.name);
            }
        }
        let threads: u32 = shader.workgroup_size.iter().product();
        assert!((1..=256).contains(&threads), "{name}: {threads} threads, WebGPU promises 256");
        assert!(shader.bindings.len() <= 8, "{name}: more bindings than WebGPU promises");
    }
}

#[test]
fn workgroup_memory_is_what_webgpu_promises() {
    for shader in shaders::ALL {
        let name = format!("{} permutation {}", shader.name, shader.variant);
        let module = naga::front::wgsl::parse_str(shader.source)
            .unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(shader.source)));
        let shared = module.global_variables.iter().filter(|(_, v)| v.space == naga::AddressSpace::WorkGroup);
        let bytes: u32 = shared.map(|(_, v)| module.types[v.ty].inner.size(module.to_ctx())).sum();
        assert!(bytes <= 16 << 10, "{name}: {bytes} bytes of workgroup memory");
    }
}

#[test]
fn every_file_is_reached_and_params_come_last() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let mut files = BTreeSet::new();
    for op in std::fs::read_dir(&root).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()) {
        let op_name = op.file_name().unwrap().to_str().unwrap().to_owned();
        for file in std::fs::read_dir(&op).unwrap().map(|e| e.unwrap().path()) {
            if op_name != "shared" {
                files.insert(format!("{op_name}/{}", file.file_stem().unwrap().to_str().unwrap()));
            }
        }
    }
    let known: BTreeSet<String> = shaders::ALL.iter().map(|s| s.name.to_owned()).collect();
    assert_eq!(files, known);
    for shader in shaders::ALL {
        let (last, before) = shader.bindings.split_last().unwrap();
        assert_eq!(last.1, Access::Params, "{}", shader.name);
        assert!(before.iter().all(|(_, access)| *access != Access::Params), "{}", shader.name);
    }
}

#[test]
fn a_shader_and_its_permutation_are_told_apart() {
    let ids: BTreeSet<(&str, u32)> = shaders::ALL.iter().map(|s| (s.name, s.variant)).collect();
    assert_eq!(ids.len(), shaders::ALL.len());
    assert_ne!(
        shaders::sparse_conv::forward::BASE.source,
        shaders::sparse_conv::forward::BIAS.source,
        "the define changes the source"
    );
}
