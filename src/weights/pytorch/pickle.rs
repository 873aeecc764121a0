//! A pickle interpreter that builds data and calls nothing.
//!
//! Values live in one flat arena and refer to each other by index, as the unpickler's memo
//! needs: a value fetched twice is the same value, nothing is copied, and neither building nor
//! dropping recurses. Memory is therefore linear in the pickle, whatever it says.
//!
//! Only the handful of calls PyTorch writes for tensors and dictionaries has a meaning here.
//! Any other class, call or object becomes [`Value::Opaque`], which holds its name and no more.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::Dtype;
use super::numpy::{Array, ArrayType};
use crate::files::Budget;

/// Index of a value in the arena.
pub(super) type Id = u32;

/// Most operations in one pickle. Checkpoints of the models read here have some 10^4; each
/// costs at most about 60 bytes of memory.
const MAX_OPS: usize = 4_000_000;
/// Most bytes in the pickle of a checkpoint, which bounds its strings.
pub(super) const MAX_BYTES: usize = 64 << 20;
/// Most bytes in the name of a class, for names are quoted in messages.
const MAX_NAME: usize = 256;
/// Most tensors and storage references in one pickle; they are the largest values.
const MAX_TENSORS: usize = 200_000;
/// Most dimensions of a tensor.
const MAX_RANK: usize = 16;

/// Bytes of copied dictionary entries per byte of pickle. A list that is copied once was written with more bytes
/// for each pair.
const COPIED_PER_BYTE: u64 = 8;
/// Bytes of copied entries always granted.
const COPIED_FLOOR: u64 = 1 << 20;

/// Reason why the interpreter stopped.
#[derive(Debug)]
pub(super) struct PickleError {
    /// Byte offset in the slice given to [`Pickle::parse`].
    pub offset: usize,
    pub reason: String,
}

type Result<T> = std::result::Result<T, String>;

/// A Python value.
#[derive(Debug)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Arc<str>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A module of TorchScript.
    Scripted(Box<Scripted>),
    /// A class or function, as "module.name".
    Global(Arc<str>),
    Storage(Box<Storage>),
    Tensor(Box<Tensor>),
    Bytes(Arc<[u8]>),
    /// Bytes written as a string, one letter each, by its value.
    Letters(Id),
    /// Element type of NumPy's arrays.
    ArrayType(ArrayType),
    /// An array of NumPy; `None` until its content is set, and for content that is not read.
    Array(Option<Box<Array>>),
    /// Anything without a meaning here, by the name of its class or callable.
    Opaque(Arc<str>),
}

/// A module of TorchScript: what its code does is not read, its attributes are.
#[derive(Debug)]
pub(super) struct Scripted {
    /// The generated class.
    class: Arc<str>,
    /// The dictionary of attributes, once it is set.
    attributes: Option<Id>,
}

/// What the names of TorchScript's generated classes begin with.
const SCRIPTED: &str = "__torch__.";

/// A reference to the bytes behind a tensor.
#[derive(Debug)]
pub(super) struct Storage {
    pub key: Arc<str>,
    /// `None` for element types that are not read (complex, quantized).
    pub dtype: Option<Dtype>,
    /// The storage's class, for messages.
    class: Arc<str>,
    pub element_size: usize,
    /// Elements in the whole storage.
    pub numel: usize,
    /// Elements `[start, end)` that a tensor may reach: early files describe views.
    window: (usize, usize),
}

/// A strided view of a storage, checked to lie within what the storage declares.
#[derive(Debug)]
pub(super) struct Tensor {
    /// A [`Value::Storage`].
    pub storage: Id,
    pub dtype: Dtype,
    /// First element, from the start of the storage.
    pub offset: usize,
    pub shape: Vec<usize>,
    /// Elements from one index to the next, per dimension.
    pub stride: Vec<usize>,
    /// Product of `shape`.
    pub numel: usize,
    /// One past the last element of the storage that is read; `offset` if there is none.
    pub end: usize,
}

