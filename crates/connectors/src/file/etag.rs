//! Whether a file is still the one that somebody saw.

use std::fs::File;
use std::io::{Read as _, Result, Seek as _};
use std::os::unix::fs::MetadataExt as _;

use sha2::{Digest as _, Sha256};

/// Files up to this size are hashed whole: two writes within one tick of the clock give them the same size and time.
const HASHED: u64 = 1 << 20;

/// A text that is another one when the file is another one: inode, size, time of the last change, and a hash of small files.
///
/// # Errors
/// Those of the operating system.
pub fn etag(file: &mut File) -> Result<String> {
    let found = file.metadata()?;
    let mut hash = Sha256::new();
    hash.update(format!("{}:{}:{}:{}.{}", found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec()));
    if found.size() <= HASHED {
        let mut content = Vec::new();
        file.rewind()?;
        file.take(HASHED + 1).read_to_end(&mut content)?;
        hash.update(&content);
    }
    Ok(hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect())
}
