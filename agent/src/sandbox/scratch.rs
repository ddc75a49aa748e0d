//! What a sandbox has on disk: a directory of its own to write to, and the package to read.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::confine::Who;
use crate::package::Package;
use crate::private::{SHARED, SHARED_MEMORY};
use crate::work_dir::remove_tree;

/// The directories of one sandbox.
#[derive(Debug)]
pub struct Scratch {
    /// Its home.
    pub home: PathBuf,
    /// Its temporary files.
    pub temporary: PathBuf,
    /// The package. The agent's own when sandboxes are other users, who cannot write to it; else a copy, because a
    /// handler may delete or change its own files, and the next sandbox needs them.
    pub task_root: PathBuf,
    who: Who,
    // Keeps it on disk.
    _package: Arc<Package>,
}

impl Scratch {
    /// Makes them. Blocks.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn make(home: PathBuf, who: Who, package: Arc<Package>) -> io::Result<Self> {
        Self::try_make(home.clone(), who, package).inspect_err(|_| drop(remove_tree(&home)))
    }

    fn try_make(home: PathBuf, who: Who, package: Arc<Package>) -> io::Result<Self> {
        let temporary = home.join("tmp");
        let private = |path: &Path| fs::DirBuilder::new().mode(0o700).create(path);
        private(&home)?;
        private(&temporary)?;
        let task_root = match who {
            Who::User(user) => {
                chown(&home, Some(user), Some(user))?;
                chown(&temporary, Some(user), Some(user))?;
                package.root.clone()
            }
            Who::Mark(_) => {
                let copy = home.join("task");
                copy_tree(&package.root, &copy)?;
                copy
            }
        };
        Ok(Self { home, temporary, task_root, who, _package: package })
    }

    /// Removes what the sandbox wrote. To be called when its last process is gone. Blocks.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn remove(&self) -> io::Result<()> {
        if let Who::User(user) = self.who {
            // Where views are not private, it may have left something that the next sandbox with the same user must not
            // find.
            for directory in SHARED.into_iter().chain([SHARED_MEMORY]) {
                for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                    let path = entry.path();
                    match fs::symlink_metadata(&path) {
                        Ok(metadata) if metadata.uid() == user && metadata.is_dir() => remove_tree(&path)?,
                        Ok(metadata) if metadata.uid() == user => fs::remove_file(&path)?,
                        Ok(_) | Err(_) => {}
                    }
                }
            }
        }
        remove_tree(&self.home)
    }
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_tree(&source, &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source)?, target)?;
        } else {
            fs::copy(&source, &target)?;
        }
    }
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))
}