/// One parsed pickle.
#[derive(Debug)]
pub(super) struct Pickle {
    values: Vec<Value>,
    root: Id,
    /// Bytes of the slice that the pickle took.
    pub len: usize,
}

impl Pickle {
    /// Interprets the pickle at the start of `bytes`, which may take `most` bytes.
    pub(super) fn parse(bytes: &[u8], most: usize) -> std::result::Result<Self, PickleError> {
        let bytes = &bytes[..bytes.len().min(most)];
        let mut machine = Machine {
            bytes,
            at: 0,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            num_tensors: 0,
            copied: Budget::new(bytes.len() as u64, COPIED_PER_BYTE, COPIED_FLOOR),
        };
        match machine.run() {
            Ok(root) => Ok(Self { root, len: machine.at, values: machine.values }),
            Err(reason) => Err(PickleError { offset: machine.at, reason }),
        }
    }

    pub(super) fn root(&self) -> Id {
        self.root
    }

    /// The value at an index of this pickle.
    pub(super) fn get(&self, id: Id) -> &Value {
        self.values.get(id as usize).unwrap_or(&Value::None)
    }

    /// Every storage the pickle mentions.
    pub(super) fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.values.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some(&**storage),
            _ => None,
        })
    }

    /// The items of a dictionary, or the attributes of a module of TorchScript.
    pub(super) fn items(&self, id: Id) -> Option<&[(Id, Id)]> {
        let id = match self.get(id) {
            Value::Scripted(module) => module.attributes?,
            _ => id,
        };
        match self.get(id) {
            Value::Dict(items) => Some(items),
            _ => None,
        }
    }

    /// The value under `key`, if `id` is a dictionary that has it. The last of equal keys
    /// counts, as in Python.
    pub(super) fn lookup(&self, id: Id, key: &str) -> Option<Id> {
        let Value::Dict(entries) = self.get(id) else {
            return None;
        };
        entries
            .iter()
            .rev()
            .find(|(name, _)| matches!(self.get(*name), Value::Str(name) if **name == *key))
            .map(|(_, value)| *value)
    }

    /// A Python-like name of the value's type.
    pub(super) fn type_name(&self, id: Id) -> &str {
        match self.get(id) {
            Value::None => "None",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Str(_) => "str",
            Value::Tuple(_) => "tuple",
            Value::List(_) => "list",
            Value::Dict(_) => "dict",
            Value::Global(name) | Value::Opaque(name) => name,
            Value::Scripted(module) => &module.class,
            Value::Storage(_) => "torch storage",
            Value::Tensor(_) => "torch.Tensor",
            Value::Bytes(_) | Value::Letters(_) => "bytes",
            Value::ArrayType(_) => "numpy.dtype",
            Value::Array(_) => "numpy.ndarray",
        }
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Stack heights at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// Tensors and storage references so far.
    num_tensors: usize,
    /// Bytes that dictionaries made of lists may still take: one list can be named again and again.
    copied: Budget,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Id> {
        for _ in 0..MAX_OPS {
            let [op] = self.take()?;
            match op {
                // PROTO, FRAME, STOP
                0x80 => match self.take()? {
                    [0..=5] => {}
                    [version] => return Err(format!("pickle protocol {version} is unknown")),
                },
                0x95 => {
                    self.take::<8>()?;
                }
                b'.' => return self.pop(),

                b'N' => self.push(Value::None)?,
                0x88 => self.push(Value::Bool(true))?,
                0x89 => self.push(Value::Bool(false))?,
                b'J' => {
                    let int = i32::from_le_bytes(self.take()?);
                    self.push(Value::Int(int.into()))?;
                }
                b'K' => {
                    let [int] = self.take()?;
                    self.push(Value::Int(int.into()))?;
                }
                b'M' => {
                    let int = u16::from_le_bytes(self.take()?);
                    self.push(Value::Int(int.into()))?;
                }
                b'G' => {
                    let float = f64::from_be_bytes(self.take()?);
                    self.push(Value::Float(float))?;
                }
                b'I' => {
                    let value = match self.line()? {
                        "00" => Value::Bool(false),
                        "01" => Value::Bool(true),
                        text => Value::Int(number(text)?),
                    };
                    self.push(value)?;
                }
                b'L' => {
                    let text = self.line()?;
                    let int = number(text.strip_suffix('L').unwrap_or(text))?;
                    self.push(Value::Int(int))?;
                }
                b'F' => {
                    let float = number(self.line()?)?;
                    self.push(Value::Float(float))?;
                }
                0x8a => {
                    let [len] = self.take()?;
                    let value = long(self.slice(len.into())?);
                    self.push(value)?;
                }
                0x8b => {
                    let len = u32::from_le_bytes(self.take()?);
                    let value = long(self.slice(len.into())?);
                    self.push(value)?;
                }

                // Unicode strings; the protocol 0 form escapes what no key of ours contains.
                b'V' => {
                    let text = self.line()?;
                    self.push(Value::Str(text.into()))?;
                }
                0x8c => self.string::<1>()?,
                b'X' => self.string::<4>()?,
                0x8d => self.string::<8>()?,
                // Python 2 strings, which may hold any bytes.
                b'U' => self.raw_string::<1>()?,
                b'T' => self.raw_string::<4>()?,
                b'C' => self.bytes::<1>()?,
                b'B' => self.bytes::<4>()?,
                0x8e | 0x96 => self.bytes::<8>()?,

                b'(' => self.marks.push(self.stack.len()),
                b')' => self.push(Value::Tuple(Vec::new()))?,
                b']' => self.push(Value::List(Vec::new()))?,
                b'}' => self.push(Value::Dict(Vec::new()))?,
                0x8f => self.push(Value::Opaque("set".into()))?,
                b't' => {
                    let items = self.pop_to_mark()?;
                    self.push(Value::Tuple(items))?;
                }
                0x85 => self.tuple::<1>()?,
                0x86 => self.tuple::<2>()?,
                0x87 => self.tuple::<3>()?,
                b'l' => {
                    let items = self.pop_to_mark()?;
                    self.push(Value::List(items))?;
                }
                0x91 => {
                    self.pop_to_mark()?;
                    self.push(Value::Opaque("frozenset".into()))?;
                }
                b'd' => {
                    let items = self.pop_to_mark()?;
                    self.push(Value::Dict(pairs(&items)?))?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(&[item])?;
                }
                b'e' | 0x90 => {
                    let items = self.pop_to_mark()?;
                    self.append(&items)?;
                }
                b's' => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    self.set_items(&[key, value])?;
                }
                b'u' => {
                    let items = self.pop_to_mark()?;
                    self.set_items(&items)?;
                }

                b'0' => {
                    if self.marks.last() == Some(&self.stack.len()) {
                        self.marks.pop();
                    } else {
                        self.pop()?;
                    }
                }
                b'1' => {
                    self.pop_to_mark()?;
                }
                b'2' => self.stack.push(self.top()?),

                b'g' => {
                    let index = number(self.line()?)?;
                    self.recall(index)?;
                }
                b'h' => {
                    let [index] = self.take()?;
                    self.recall(index.into())?;
                }
                b'j' => {
                    let index = u32::from_le_bytes(self.take()?);
                    self.recall(index)?;
                }
                b'p' => {
                    let index = number(self.line()?)?;
                    self.memo.insert(index, self.top()?);
                }
                b'q' => {
                    let [index] = self.take()?;
                    self.memo.insert(index.into(), self.top()?);
                }
                b'r' => {
                    let index = u32::from_le_bytes(self.take()?);
                    self.memo.insert(index, self.top()?);
                }
                0x94 => {
                    // Bounded by MAX_OPS, so the index always fits.
                    let index = self.memo.len() as u32;
                    self.memo.insert(index, self.top()?);
                }

                b'c' => {
                    let module = self.line()?;
                    let name = self.line()?;
                    self.global(module, name)?;
                }
                0x93 => {
                    let name = self.pop()?;
                    let module = self.pop()?;
                    let (Value::Str(module), Value::Str(name)) = (self.get(module), self.get(name)) else {
                        return Err("a class name is not a string".into());
                    };
                    let (module, name) = (module.clone(), name.clone());
                    self.global(&module, &name)?;
                }
                b'Q' => {
                    let id = self.pop()?;
                    let value = self.storage(id)?;
                    self.push(value)?;
                }
                // REDUCE and NEWOBJ: class or function, argument tuple.
                b'R' | 0x81 => {
                    let arguments = self.pop()?;
                    let callable = self.pop()?;
                    self.call(callable, arguments)?;
                }
                0x92 => {
                    self.pop()?;
                    let arguments = self.pop()?;
                    let callable = self.pop()?;
                    self.call(callable, arguments)?;
                }
                b'b' => {
                    let state = self.pop()?;
                    let object = self.top()?;
                    self.build(object, state)?;
                }
                _ => return Err(format!("unknown or unsupported opcode 0x{op:02x}")),
            }
        }
        Err(format!("more than {MAX_OPS} operations"))
    }

    fn slice(&mut self, len: u64) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(len)
            .ok()
            .and_then(|len| rest.get(..len))
            .ok_or_else(|| format!("needs {len} more bytes, {} are left", rest.len()))?;
        self.at += taken.len();
        Ok(taken)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        match self.bytes[self.at..].first_chunk::<N>() {
            Some(bytes) => {
                self.at += N;
                Ok(*bytes)
            }
            None => Err("ends in the middle".into()),
        }
    }

    /// A little-endian length of `N` bytes, and as many bytes.
    fn counted<const N: usize>(&mut self) -> Result<&'a [u8]> {
        let mut len = [0; 8];
        len[..N].copy_from_slice(&self.take::<N>()?);
        self.slice(u64::from_le_bytes(len))
    }

    fn line(&mut self) -> Result<&'a str> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|&byte| byte == b'\n').ok_or("a line has no end")?;
        self.at += len + 1;
        std::str::from_utf8(&rest[..len]).map_err(|_| "a line is not UTF-8".into())
    }

    fn string<const N: usize>(&mut self) -> Result<()> {
        let text = std::str::from_utf8(self.counted::<N>()?).map_err(|_| "a string is not UTF-8")?;
        self.push(Value::Str(text.into()))
    }

    fn raw_string<const N: usize>(&mut self) -> Result<()> {
        let value = match std::str::from_utf8(self.counted::<N>()?) {
            Ok(text) => Value::Str(text.into()),
            Err(_) => Value::Opaque("bytes".into()),
        };
        self.push(value)
    }

    fn bytes<const N: usize>(&mut self) -> Result<()> {
        let bytes = self.counted::<N>()?.into();
        self.push(Value::Bytes(bytes))
    }

    fn global(&mut self, module: &str, name: &str) -> Result<()> {
        if module.len() + name.len() > MAX_NAME {
            return Err(format!("a class name is longer than {MAX_NAME} bytes"));
        }
        self.push(Value::Global(format!("{module}.{name}").into()))
    }

    fn get(&self, id: Id) -> &Value {
        self.values.get(id as usize).unwrap_or(&Value::None)
    }

    fn push(&mut self, value: Value) -> Result<()> {
        let id = Id::try_from(self.values.len()).map_err(|_| "too many values")?;
        if matches!(value, Value::Tensor(_) | Value::Storage(_)) {
            self.num_tensors += 1;
            if self.num_tensors > MAX_TENSORS {
                return Err(format!("more than {MAX_TENSORS} tensors"));
            }
        }
        self.values.push(value);
        self.stack.push(id);
        Ok(())
    }

    /// Stack height below which the innermost mark forbids to reach.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Id> {
        match self.stack.last() {
            Some(&id) if self.stack.len() > self.floor() => Ok(id),
            _ => Err("the stack is empty".into()),
        }
    }

    fn pop(&mut self) -> Result<Id> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or("a mark is missing")?;
        Ok(self.stack.split_off(mark))
    }

    fn tuple<const N: usize>(&mut self) -> Result<()> {
        let mut items = vec![0; N];
        for item in items.iter_mut().rev() {
            *item = self.pop()?;
        }
        self.push(Value::Tuple(items))
    }

    fn append(&mut self, items: &[Id]) -> Result<()> {
        let list = self.top()?;
        match self.values.get_mut(list as usize) {
            Some(Value::List(list)) => list.extend_from_slice(items),
            Some(Value::Opaque(_)) => {}
            _ => return Err("items are added to something that is no list".into()),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Result<()> {
        let dict = self.top()?;
        let items = pairs(items)?;
        match self.values.get_mut(dict as usize) {
            Some(Value::Dict(dict)) => dict.extend(items),
            Some(Value::Opaque(_)) => {}
            _ => return Err("items are set on something that is no dictionary".into()),
        }
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Result<()> {
        let id = *self.memo.get(&index).ok_or_else(|| format!("memo {index} was never set"))?;
        self.stack.push(id);
        Ok(())
    }

    fn call(&mut self, callable: Id, arguments: Id) -> Result<()> {
        let (Value::Global(name), Value::Tuple(arguments)) = (self.get(callable), self.get(arguments)) else {
            let name = match self.get(callable) {
                Value::Global(name) | Value::Opaque(name) => name.clone(),
                _ => "object".into(),
            };
            return self.push(Value::Opaque(name));
        };
        let value = match (&**name, arguments.as_slice()) {
            ("collections.OrderedDict", []) | ("collections.defaultdict", [] | [_]) => Value::Dict(Vec::new()),
            ("collections.OrderedDict", &[items]) => self.dict_of_pairs(items)?,
            (
                "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2",
                [storage, offset, shape, stride, ..],
            ) => self.tensor(*storage, *offset, *shape, *stride)?,
            ("torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state", [data, ..]) => {
                self.stack.push(*data);
                return Ok(());
            }
            ("torch.Size", [sizes]) if matches!(self.get(*sizes), Value::Tuple(_)) => {
                self.stack.push(*sizes);
                return Ok(());
            }
            ("_codecs.encode", [text, _]) if matches!(self.get(*text), Value::Str(_)) => Value::Letters(*text),
            ("numpy.dtype", [element, ..]) => match self.get(*element) {
                Value::Str(element) => {
                    ArrayType::parse(element).map_or_else(|| Value::Opaque(name.clone()), Value::ArrayType)
                }
                _ => Value::Opaque(name.clone()),
            },
            ("numpy.core.multiarray._reconstruct" | "numpy._core.multiarray._reconstruct", _) => Value::Array(None),
            (class, []) if class.starts_with(SCRIPTED) => {
                Value::Scripted(Box::new(Scripted { class: name.clone(), attributes: None }))
            }
            _ => Value::Opaque(name.clone()),
        };
        self.push(value)
    }

    /// Sets the state of an object. It matters for modules of TorchScript and arrays only: a dictionary keeps its
    /// items.
    fn build(&mut self, object: Id, state: Id) -> Result<()> {
        let built = match (self.get(object), self.get(state)) {
            (Value::ArrayType(element), Value::Tuple(state)) => {
                let order = state.get(1).map(|order| self.get(*order));
                let is_big = matches!(order, Some(Value::Str(order)) if **order == *">");
                Value::ArrayType(element.ordered(is_big))
            }
            (Value::Array(_), Value::Tuple(state)) => Value::Array(self.array(state)?.map(Box::new)),
            _ => {
                if let Some(Value::Scripted(module)) = self.values.get_mut(object as usize) {
                    module.attributes = Some(state);
                }
                return Ok(());
            }
        };
        if let Some(value) = self.values.get_mut(object as usize) {
            *value = built;
        }
        Ok(())
    }

    /// `(version, shape, element type, column-major, bytes)`; `None` for content that is not read.
    fn array(&self, state: &[Id]) -> Result<Option<Array>> {
        let &[_, shape, element, is_fortran, data] = state else { return Ok(None) };
        let (Value::ArrayType(element), Value::Bytes(_) | Value::Letters(_)) = (self.get(element), self.get(data))
        else {
            return Ok(None);
        };
        let shape = self.sizes(shape, "an array's shape")?;
        let numel = shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent));
        let numel = numel.ok_or_else(|| format!("an array of shape {shape:?} overflows"))?;
        let is_fortran = matches!(self.get(is_fortran), Value::Bool(true)) && shape.len() > 1;
        if is_fortran && shape.len() != 2 {
            return Ok(None);
        }
        Ok(Some(Array { shape, numel, element: *element, is_fortran, data }))
    }

    fn dict_of_pairs(&mut self, items: Id) -> Result<Value> {
        let (Value::List(items) | Value::Tuple(items)) = self.values.get(items as usize).unwrap_or(&Value::None) else {
            return Err("OrderedDict is built from something that is no list".into());
        };
        let size = items.len() as u64 * size_of::<(Id, Id)>() as u64;
        self.copied.charge(size).map_err(|error| format!("lists are copied into dictionaries too often: {error}"))?;
        let entries = items.iter().map(|item| match self.get(*item) {
            Value::Tuple(pair) | Value::List(pair) => match **pair {
                [key, value] => Ok((key, value)),
                _ => Err("an OrderedDict item is no pair".to_owned()),
            },
            _ => Err("an OrderedDict item is no pair".to_owned()),
        });
        Ok(Value::Dict(entries.collect::<Result<_>>()?))
    }

    fn size(&self, id: Id, what: &str) -> Result<usize> {
        match self.get(id) {
            Value::Int(int) => usize::try_from(*int).map_err(|_| format!("{what} is {int}")),
            _ => Err(format!("{what} is no integer")),
        }
    }

    fn sizes(&self, id: Id, what: &str) -> Result<Vec<usize>> {
        match self.get(id) {
            Value::Tuple(items) | Value::List(items) if items.len() <= MAX_RANK => {
                items.iter().map(|item| self.size(*item, what)).collect()
            }
            Value::Tuple(items) | Value::List(items) => {
                Err(format!("a tensor has {} dimensions, more than {MAX_RANK}", items.len()))
            }
            _ => Err(format!("{what} is no tuple")),
        }
    }

    /// `('storage', class, key, location, element count[, view])`, where a view is `None` or
    /// `(view key, first element, element count)`.
    fn storage(&self, id: Id) -> Result<Value> {
        let Value::Tuple(fields) = self.get(id) else {
            return Err("a persistent id is no tuple".into());
        };
        let [tag, class, key, _location, numel, view @ ..] = fields.as_slice() else {
            return Err("a storage reference is too short".into());
        };
        if !matches!(self.get(*tag), Value::Str(tag) if **tag == *"storage") {
            return Err("a persistent id is no storage reference".into());
        }
        let (Value::Global(class), Value::Str(key)) = (self.get(*class), self.get(*key)) else {
            return Err("a storage reference lacks its class or key".into());
        };
        if key.len() > MAX_NAME {
            return Err(format!("a storage key is longer than {MAX_NAME} bytes"));
        }
        let (dtype, element_size) = element_type(class).ok_or_else(|| format!("storages of {class} are unknown"))?;
        let numel = self.size(*numel, "a storage's length")?;
        let window = match view.first().map(|view| self.get(*view)) {
            None | Some(Value::None) => (0, numel),
            Some(Value::Tuple(view)) if view.len() == 3 => {
                let start = self.size(view[1], "a storage view's start")?;
                let len = self.size(view[2], "a storage view's length")?;
                match start.checked_add(len) {
                    Some(end) if end <= numel => (start, end),
                    _ => return Err("a storage view reaches past its storage".into()),
                }
            }
            Some(_) => return Err("a storage view is neither None nor a triple".into()),
        };
        if numel.checked_mul(element_size).is_none() {
            return Err(format!("a storage of {numel} elements overflows"));
        }
        Ok(Value::Storage(Box::new(Storage {
            key: key.clone(),
            dtype,
            class: class.clone(),
            element_size,
            numel,
            window,
        })))
    }

    fn tensor(&self, storage_id: Id, offset: Id, shape: Id, stride: Id) -> Result<Value> {
        let Value::Storage(storage) = self.get(storage_id) else {
            return Err("a tensor is built on something that is no storage".into());
        };
        let Some(dtype) = storage.dtype else {
            return Ok(Value::Opaque(format!("tensor on {}", storage.class).into()));
        };
        let shape = self.sizes(shape, "a tensor's shape")?;
        let stride = self.sizes(stride, "a tensor's stride")?;
        if shape.len() != stride.len() {
            return Err("a tensor's shape and stride differ in length".into());
        }
        let (start, limit) = storage.window;
        let offset = self.size(offset, "a tensor's offset")?.checked_add(start).ok_or("a tensor's offset overflows")?;
        let numel = shape
            .iter()
            .try_fold(1usize, |product, &extent| product.checked_mul(extent))
            .ok_or_else(|| format!("a tensor of shape {shape:?} overflows"))?;
        let end = if numel == 0 {
            Some(offset)
        } else {
            shape
                .iter()
                .zip(&stride)
                .try_fold(offset, |last, (&extent, &step)| last.checked_add((extent - 1).checked_mul(step)?))
                .and_then(|last| last.checked_add(1))
        };
        match end {
            Some(end) if end <= limit => {
                Ok(Value::Tensor(Box::new(Tensor { storage: storage_id, dtype, offset, shape, stride, numel, end })))
            }
            _ => Err(format!(
                "a tensor of shape {shape:?}, stride {stride:?}, offset {offset} reaches past \
                 the {limit} elements of storage '{}'",
                storage.key
            )),
        }
    }
}

