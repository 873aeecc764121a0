use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, OnceLock};

use burn::tensor::Device;
use burn::tensor::wgpu::{WgpuInitError, WgpuSetup};
use serde::Serialize;

/// An adapter and its features.
#[derive(Clone, Debug, Serialize)]
pub struct AdapterReport {
    /// Number to name it by, `--device <index>`.
    pub index: usize,
    /// Name the driver gives.
    pub name: String,
    /// Graphics API.
    pub backend: String,
    /// Discrete, integrated, virtual, software (a CPU behind a graphics API) or other.
    pub kind: AdapterKind,
    /// Driver name and version.
    pub driver: String,
    /// Largest storage buffer binding, in bytes.
    pub max_binding_bytes: u64,
    /// Largest buffer, in bytes.
    pub max_buffer_bytes: u64,
    /// Shared memory of a workgroup, in bytes.
    pub workgroup_bytes: u32,
    /// Most invocations in a workgroup.
    pub workgroup_threads: u32,
    /// 16-bit floats in shaders.
    pub f16: bool,
    /// Smallest and largest subgroup, where shaders can use them.
    pub subgroups: Option<(u32, u32)>,
    /// Timestamps on the device's clock.
    pub timestamps: bool,
    /// Cooperative-matrix shapes, as `MxNxK input → result`.
    pub cooperative_matrices: Vec<String>,
}

/// Kind of an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterKind {
    /// A GPU with its own memory.
    Discrete,
    /// A GPU that shares the host's memory.
    Integrated,
    /// A GPU seen through a hypervisor.
    Virtual,
    /// A CPU behind a graphics API, such as lavapipe.
    Software,
    /// The driver does not say.
    Other,
}

impl fmt::Display for AdapterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Discrete => "discrete GPU",
            Self::Integrated => "integrated GPU",
            Self::Virtual => "virtual GPU",
            Self::Software => "software",
            Self::Other => "other",
        })
    }
}

/// Which device the user asked for: `auto`, `gpu`, `cpu` or an adapter's index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceSelection {
    /// A hardware adapter where there is one, else the host.
    #[default]
    Auto,
    /// A hardware adapter, else a software one.
    Gpu,
    /// The host: no graphics API.
    Cpu,
    /// The adapter of this index.
    Index(usize),
}

impl FromStr for DeviceSelection {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "gpu" => Ok(Self::Gpu),
            "cpu" => Ok(Self::Cpu),
            _ => text.parse().map(Self::Index).map_err(|_| DeviceError::Syntax { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for DeviceSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Gpu => f.write_str("gpu"),
            Self::Cpu => f.write_str("cpu"),
            Self::Index(index) => write!(f, "{index}"),
        }
    }
}

/// Why no device could be had.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The text names no device.
    #[error("`{text}` names no device: expected auto, gpu, cpu or an adapter's index")]
    Syntax {
        /// The text as given.
        text: String,
    },
    /// The machine has no adapter.
    #[error("no graphics adapter found; --device cpu needs none (`geopurify devices` lists what there is)")]
    NoAdapter,
    /// There is no adapter of that index.
    #[error("no adapter {index}: there are {count} (`geopurify devices` lists them)")]
    NoSuchAdapter {
        /// The index asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// The adapter refused to open.
    #[error("{name} does not open: {reason}")]
    Open {
        /// The adapter.
        name: String,
        /// The message of the driver or runtime.
        reason: String,
    },
}

/// Which adapter a selection takes, and why; `None` is the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Index of the adapter, `None` for the host.
    pub adapter: Option<usize>,
    /// One sentence for the user.
    pub why: String,
}

/// A device that is open for use.
#[derive(Clone, Debug)]
pub struct Selected {
    /// The device that tensors go to.
    pub device: Device,
    /// Its name.
    pub name: String,
    /// Index of the adapter, `None` for the host.
    pub adapter: Option<usize>,
    /// Why this one.
    pub why: String,
}

/// Why a software adapter was taken, and what that costs.
const SOFTWARE: &str =
    "only a software adapter was found: it works on the CPU, about thirty times slower than --device cpu";
const SOFTWARE_BY_INDEX: &str = "asked for by index; a software adapter is about thirty times slower than --device cpu";

