//! The image store on disk: named records, layers by content, one lock.
//!
//! ```text
//! <dir>/lock                       held while loading, removing and collecting
//! <dir>/images/<sha256 of name>    one record per name (JSON)
//! <dir>/layers/<diff digest>/fs    an unpacked layer, read-only by agreement
//! <dir>/tmp/…                      work in progress; emptied by the next holder of the lock
//! ```
//! Records and layers appear by rename, so a crash leaves only `tmp`. Readers take no lock.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use prism_faults::point;
use prism_runtime::sealed;
use rustix::fs::{FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::error::ImageError;
use super::layer;
use super::limits::{Budget, Limits};
use super::manifest::{self, Start};
use super::name::ImageName;
use super::source::{DOCUMENT_MAX, Source};
use super::stream::hex;

/// A loaded image, ready to be a sandbox's lower layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedImage {
    /// The name it was asked for or loaded under.
    pub name: ImageName,
    /// `sha256:<hex>`, of the manifest (of the configuration for a `docker save` archive).
    pub digest: String,
    /// Directories for `lowerdir`, topmost first, none twice.
    pub layers: Vec<PathBuf>,
    /// How the image wants to be started.
    pub config: Start,
}

/// What a collection of garbage removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Layers deleted.
    pub layers: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    name: String,
    digest: String,
    /// Diff digests (hex), topmost first.
    layers: Vec<String>,
    config: Start,
}

/// The images of one node.
#[derive(Debug, Clone)]
pub struct ImageStore {
    dir: PathBuf,
    limits: Limits,
}