/// Element type, where it is read, and size of a storage class.
fn element_type(class: &str) -> Option<(Option<Dtype>, usize)> {
    let name = class.strip_prefix("torch.").map(|name| name.strip_prefix("cuda.").unwrap_or(name))?;
    Some(match name {
        "DoubleStorage" => (Some(Dtype::F64), 8),
        "FloatStorage" => (Some(Dtype::F32), 4),
        "HalfStorage" => (Some(Dtype::F16), 2),
        "BFloat16Storage" => (Some(Dtype::Bf16), 2),
        "LongStorage" => (Some(Dtype::I64), 8),
        "IntStorage" => (Some(Dtype::I32), 4),
        "ShortStorage" => (Some(Dtype::I16), 2),
        "CharStorage" => (Some(Dtype::I8), 1),
        "ByteStorage" => (Some(Dtype::U8), 1),
        "BoolStorage" => (Some(Dtype::Bool), 1),
        "ComplexDoubleStorage" => (None, 16),
        "ComplexFloatStorage" => (None, 8),
        "QInt32Storage" => (None, 4),
        "QInt8Storage" | "QUInt8Storage" | "UntypedStorage" | "storage.UntypedStorage" => (None, 1),
        _ => return None,
    })
}

fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>> {
    match items.as_chunks() {
        (pairs, []) => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
        _ => Err("a dictionary key has no value".into()),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(40).collect();
        format!("'{shown}' is no number")
    })
}

