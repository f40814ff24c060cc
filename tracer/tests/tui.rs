//! Whole screens of the interactive view, compared in full, and walks through it by keys and mouse.
//!
//! The screens stand in `tests/tui/screens/`, one file for each scene and size, with every pane in it. `UPDATE_SCREENS=1 cargo
//! test -p tracer --test tui` writes what is drawn now; read the difference before committing it.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "captures/fixtures.rs"]
#[allow(dead_code, reason = "shared with the tests of captures, which use all of it")]
mod fixtures;
#[path = "tui/scene.rs"]
mod scene;
#[path = "tui/screens.rs"]
mod screens;
#[path = "tui/walks.rs"]
mod walks;
