pub(crate) mod blob;
mod broken;
mod host;
mod lookup;
mod paths;
