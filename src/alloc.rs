//! An allocator that puts large blocks into huge pages, for programs that use this library.

use std::alloc::{GlobalAlloc, Layout, System};

/// The system's allocator. On Linux it asks for huge pages under blocks of at least [`LARGE`] bytes.
///
/// The matrices of a scene take hundreds of megabytes. With pages of 4 KiB, first use costs a page fault for
/// every thousand floats, and gathering rows misses the TLB on nearly every row.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: geopurify::alloc::HugePages = geopurify::alloc::HugePages;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct HugePages;

/// Smallest block that is worth the system call, in bytes: two huge pages.
pub const LARGE: usize = 4 << 20;

#[cfg(target_os = "linux")]
fn advise(block: *mut u8, size: usize) {
    const HUGE_PAGE: usize = 2 << 20;
    if size < LARGE || block.is_null() {
        return;
    }
    let lead = block.align_offset(HUGE_PAGE);
    let whole = size.saturating_sub(lead) / HUGE_PAGE * HUGE_PAGE;
    if whole > 0 {
        // SAFETY: the range lies inside the block. The advice changes no contents, and a kernel that ignores
        // it does no harm.
        unsafe { libc::madvise(block.wrapping_add(lead).cast(), whole, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn advise(_block: *mut u8, _size: usize) {}

// SAFETY: every call is passed to the system's allocator unchanged.
unsafe impl GlobalAlloc for HugePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = unsafe { System.alloc(layout) };
        advise(block, layout.size());
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let block = unsafe { System.alloc_zeroed(layout) };
        advise(block, layout.size());
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { System.dealloc(block, layout) };
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let block = unsafe { System.realloc(block, layout, size) };
        advise(block, size);
        block
    }
}
