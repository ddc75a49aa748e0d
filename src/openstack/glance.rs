//! Glance v2: finding images.

use serde::Deserialize;

use super::json::{Operation, found};
use super::{OpenStackError, Service, Session};

/// In catalogs.
pub const SERVICE: Service = Service(&["image"]);

/// An image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Image {
    /// Its id.
    pub id: String,
    /// Its name, not unique.
    #[serde(default)]
    pub name: Option<String>,
    /// `active`: it can be used.
    pub status: String,
    /// The project that owns it.
    #[serde(default)]
    pub owner: Option<String>,
    /// Least memory that it needs, in MiB.
    #[serde(default)]
    pub min_ram: u32,
    /// Least disk that it needs, in GiB.
    #[serde(default)]
    pub min_disk: u32,
    /// The size that it has as a disk, in bytes, where Glance knows it.
    #[serde(default)]
    pub virtual_size: Option<u64>,
}

/// By what images are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By<'a> {
    /// Their name.
    Name(&'a str),
    /// A tag.
    Tag(&'a str),
}

#[derive(Deserialize)]
struct Images {
    images: Vec<Image>,
}

/// Talks to Glance.
#[derive(Clone, Debug)]
pub struct Client {
    session: Session,
}

impl Client {
    /// On this session.
    #[must_use]
    pub const fn new(session: Session) -> Self {
        Self { session }
    }

    /// An image by its id; none: there is no such image for us.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn image(&self, id: &str) -> Result<Option<Image>, OpenStackError> {
        found(operation("image").get(&self.session, &["v2", "images", id], &[]).await)
    }

    /// The newest image that is active: ours, public, or shared with us and accepted; only of this owner, if one is given.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn newest(&self, by: By<'_>, owner: Option<&str>) -> Result<Option<Image>, OpenStackError> {
        let mut query = vec![("status", "active"), ("sort", "created_at:desc"), ("limit", "1")];
        query.push(match by {
            By::Name(name) => ("name", name),
            By::Tag(tag) => ("tag", tag),
        });
        query.extend(owner.map(|owner| ("owner", owner)));
        let found: Images = operation("images").get(&self.session, &["v2", "images"], &query).await?;
        Ok(found.images.into_iter().next())
    }
}

const fn operation(name: &'static str) -> Operation {
    Operation { service: SERVICE, microversion: None, name }
}
