//! Instances as child processes.
