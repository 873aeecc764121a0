//! Pickle fragments, as protocol 2 writes them, and what PyTorch's checkpoints are made of.

pub(crate) fn text(text: &str) -> Vec<u8> {
    let len = (text.len() as u32).to_le_bytes();
    [b"X", &len[..], text.as_bytes()].concat()
}

pub(crate) fn int(value: i64) -> Vec<u8> {
    [b"\x8a\x08", &value.to_le_bytes()[..]].concat()
}

pub(crate) fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(", &items.concat()[..], b"t"].concat()
}

pub(crate) fn dict(items: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let items = items.iter().map(|(key, value)| [text(key), value.clone()].concat());
    [b"}(", &items.collect::<Vec<_>>().concat()[..], b"u"].concat()
}

pub(crate) fn global(module: &str, name: &str) -> Vec<u8> {
    format!("c{module}\n{name}\n").into_bytes()
}

pub(crate) fn call(callable: Vec<u8>, arguments: &[Vec<u8>]) -> Vec<u8> {
    [callable, tuple(arguments), b"R".to_vec()].concat()
}

/// A module of TorchScript with its attributes.
pub(crate) fn scripted(class: &str, attributes: &[(&str, Vec<u8>)]) -> Vec<u8> {
    [global("__torch__", class), b")\x81".to_vec(), dict(attributes), b"b".to_vec()].concat()
}

pub(crate) fn storage(class: &str, key: &str, numel: i64) -> Vec<u8> {
    let id = [text("storage"), global("torch", class), text(key), text("cpu"), int(numel)];
    [tuple(&id), b"Q".to_vec()].concat()
}

pub(crate) fn tensor(storage: Vec<u8>, offset: i64, shape: &[i64], stride: &[i64]) -> Vec<u8> {
    let ints = |values: &[i64]| tuple(&values.iter().map(|&v| int(v)).collect::<Vec<_>>());
    let flags = [b"\x89".to_vec(), call(global("collections", "OrderedDict"), &[])];
    let [flag, hooks] = flags;
    call(global("torch._utils", "_rebuild_tensor_v2"), &[storage, int(offset), ints(shape), ints(stride), flag, hooks])
}

pub(crate) fn pickle(value: Vec<u8>) -> Vec<u8> {
    [b"\x80\x02", &value[..], b"."].concat()
}
