//! Strict JSON: case-insensitive names, no duplicate and no unknown members, errors with JSON pointers.
//!
//! Documents are read by a [`Reader`] for each kind of value, without a tree of the whole document, so that a request
//! takes about as much memory as its text. `serde_json::Value` would silently keep the last of two members with the same
//! name: a second `"source": null` would export the whole archive.

mod object;
mod pointer;
mod reader;
mod tree;

pub(crate) use self::object::{Object, mismatch};
pub(crate) use self::pointer::{is_shown, property};
pub(crate) use self::reader::{At, Names, OptionalString, Reader, Seed, deserialize, parse};
pub(crate) use self::tree::read_tree;
