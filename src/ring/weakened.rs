//! loom's atomics and fence, of which one place in the source can be weakened: an ordering there is
//! relaxed, a fence left out. That is how the models show that they can fail.
//!
//! The place is named by the environment (`TIDEGATE_MODELS_WEAKEN=lane.rs:123`), because a model
//! that fails may take its process with it: `models::every_ordering_is_needed` starts one for each.

use std::panic::Location;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

/// Names the place that is weakened.
pub const WEAKEN: &str = "TIDEGATE_MODELS_WEAKEN";

/// The file, without its folders, and the line that are weakened in this process.
fn weak() -> Option<&'static (String, u32)> {
    static WEAK: OnceLock<Option<(String, u32)>> = OnceLock::new();
    let read = || {
        let named = std::env::var(WEAKEN).ok()?;
        let (file, line) = named.rsplit_once(':').expect("file:line");
        Some((file.to_owned(), line.parse().expect("a line's number")))
    };
    WEAK.get_or_init(read).as_ref()
}

fn is_weak(place: &Location<'_>) -> bool {
    weak().is_some_and(|(file, line)| {
        place.line() == *line && place.file().rsplit('/').next() == Some(file.as_str())
    })
}

fn ordering(asked: Ordering, place: &Location<'_>) -> Ordering {
    if is_weak(place) { Ordering::Relaxed } else { asked }
}

#[track_caller]
pub fn fence(asked: Ordering) {
    if !is_weak(Location::caller()) {
        loom::sync::atomic::fence(asked);
    }
}

macro_rules! atomics {
    ($($name:ident $value:ty),*) => {$(
        pub struct $name(loom::sync::atomic::$name);

        impl $name {
            #[track_caller]
            pub fn new(value: $value) -> Self {
                Self(loom::sync::atomic::$name::new(value))
            }

            #[track_caller]
            pub fn load(&self, asked: Ordering) -> $value {
                self.0.load(ordering(asked, Location::caller()))
            }

            #[track_caller]
            pub fn store(&self, value: $value, asked: Ordering) {
                self.0.store(value, ordering(asked, Location::caller()));
            }
        }
    )*};
}

atomics!(AtomicBool bool, AtomicUsize usize, AtomicU64 u64);
