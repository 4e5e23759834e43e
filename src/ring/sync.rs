//! The primitives that the rings stand on: the standard library's, or in the models loom's, of which
//! one ordering at a time can be weakened.

#[cfg(all(test, feature = "loom"))]
pub use super::weakened::{AtomicBool, AtomicU64, AtomicUsize, fence};
#[cfg(all(test, feature = "loom"))]
pub use loom::{cell::UnsafeCell, sync::Arc};
#[cfg(not(all(test, feature = "loom")))]
pub use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, fence},
};

pub use std::sync::atomic::Ordering;

/// The standard cell with loom's interface, which sees every access.
#[cfg(not(all(test, feature = "loom")))]
#[derive(Debug)]
pub struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(all(test, feature = "loom")))]
impl<T> UnsafeCell<T> {
    pub fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    #[inline]
    pub fn with<R>(&self, look: impl FnOnce(*const T) -> R) -> R {
        look(self.0.get())
    }

    #[inline]
    pub fn with_mut<R>(&self, change: impl FnOnce(*mut T) -> R) -> R {
        change(self.0.get())
    }
}