/// A little-endian two's complement integer of any length.
fn long(bytes: &[u8]) -> Value {
    let mut wide = match bytes.last() {
        Some(top) if top & 0x80 != 0 => [0xff; 8],
        _ => [0; 8],
    };
    match wide.get_mut(..bytes.len()) {
        Some(low) => {
            low.copy_from_slice(bytes);
            Value::Int(i64::from_le_bytes(wide))
        }
        None => Value::Opaque("int".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(bytes: &[u8]) -> (Pickle, Id) {
        let pickle = Pickle::parse(bytes, MAX_BYTES).unwrap();
        let root = pickle.root();
        (pickle, root)
    }

    #[test]
    fn scalars_and_containers() {
        // pickle.dumps({"a": (1, -2, 2.5, None), "b": [True, "x"]}, protocol=2)
        let bytes = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01(K\x01J\xfe\xff\xff\xff\
            G@\x04\x00\x00\x00\x00\x00\x00Ntq\x02X\x01\x00\x00\x00bq\x03]q\x04(\x88\
            X\x01\x00\x00\x00xq\x05eu.";
        let (pickle, dict) = root(bytes);
        assert_eq!(pickle.len, bytes.len());
        let Some(Value::Tuple(a)) = pickle.lookup(dict, "a").map(|id| pickle.get(id)) else {
            panic!("a");
        };
        assert!(matches!(pickle.get(a[1]), Value::Int(-2)));
        assert!(matches!(pickle.get(a[2]), Value::Float(2.5)));
        let Some(Value::List(b)) = pickle.lookup(dict, "b").map(|id| pickle.get(id)) else {
            panic!("b");
        };
        assert_eq!(b.len(), 2);
    }

    #[test]
    fn a_call_is_not_made() {
        let (pickle, id) = root(b"cos\nsystem\n(U\x01xtR.");
        assert_eq!(pickle.type_name(id), "os.system");
    }

    #[test]
    fn a_module_of_torchscript_has_its_attributes() {
        // A module within a module, and an object that is none.
        let bytes = b"c__torch__.a\nB\n)\x81}(U\x01xK\x01U\x01mc__torch__.a\nC\n)\x81}(U\x01yK\x02ubU\x01ocos\nx\n)\x81}U\x01zK\x03sbub.";
        let (pickle, id) = root(bytes);
        assert_eq!(pickle.type_name(id), "__torch__.a.B");
        let [(_, x), (_, m), (_, o)] = pickle.items(id).unwrap() else { panic!("three attributes") };
        assert!(matches!(pickle.get(*x), Value::Int(1)));
        let [(_, y)] = pickle.items(*m).unwrap() else { panic!("one attribute") };
        assert!(matches!(pickle.get(*y), Value::Int(2)));
        assert!(pickle.items(*o).is_none() && pickle.type_name(*o) == "os.x");
        // One without attributes, and one whose attributes are itself.
        let (pickle, id) = root(b"c__torch__.a\nB\n)\x81.");
        assert!(pickle.items(id).is_none());
        let (pickle, id) = root(b"c__torch__.a\nB\n)\x81q\x00h\x00b.");
        assert!(pickle.items(id).is_none());
    }

    #[test]
    fn one_long_name_is_not_many() {
        let mut bytes = b"c".to_vec();
        bytes.resize(MAX_NAME + 1, b'a');
        bytes.extend(b"\na\n.");
        assert!(Pickle::parse(&bytes, MAX_BYTES).is_err());
    }

    #[test]
    fn long_integers() {
        assert!(matches!(long(&[]), Value::Int(0)));
        assert!(matches!(long(&[0xff]), Value::Int(-1)));
        assert!(matches!(long(&[0xff, 0]), Value::Int(255)));
        assert!(matches!(long(&[0; 9]), Value::Opaque(_)));
    }

    #[test]
    fn broken_ones_are_errors() {
        for bytes in [
            &b""[..],
            b".",
            b"(.",
            b"(0.",
            b"t.",
            b"h\x05.",
            b"]K\x01s.",
            b"}K\x01K\x02K\x03su.",
            b"X\xff\xff\xff\xff.",
            b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.",
            b"\x80\x09.",
            b"\xff",
            b"NQ.",
            b"K\x01(0a.",
        ] {
            assert!(Pickle::parse(bytes, MAX_BYTES).is_err(), "{bytes:?}");
        }
    }
}
