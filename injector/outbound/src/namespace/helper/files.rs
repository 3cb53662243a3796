//! /etc/resolv.conf and /etc/nsswitch.conf of the namespace: mounts of files that no other file system has.
//!
//! The files lie on a tmpfs that only these mounts hold, so nothing has to be deleted after a `kill -9`. A mount on a file is lost when the host renames another file into
//! its place, as resolvers do with every change of a network; so a spare mount of each file is kept aside, and set in place again.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, inotify};
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, move_mount, open_tree, unmount,
};

use crate::namespace::control::Files;
use crate::namespace::error::{SetupError, Step};

const ETC: &str = "/etc";
const RESOLV_CONF: &str = "/etc/resolv.conf";
const NSSWITCH_CONF: &str = "/etc/nsswitch.conf";

/// Where glibc's name service cache listens, which asks the host's resolvers.
const CACHE_DIRS: [&str; 2] = ["/run/nscd", "/var/run/nscd"];

/// A file that is covered.
#[derive(Debug)]
struct Cover {
    path: &'static str,
    text: String,
    /// A mount of the file that is in no place yet.
    spare: OwnedFd,
}

/// The covered files, and a watch on what the host does to them.
#[derive(Debug)]
pub struct Covers {
    covers: Vec<Cover>,
    watch: OwnedFd,
}

impl Covers {
    /// Covers the files.
    pub fn mount(files: &Files) -> Result<Self, SetupError> {
        let wanted = [
            Some((RESOLV_CONF, &files.resolv_conf)),
            files
                .nsswitch_conf
                .as_ref()
                .map(|text| (NSSWITCH_CONF, text)),
        ];
        let wanted: Vec<_> = wanted.into_iter().flatten().collect();
        let failed = |object: &str, error: io::Error| SetupError::io(Step::Files, object, &error);
        // Before the mounts, so that no change goes unseen.
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let watch = inotify::init(flags).map_err(|error| failed("inotify", error.into()))?;
        let covers = make(&wanted).map_err(|error| failed("tmpfs", error))?;
        let mut covers = Self { covers, watch };
        covers.watch_places();
        for cover in &mut covers.covers {
            cover.place().map_err(|error| failed(cover.path, error))?;
        }
        hide_caches();
        Ok(covers)
    }

    /// Covers again what the host has replaced. Where a file is missing for a moment, its return is an event of its own.
    pub fn repair(&mut self) {
        let mut events = [0; 4096];
        while rustix::io::read(&self.watch, &mut events).is_ok_and(|length| length > 0) {}
        // A link may point into another directory now.
        self.watch_places();
        for cover in &mut self.covers {
            if !cover.is_in_place() {
                let _ = cover.place();
            }
        }
    }

    /// Watches /etc and the directories into which its links point. One that is watched already stays so.
    fn watch_places(&self) {
        use inotify::WatchFlags;
        let events = WatchFlags::MOVED_TO | WatchFlags::CREATE | WatchFlags::DELETE;
        let targets = self.covers.iter().map(|cover| fs::canonicalize(cover.path));
        let targets: Vec<_> = targets.filter_map(Result::ok).collect();
        let dirs = targets.iter().filter_map(|target| target.parent());
        for dir in [Path::new(ETC)].into_iter().chain(dirs) {
            let _ = inotify::add_watch(&self.watch, dir, events);
        }
    }
}

impl AsFd for Covers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}

impl Cover {
    /// Sets the spare mount in place, and takes another from it.
    fn place(&mut self) -> io::Result<()> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
        move_mount(&self.spare, "", CWD, self.path, flags)?;
        self.spare = clone_of(self.path)?;
        Ok(())
    }

    fn is_in_place(&self) -> bool {
        fs::read(self.path).is_ok_and(|text| text == self.text.as_bytes())
    }
}

/// Writes the files to a tmpfs that lies over /etc for as long as this takes: until then this process is alone in its mount namespace, and that directory is there for sure.
fn make(wanted: &[(&'static str, &String)]) -> io::Result<Vec<Cover>> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("injector", ETC, "tmpfs", flags, c"mode=755,size=256k")?;
    let covers = wanted.iter().map(|&(path, text)| {
        fs::write(path, text)?;
        let spare = clone_of(path)?;
        let text = text.clone();
        Ok(Cover { path, text, spare })
    });
    let covers = covers.collect();
    unmount(ETC, UnmountFlags::DETACH)?;
    covers
}

fn clone_of(path: &str) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(open_tree(CWD, path, flags)?)
}

fn hide_caches() {
    for dir in CACHE_DIRS {
        if Path::new(dir).is_dir() {
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            let _ = mount("injector", dir, "tmpfs", flags, c"mode=755,size=4k");
        }
    }
}