/// Decides which of `adapters` a selection takes. Hardware comes before software, discrete before
/// integrated; the host is taken by `auto` alone, where there is no hardware, and by `cpu`.
///
/// # Errors
/// [`DeviceError::NoAdapter`] and [`DeviceError::NoSuchAdapter`].
pub fn choose(selection: DeviceSelection, adapters: &[AdapterReport]) -> Result<Choice, DeviceError> {
    let rank = |kind: AdapterKind| match kind {
        AdapterKind::Discrete => 0,
        AdapterKind::Integrated => 1,
        AdapterKind::Virtual => 2,
        AdapterKind::Other => 3,
        AdapterKind::Software => 4,
    };
    let best = adapters.iter().min_by_key(|a| (rank(a.kind), a.index));
    let hardware = best.filter(|a| a.kind != AdapterKind::Software);
    let take = |adapter: &AdapterReport, why: &str| Choice { adapter: Some(adapter.index), why: why.to_owned() };
    let host = |why: &str| Choice { adapter: None, why: why.to_owned() };
    match selection {
        DeviceSelection::Cpu => Ok(host("asked for")),
        DeviceSelection::Auto => Ok(match (hardware, best) {
            (Some(adapter), _) => take(adapter, "the best hardware adapter"),
            (None, Some(_)) => host("no hardware adapter; software adapters run only when named, the host is faster"),
            (None, None) => host("no graphics adapter"),
        }),
        DeviceSelection::Gpu => match (hardware, best) {
            (Some(adapter), _) => Ok(take(adapter, "the best hardware adapter")),
            (None, Some(adapter)) => Ok(take(adapter, SOFTWARE)),
            (None, None) => Err(DeviceError::NoAdapter),
        },
        DeviceSelection::Index(index) => adapters
            .iter()
            .find(|a| a.index == index)
            .map(|adapter| match adapter.kind {
                AdapterKind::Software => take(adapter, SOFTWARE_BY_INDEX),
                _ => take(adapter, "asked for by index"),
            })
            .ok_or(DeviceError::NoSuchAdapter { index, count: adapters.len() }),
    }
}

/// Every adapter of this machine, in the order of their indices.
#[must_use]
pub fn adapters() -> Vec<AdapterReport> {
    enumerate().1.iter().enumerate().map(|(index, adapter)| report(index, adapter)).collect()
}

/// Opens the device a selection takes. An adapter is opened once per process.
///
/// # Errors
/// As [`choose`]; [`DeviceError::Open`] where the driver refuses.
pub fn select(selection: DeviceSelection) -> Result<Selected, DeviceError> {
    if selection == DeviceSelection::Cpu {
        return Ok(host("asked for"));
    }
    let (instance, found) = enumerate();
    let reports: Vec<_> = found.iter().enumerate().map(|(index, adapter)| report(index, adapter)).collect();
    let choice = choose(selection, &reports)?;
    let Some(index) = choice.adapter else { return Ok(host(&choice.why)) };

    static OPEN: OnceLock<Mutex<HashMap<usize, Device>>> = OnceLock::new();
    // A poisoned lock means another thread panicked while opening; its entry was never inserted.
    let mut open = OPEN.get_or_init(Mutex::default).lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let name = reports[index].name.clone();
    let device = match open.get(&index) {
        Some(device) => device.clone(),
        None => {
            let refused = |reason: String| DeviceError::Open { name: name.clone(), reason };
            let adapter = found[index].clone();
            let device = open_adapter(instance, adapter).map_err(refused)?;
            open.insert(index, device.clone());
            device
        }
    };
    Ok(Selected { device, name, adapter: Some(index), why: choice.why })
}

fn host(why: &str) -> Selected {
    Selected { device: Device::flex(), name: "cpu".to_owned(), adapter: None, why: why.to_owned() }
}

fn enumerate() -> (wgpu::Instance, Vec<wgpu::Adapter>) {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    let instance = wgpu::Instance::new(descriptor);
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY));
    (instance, adapters)
}

