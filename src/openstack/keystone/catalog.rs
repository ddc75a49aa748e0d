//! The service catalog that comes with a token, and the types under which a service may stand in it.

use osauth::{EndpointFilters, InterfaceType};
use reqwest::Url;
use serde::Deserialize;

/// Types that mean the same service: the official one first (from the service types authority), then those that
/// installers use or used.
const ALIASES: [&[&str]; 11] = [
    &["application-container", "container"],
    &["block-storage", "volumev3", "volumev2", "volume", "block-store"],
    &["compute"],
    &["container-infrastructure-management", "container-infra", "container-infrastructure"],
    &["identity"],
    &["image"],
    &["key-manager"],
    &["load-balancer"],
    &["message", "messaging"],
    &["network"],
    &["object-store", "object-storage"],
];

/// The types that mean the same as `kind`, best first.
pub(super) fn aliases(kind: &str) -> Vec<&str> {
    match ALIASES.iter().find(|kinds| kinds.contains(&kind)) {
        Some(kinds) => kinds.to_vec(),
        None => vec![kind],
    }
}

/// What services there are.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct Catalog(Vec<Entry>);

#[derive(Clone, Debug, Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug, Deserialize)]
struct Endpoint {
    interface: String,
    #[serde(default)]
    region: Option<String>,
    #[serde(default)]
    region_id: Option<String>,
    url: String,
}

/// Why a catalog has no address; the text says what it has instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NoEndpoint(pub(super) String);

impl Catalog {
    /// The types of all services in it.
    pub fn types(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|entry| entry.kind.as_str())
    }

    /// Whether a service of this type, or one that means the same, is in it.
    #[must_use]
    pub fn has(&self, kind: &str) -> bool {
        let kinds = aliases(kind);
        self.types().any(|known| kinds.contains(&known))
    }

    /// The address of a service: of the first interface, in the filters' order, that it has in the region.
    pub(super) fn endpoint(&self, kind: &str, filters: &EndpointFilters) -> Result<Url, NoEndpoint> {
        let kinds = aliases(kind);
        let Some(entries) = kinds
            .iter()
            .map(|kind| self.0.iter().filter(|entry| entry.kind == *kind).collect::<Vec<_>>())
            .find(|entries| !entries.is_empty())
        else {
            let text = if self.0.is_empty() {
                format!("there is no catalog to find {kind} in: the token has no project")
            } else {
                format!("the catalog has no service of type {}", kinds.join(" or "))
            };
            return Err(NoEndpoint(text));
        };
        let all: Vec<&Endpoint> = entries.iter().flat_map(|entry| &entry.endpoints).collect();
        let here: Vec<&Endpoint> = all
            .iter()
            .copied()
            .filter(|endpoint| filters.region.as_deref().is_none_or(|region| endpoint.is_in(region)))
            .collect();
        if here.is_empty() {
            let mut regions: Vec<_> = all.iter().filter_map(|endpoint| endpoint.region_id.as_deref()).collect();
            regions.sort_unstable();
            regions.dedup();
            let region = filters.region.as_deref().unwrap_or_default();
            return Err(NoEndpoint(format!(
                "{kind} has no endpoint in region '{region}', only in: {}",
                regions.join(", ")
            )));
        }
        let found = filters
            .interfaces
            .iter()
            .find_map(|interface| here.iter().find(|endpoint| endpoint.interface == word(*interface)));
        let Some(endpoint) = found else {
            let wanted: Vec<_> = filters.interfaces.iter().map(|interface| word(*interface)).collect();
            let has: Vec<_> = here.iter().map(|endpoint| endpoint.interface.as_str()).collect();
            return Err(NoEndpoint(format!(
                "{kind} has no {} endpoint, only: {}",
                wanted.join(" or "),
                has.join(", ")
            )));
        };
        match Url::parse(&endpoint.url) {
            Ok(url) if !url.cannot_be_a_base() => Ok(url),
            Ok(_) | Err(_) => Err(NoEndpoint(format!("the address of {kind} in the catalog is no URL"))),
        }
    }
}

impl Endpoint {
    fn is_in(&self, region: &str) -> bool {
        self.region_id.as_deref().or(self.region.as_deref()) == Some(region)
    }
}

const fn word(interface: InterfaceType) -> &'static str {
    match interface {
        InterfaceType::Public => "public",
        InterfaceType::Internal => "internal",
        InterfaceType::Admin => "admin",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn catalog() -> Catalog {
        let endpoint = |interface: &str, region: &str, url: &str| json!({"id": "x", "interface": interface, "region": region, "region_id": region, "url": url});
        serde_json::from_value(json!([
            {"id": "1", "name": "zaqar", "type": "messaging", "endpoints": [
                endpoint("public", "one", "http://p1:8888"),
                endpoint("internal", "one", "http://i1:8888"),
                endpoint("public", "two", "http://p2:8888/messaging"),
            ]},
            {"id": "2", "name": "zun", "type": "container", "endpoints": [endpoint("admin", "one", "not a url")]},
            {"id": "3", "name": "new", "type": "application-container", "endpoints": []},
            {"id": "4", "name": "glance", "type": "image"},
        ]))
        .unwrap()
    }

    fn filters(interfaces: &[InterfaceType], region: Option<&str>) -> EndpointFilters {
        let mut filters = EndpointFilters::default();
        filters.interfaces = interfaces.into();
        filters.region = region.map(str::to_owned);
        filters
    }

    #[test]
    fn an_endpoint_is_found_by_type_region_and_interface() {
        use InterfaceType::{Admin, Internal, Public};
        for (kind, interfaces, region, expected) in [
            ("message", &[Public][..], Some("one"), Ok("http://p1:8888/")),
            ("messaging", &[Internal, Public], Some("one"), Ok("http://i1:8888/")),
            ("message", &[Internal, Public], Some("two"), Ok("http://p2:8888/messaging")),
            ("message", &[Public], None, Ok("http://p1:8888/")),
            ("message", &[Admin], Some("two"), Err("message has no admin endpoint, only: public")),
            ("message", &[Public], Some("three"), Err("message has no endpoint in region 'three', only in: one, two")),
            ("compute", &[Public], None, Err("the catalog has no service of type compute")),
            ("image", &[Public], Some("one"), Err("image has no endpoint in region 'one', only in: ")),
        ] {
            let found = catalog().endpoint(kind, &filters(interfaces, region));
            assert_eq!(found.as_ref().map(Url::as_str).map_err(|error| error.0.as_str()), expected, "{kind}");
        }
    }

    #[test]
    fn a_type_stands_for_all_that_mean_the_same() {
        let catalog = catalog();
        assert!(catalog.has("message") && catalog.has("container") && !catalog.has("function"));
        assert_eq!(aliases("container"), aliases("application-container"));
        let empty = Catalog::default().endpoint("message", &EndpointFilters::default()).unwrap_err();
        assert!(empty.0.contains("has no project"), "{empty:?}");
    }
}