impl ImageStore {
    /// Opens the store in `dir`, created if missing, with the default [`Limits::IMAGE`].
    ///
    /// # Errors
    /// When the directories cannot be created.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, ImageError> {
        Self::open_with(dir, Limits::IMAGE)
    }

    /// Opens the store with other limits for what is loaded from now on.
    ///
    /// # Errors
    /// When the directories cannot be created.
    pub fn open_with(dir: impl Into<PathBuf>, limits: Limits) -> Result<Self, ImageError> {
        let store = Self {
            dir: dir.into(),
            limits,
        };
        for part in ["", "images", "layers", "tmp"] {
            let path = store.dir.join(part);
            point!("image.store.before_make")
                .and_then(|()| fs::create_dir_all(&path))
                .map_err(|error| ImageError::store("cannot create", &path, error))?;
        }
        if let Some(lock) = store.lock(FlockOperation::NonBlockingLockExclusive)? {
            store.clear_tmp(&lock)?;
        }
        Ok(store)
    }

    /// Loads an image from an OCI layout directory, an OCI archive or a `docker save` archive,
    /// told apart by their content.
    ///
    /// With a `name` the image is known by that name only; when the archive holds several images
    /// it also selects one. Without, it gets every name the archive gives it, and the first is
    /// returned.
    ///
    /// # Errors
    /// What is wrong with the archive and where; nothing of it stays behind then, except layers
    /// that were complete and correct (the next collection of garbage takes them).
    pub fn load(&self, path: &Path, name: Option<&str>) -> Result<LoadedImage, ImageError> {
        let given = name.map(ImageName::parse).transpose()?;
        let lock = self.locked()?;
        self.clear_tmp(&lock)?;
        let source = Source::open(path, self.limits, || self.spool())?;
        let found = manifest::find(&source, given.as_ref().map(ImageName::as_str))?;
        let names = match given {
            Some(name) => vec![name],
            None => found
                .names
                .iter()
                .map(|name| ImageName::parse(name))
                .collect::<Result<Vec<_>, _>>()?,
        };
        let Some(first) = names.first() else {
            let why = "the image has no name of its own; give it one";
            return Err(ImageError::layout(&source.label, why));
        };
        let mut budget = Budget::new(self.limits);
        for layer in &found.layers {
            layer::ensure(&self.dir, &source, layer, &mut budget)?;
        }
        let record = Record {
            name: String::new(),
            digest: found.digest,
            layers: topmost_first(found.layers.into_iter().map(|layer| layer.diff)),
            config: found.start,
        };
        for name in &names {
            self.write(name, &record)?;
        }
        self.image(first.clone(), record)
    }

    /// Every image by name, in order of the names.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn list(&self) -> Result<Vec<LoadedImage>, ImageError> {
        let mut images = Vec::new();
        for record in self.records()? {
            let name = ImageName::parse(&record.name)?;
            images.push(self.image(name, record)?);
        }
        images.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(images)
    }

    /// The image called `name` (`name[:tag]`).
    ///
    /// # Errors
    /// [`ImageError::NotFound`] when there is none.
    pub fn resolve(&self, name: &str) -> Result<LoadedImage, ImageError> {
        let name = ImageName::parse(name)?;
        let path = self.record_path(&name);
        match read_record(&path)? {
            Some(record) => self.image(name, record),
            None => Err(ImageError::NotFound(name.to_string())),
        }
    }

    /// Forgets the name; layers stay until [`Self::collect_garbage`].
    ///
    /// # Errors
    /// [`ImageError::NotFound`] when there is none.
    pub fn remove(&self, name: &str) -> Result<(), ImageError> {
        let name = ImageName::parse(name)?;
        let _lock = self.locked()?;
        let path = self.record_path(&name);
        match fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(ImageError::NotFound(name.to_string()))
            }
            Err(error) => Err(ImageError::store("cannot remove", &path, error)),
        }
    }

    /// Deletes the layers that no name refers to, except those in `in_use` (the `layers` of
    /// images that sandboxes run on).
    ///
    /// # Errors
    /// When a record cannot be read or a layer not deleted; nothing that is referred to is
    /// touched.
    pub fn collect_garbage(&self, in_use: &[PathBuf]) -> Result<Removed, ImageError> {
        let lock = self.locked()?;
        self.clear_tmp(&lock)?;
        let records = self.records()?;
        let mut keep: BTreeSet<PathBuf> = in_use.iter().cloned().collect();
        let referred = records.iter().flat_map(|record| &record.layers);
        keep.extend(referred.map(|diff| layer::directory(&self.dir, diff)));
        let mut removed = Removed::default();
        let layers = self.dir.join("layers");
        for entry in entries(&layers)? {
            if keep.contains(&layers.join(&entry).join("fs")) {
                continue;
            }
            // Out of sight first: a crash in between leaves rubbish in tmp, not half a layer.
            let aside = self.dir.join("tmp").join(&entry);
            let from = layers.join(&entry);
            fs::rename(&from, &aside)
                .map_err(|error| ImageError::store("cannot remove", &from, error))?;
            removed.layers += 1;
        }
        self.clear_tmp(&lock)?;
        Ok(removed)
    }

    fn image(&self, name: ImageName, record: Record) -> Result<LoadedImage, ImageError> {
        let layers: Vec<PathBuf> = record
            .layers
            .iter()
            .map(|diff| layer::directory(&self.dir, diff))
            .collect();
        if let Some(missing) = layers.iter().find(|layer| !layer.is_dir()) {
            let error = io::Error::from(io::ErrorKind::NotFound);
            return Err(ImageError::store(
                "a layer is gone, load the image again:",
                missing,
                error,
            ));
        }
        Ok(LoadedImage {
            name,
            digest: record.digest,
            layers,
            config: record.config,
        })
    }

    fn record_path(&self, name: &ImageName) -> PathBuf {
        self.dir
            .join("images")
            .join(hex(&Sha256::digest(name.as_str())))
    }

    fn records(&self) -> Result<Vec<Record>, ImageError> {
        let images = self.dir.join("images");
        let mut records = Vec::new();
        for entry in entries(&images)? {
            records.extend(read_record(&images.join(entry))?);
        }
        Ok(records)
    }

    fn write(&self, name: &ImageName, record: &Record) -> Result<(), ImageError> {
        let path = self.record_path(name);
        let named = Record {
            name: name.to_string(),
            digest: record.digest.clone(),
            layers: record.layers.clone(),
            config: record.config.clone(),
        };
        let refuse = |error: io::Error| ImageError::store("cannot write", &path, error);
        let bytes = serde_json::to_vec(&named).map_err(|error| refuse(error.into()))?;
        let bytes = sealed::seal(bytes);
        let new = self.dir.join("tmp").join("record");
        let put = || {
            point!("image.record.before_write")?;
            let mut file = File::create(&new)?;
            file.write_all(&bytes)?;
            point!("image.record.before_sync")?;
            file.sync_all()?;
            point!("image.record.before_rename")?;
            fs::rename(&new, &path)?;
            layer::sync_directory(&self.dir.join("images"))?;
            point!("image.record.after")
        };
        put().map_err(refuse)
    }

    fn spool(&self) -> Result<File, ImageError> {
        let path = self.dir.join("tmp").join("archive");
        let options = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path);
        let file = options.map_err(|error| ImageError::store("cannot create", &path, error))?;
        // Without a name it is gone with the descriptor, whatever happens.
        fs::remove_file(&path).map_err(|error| ImageError::store("cannot unlink", &path, error))?;
        Ok(file)
    }

    fn clear_tmp(&self, _lock: &File) -> Result<(), ImageError> {
        let tmp = self.dir.join("tmp");
        let refuse = |error: io::Error| ImageError::store("cannot clear", &tmp, error);
        let opened = File::open(&tmp).map_err(refuse)?;
        for entry in entries(&tmp)? {
            prism_sys::beneath::remove_tree(&opened, entry.as_os_str()).map_err(refuse)?;
        }
        Ok(())
    }

    fn locked(&self) -> Result<File, ImageError> {
        let path = self.dir.join("lock");
        let gone =
            || ImageError::store("cannot lock", &path, io::Error::from(io::ErrorKind::Other));
        self.lock(FlockOperation::LockExclusive)?.ok_or_else(gone)
    }

    fn lock(&self, operation: FlockOperation) -> Result<Option<File>, ImageError> {
        let path = self.dir.join("lock");
        let refuse = |error: io::Error| ImageError::store("cannot lock", &path, error);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600))
            .map_err(|error| refuse(error.into()))?;
        match rustix::fs::flock(&file, operation) {
            Ok(()) => Ok(Some(File::from(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(refuse(error.into())),
        }
    }
}

/// Bottom-first digests turned around. A layer that occurs twice counts where it is topmost: the
/// overlay refuses one directory twice, and everything its lower copy shows, the upper one shows.
fn topmost_first(bottom_first: impl DoubleEndedIterator<Item = String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    bottom_first
        .rev()
        .filter(|diff| seen.insert(diff.clone()))
        .collect()
}

fn entries(directory: &Path) -> Result<Vec<std::ffi::OsString>, ImageError> {
    let refuse = |error: io::Error| ImageError::store("cannot list", directory, error);
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(refuse)? {
        names.push(entry.map_err(refuse)?.file_name());
    }
    names.sort_by(|one, other| one.as_bytes().cmp(other.as_bytes()));
    Ok(names)
}

fn read_record(path: &Path) -> Result<Option<Record>, ImageError> {
    let refuse = |error: io::Error| ImageError::store("cannot read", path, error);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refuse(error)),
    };
    let mut bytes = Vec::new();
    file.take(DOCUMENT_MAX * 2)
        .read_to_end(&mut bytes)
        .map_err(refuse)?;
    let text = sealed::unseal(path, &bytes).map_err(refuse)?;
    serde_json::from_slice(text)
        .map(Some)
        .map_err(|error| refuse(sealed::damaged(path, error.column(), &error.to_string())))
}
