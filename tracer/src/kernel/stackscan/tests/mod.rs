mod broken;
mod chains;
mod locks;
mod rig;
mod rt;
