//! The table of keys: each section of the configuration is declared once, and from that one
//! declaration come the struct, its defaults, its documentation, and the reading and printing of
//! each key by name.
//!
//! Runs at start only. Invariant: what the `section!` macro lists is all that may be set; the file,
//! the environment, the flags, `tidegate config`, docs/configuration.md and the search for the
//! nearest key all read the same table. serde's derive is deliberately absent: it stops at the
//! first error and does not know whether a value came from a flag, the environment or the file.

use toml::de::DeValue;

/// A section of the configuration file, and one row for each of its keys.
#[derive(Debug)]
pub struct About {
    /// The name of the TOML table; empty for the keys at the top of the file.
    pub table: &'static str,
    /// What the section is for, a line an item.
    pub doc: &'static [&'static str],
    /// The keys, in the order in which they are printed.
    pub keys: &'static [Key],
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// The name in its table.
    pub name: &'static str,
    /// Meaning and unit, a line an item.
    pub doc: &'static [&'static str],
    /// What a value looks like.
    pub want: &'static str,
    /// What stands for the value in the help of a flag.
    pub value: &'static str,
}

impl About {
    /// The row of `name`.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The full name of a key, as `mqtt.listen`.
    pub fn path(&self, key: &str) -> String {
        if self.table.is_empty() { key.to_owned() } else { format!("{}.{key}", self.table) }
    }
}

/// A value as it was given.
#[derive(Debug, Clone, Copy)]
pub enum Given<'a> {
    /// In a flag or an environment variable: text, whatever the type.
    Text(&'a str),
    /// In the file.
    Toml(&'a DeValue<'a>),
}

/// Access to the keys of a section by name. A name that the section does not have is a bug of the
/// caller.
pub trait Section {
    /// The rows.
    fn about(&self) -> &'static About;
    /// Sets `key`; the error says what is wrong with the value.
    fn set(&mut self, key: &str, given: Given<'_>) -> Result<(), String>;
    /// The value of `key` as TOML; `None` where an optional key is not set.
    fn show(&self, key: &str) -> Option<String>;
    /// The least and the greatest value of `key` as TOML, where it has bounds.
    fn bounds(&self, key: &str) -> Option<(String, String)>;
    /// Whether the value of `key` is within its bounds.
    fn within_bounds(&self, key: &str) -> bool;
}

/// Declares a section: `key: Type = default; least..=greatest`, the bounds where there are any.
/// The documentation comments are what a person reads in `tidegate config` and in the manual.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident in $table:literal {
            $( $(#[doc = $doc:literal])+ $key:ident : $type:ty = $default:expr $(; $bounds:expr)?, )+
        }
        $( tables { $( $(#[doc = $field_doc:literal])+ $field:ident : $field_type:ty = $field_default:expr, )+ } )?
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $key: $type, )+
            $( $( $(#[doc = $field_doc])+ pub $field: $field_type, )+ )?
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $key: $default, )+ $( $( $field: $field_default, )+ )? }
            }
        }

        impl $name {
            /// The rows of this section.
            pub const ABOUT: $crate::config::section::About = $crate::config::section::About {
                table: $table,
                doc: &[$($about),+],
                keys: &[$( $crate::config::section::Key {
                    name: stringify!($key),
                    doc: &[$($doc),+],
                    want: <$type as $crate::config::setting::Setting>::WANT,
                    value: <$type as $crate::config::setting::Setting>::VALUE,
                } ),+],
            };
        }

        impl $crate::config::section::Section for $name {
            fn about(&self) -> &'static $crate::config::section::About {
                &Self::ABOUT
            }

            fn set(
                &mut self,
                key: &str,
                given: $crate::config::section::Given<'_>,
            ) -> Result<(), String> {
                match key {
                    $( stringify!($key) => {
                        self.$key = $crate::config::setting::read(given)?;
                        Ok(())
                    } )+
                    _ => Err(format!("no key {key:?}")),
                }
            }

            fn show(&self, key: &str) -> Option<String> {
                match key {
                    $( stringify!($key) => $crate::config::setting::Setting::show(&self.$key), )+
                    _ => None,
                }
            }

            fn bounds(&self, key: &str) -> Option<(String, String)> {
                match key {
                    $($( stringify!($key) => {
                        let bounds: std::ops::RangeInclusive<$type> = $bounds;
                        Some(($crate::config::setting::Setting::show(bounds.start())?,
                            $crate::config::setting::Setting::show(bounds.end())?))
                    } )?)+
                    _ => None,
                }
            }

            fn within_bounds(&self, key: &str) -> bool {
                match key {
                    $($( stringify!($key) => {
                        let bounds: std::ops::RangeInclusive<$type> = $bounds;
                        $crate::config::setting::Setting::show(&self.$key).is_none()
                            || bounds.contains(&self.$key)
                    } )?)+
                    _ => true,
                }
            }
        }
    };
}

pub(super) use section;
