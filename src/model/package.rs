//! The code of a function: an immutable zip archive, addressed by its SHA-256.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Invalid;

/// The SHA-256 of a package, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PackageDigest([u8; 32]);

impl PackageDigest {
    /// The digest of a package's bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for PackageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PackageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PackageDigest {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = || Invalid::new("sha256", "must be 64 lower-case hexadecimal digits");
        let digits = text.as_bytes();
        if digits.len() != 64 || digits.iter().any(|d| !matches!(d, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(wrong());
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(digest))
    }
}

impl TryFrom<String> for PackageDigest {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<PackageDigest> for String {
    fn from(digest: PackageDigest) -> Self {
        digest.to_string()
    }
}

/// What a function knows of its package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageRef {
    /// Its address.
    pub sha256: PackageDigest,
    /// Size of the zip archive in bytes.
    pub size: u64,
}

/// Where the bounds of an unpacked package are kept: the API refuses at upload what the agent would refuse at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackageLimits {
    /// Largest archive, in bytes. 50 MiB, AWS Lambda's limit for a direct upload.
    pub packed_bytes: u64,
    /// Largest sum of the unpacked files, in bytes. 250 MiB, AWS Lambda's limit.
    pub unpacked_bytes: u64,
    /// Most entries.
    pub entries: usize,
    /// Largest ratio of unpacked to packed bytes, judged once more than a megabyte is unpacked.
    pub ratio: u64,
}

impl Default for PackageLimits {
    fn default() -> Self {
        Self { packed_bytes: 50 << 20, unpacked_bytes: 250 << 20, entries: 20_000, ratio: 200 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_survives_its_text() {
        let digest = PackageDigest::of(b"");
        assert_eq!(digest.to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert!("E3".repeat(32).parse::<PackageDigest>().is_err());
        assert!("zz".repeat(32).parse::<PackageDigest>().is_err());
        assert!("e3".parse::<PackageDigest>().is_err());
    }
}
