mod broken;
mod chains;
mod locks;
pub mod rig;
mod rt;