fn report(index: usize, adapter: &wgpu::Adapter) -> AdapterReport {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    let matrices = adapter.cooperative_matrix_properties();
    AdapterReport {
        index,
        name: info.name,
        backend: info.backend.to_string(),
        kind: match info.device_type {
            wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
            wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
            wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
            wgpu::DeviceType::Cpu => AdapterKind::Software,
            wgpu::DeviceType::Other => AdapterKind::Other,
        },
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        max_binding_bytes: limits.max_storage_buffer_binding_size,
        max_buffer_bytes: limits.max_buffer_size,
        workgroup_bytes: limits.max_compute_workgroup_storage_size,
        workgroup_threads: limits.max_compute_invocations_per_workgroup,
        f16: features.contains(wgpu::Features::SHADER_F16),
        subgroups: features
            .contains(wgpu::Features::SUBGROUP)
            .then_some((info.subgroup_min_size, info.subgroup_max_size)),
        timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
        cooperative_matrices: matrices
            .iter()
            .map(|m| format!("{}x{}x{} {:?} → {:?}", m.m_size, m.n_size, m.k_size, m.ab_type, m.cr_type))
            .collect(),
    }
}

fn open_adapter(instance: wgpu::Instance, adapter: wgpu::Adapter) -> Result<Device, String> {
    let backend = adapter.get_info().backend;
    let request = adapter.request_device(&wgpu::DeviceDescriptor {
        label: Some("geopurify"),
        // Mappable primary buffers slow down discrete GPUs; everything else the adapter has is used.
        required_features: adapter.features().difference(wgpu::Features::MAPPABLE_PRIMARY_BUFFERS),
        required_limits: adapter.limits(),
        memory_hints: wgpu::MemoryHints::MemoryUsage,
        trace: wgpu::Trace::Off,
        // SAFETY: burn's runtime asks for the same; no shader here uses a feature that wgpu leaves
        // unvalidated.
        experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
    });
    let (device, queue) = pollster::block_on(request).map_err(|e| e.to_string())?;
    Device::wgpu_options()
        .setup(WgpuSetup { instance, adapter, device, queue, backend })
        .init()
        .map_err(|e: WgpuInitError| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(index: usize, kind: AdapterKind) -> AdapterReport {
        AdapterReport {
            index,
            name: format!("adapter {index}"),
            backend: "vulkan".to_owned(),
            kind,
            driver: String::new(),
            max_binding_bytes: 1 << 27,
            max_buffer_bytes: 1 << 31,
            workgroup_bytes: 1 << 15,
            workgroup_threads: 1024,
            f16: true,
            subgroups: None,
            timestamps: true,
            cooperative_matrices: Vec::new(),
        }
    }

    #[test]
    fn auto_takes_hardware_and_never_software() {
        let software = adapter(0, AdapterKind::Software);
        let integrated = adapter(1, AdapterKind::Integrated);
        let discrete = adapter(2, AdapterKind::Discrete);
        let all = [software.clone(), integrated.clone(), discrete];
        assert_eq!(choose(DeviceSelection::Auto, &all).unwrap().adapter, Some(2));
        assert_eq!(choose(DeviceSelection::Auto, &all[..2]).unwrap().adapter, Some(1));
        assert_eq!(choose(DeviceSelection::Auto, &all[..1]).unwrap().adapter, None);
        assert_eq!(choose(DeviceSelection::Auto, &[]).unwrap().adapter, None);
    }

    #[test]
    fn gpu_falls_back_on_software_and_fails_without_any() {
        let software = [adapter(0, AdapterKind::Software)];
        assert_eq!(choose(DeviceSelection::Gpu, &software).unwrap().adapter, Some(0));
        assert!(matches!(choose(DeviceSelection::Gpu, &[]), Err(DeviceError::NoAdapter)));
        assert!(matches!(
            choose(DeviceSelection::Index(3), &software),
            Err(DeviceError::NoSuchAdapter { index: 3, count: 1 })
        ));
    }

    #[test]
    fn a_selection_reads_back_as_written() {
        for text in ["auto", "gpu", "cpu", "7"] {
            assert_eq!(text.parse::<DeviceSelection>().unwrap().to_string(), text);
        }
        assert_eq!(
            "cuda".parse::<DeviceSelection>().unwrap_err().to_string(),
            "`cuda` names no device: expected auto, gpu, cpu or an adapter's index"
        );
    }
}
