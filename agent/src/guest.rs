//! `lambda-agent guest-network`: what a server's config drive tells of its network, as lines that the image's init can
//! read. OpenStack writes `network_data.json` so: <https://docs.openstack.org/nova/latest/user/metadata.html>.

use std::fmt::Write as _;
use std::net::IpAddr;

use serde::Deserialize;

#[derive(Deserialize)]
struct Network {
    #[serde(default)]
    links: Vec<Link>,
    #[serde(default)]
    networks: Vec<Subnet>,
    #[serde(default)]
    services: Vec<Service>,
}

#[derive(Deserialize)]
struct Link {
    id: String,
    ethernet_mac_address: Option<String>,
    mtu: Option<u32>,
}

#[derive(Deserialize)]
struct Subnet {
    link: String,
    #[serde(rename = "type")]
    kind: String,
    ip_address: Option<String>,
    netmask: Option<String>,
    #[serde(default)]
    routes: Vec<Route>,
    #[serde(default)]
    services: Vec<Service>,
}

#[derive(Deserialize)]
struct Route {
    network: IpAddr,
    netmask: IpAddr,
    gateway: IpAddr,
}

#[derive(Deserialize)]
struct Service {
    #[serde(rename = "type")]
    kind: String,
    address: Option<IpAddr>,
}

/// Lines of a word, a network card's hardware address and a value: `link MAC MTU`, `address MAC ADDRESS/PREFIX`, `route MAC
/// NETWORK/PREFIX GATEWAY`, `dhcp MAC`; and `dns ADDRESS`.
///
/// # Errors
/// When it is not what OpenStack writes.
pub fn network(json: &[u8]) -> Result<String, serde_json::Error> {
    let network: Network = serde_json::from_slice(json)?;
    let mut lines = String::new();
    // Writing to a string does not fail.
    let mut line = |line: std::fmt::Arguments<'_>| {
        let _ = writeln!(lines, "{line}");
    };
    let card = |link: &str| {
        let link = network.links.iter().find(|known| known.id == link)?;
        link.ethernet_mac_address.as_ref().map(|address| address.to_ascii_lowercase())
    };
    for link in &network.links {
        if let Some(card) = card(&link.id) {
            line(format_args!("link {card} {}", link.mtu.unwrap_or(1500)));
        }
    }
    for subnet in &network.networks {
        let Some(card) = card(&subnet.link) else { continue };
        match (&subnet.ip_address, subnet.kind.as_str()) {
            // IPv6 configures itself, or does not.
            (_, kind) if kind.ends_with("_dhcp") && kind.starts_with("ipv4") => line(format_args!("dhcp {card}")),
            (Some(address), "ipv4" | "ipv6") => {
                let netmask = subnet.netmask.as_ref().and_then(|netmask| netmask.parse().ok());
                match netmask.map(prefix) {
                    Some(prefix) if !address.contains('/') => line(format_args!("address {card} {address}/{prefix}")),
                    _ => line(format_args!("address {card} {address}")),
                }
                for Route { network, netmask, gateway } in &subnet.routes {
                    line(format_args!("route {card} {network}/{} {gateway}", prefix(*netmask)));
                }
            }
            _ => {}
        }
    }
    let services = network.networks.iter().flat_map(|subnet| &subnet.services).chain(&network.services);
    let mut servers: Vec<_> = services.filter(|service| service.kind == "dns").filter_map(|one| one.address).collect();
    servers.dedup();
    for server in servers {
        line(format_args!("dns {server}"));
    }
    Ok(lines)
}

/// How many bits of an address belong to the network.
fn prefix(netmask: IpAddr) -> u32 {
    match netmask {
        IpAddr::V4(netmask) => netmask.to_bits().count_ones(),
        IpAddr::V6(netmask) => netmask.to_bits().count_ones(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_openstack_writes_becomes_lines() {
        // As Nova writes it, with an address of each kind.
        let json = br#"{
            "links": [
                {"id": "tap1", "vif_id": "1", "type": "ovs", "mtu": 1450, "ethernet_mac_address": "FA:16:3e:00:00:01"},
                {"id": "tap2", "vif_id": "2", "type": "ovs", "mtu": null, "ethernet_mac_address": "fa:16:3e:00:00:02"}
            ],
            "networks": [
                {"id": "network0", "type": "ipv4", "link": "tap1", "ip_address": "10.0.0.5", "netmask": "255.255.255.0",
                 "routes": [
                    {"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.0.0.1"},
                    {"network": "10.9.0.0", "netmask": "255.255.0.0", "gateway": "10.0.0.2"}
                 ],
                 "network_id": "n", "services": [{"type": "dns", "address": "10.0.0.3"}]},
                {"id": "network1", "type": "ipv6", "link": "tap1", "ip_address": "fd00::5", "netmask": "ffff:ffff:ffff:ffff::",
                 "routes": [{"network": "::", "netmask": "::", "gateway": "fd00::1"}], "network_id": "n", "services": []},
                {"id": "network2", "type": "ipv4_dhcp", "link": "tap2", "network_id": "m"},
                {"id": "network3", "type": "ipv4", "link": "gone", "ip_address": "10.1.0.5", "netmask": "255.0.0.0"}
            ],
            "services": [{"type": "dns", "address": "10.0.0.3"}]
        }"#;
        let expected = "link fa:16:3e:00:00:01 1450\n\
            link fa:16:3e:00:00:02 1500\n\
            address fa:16:3e:00:00:01 10.0.0.5/24\n\
            route fa:16:3e:00:00:01 0.0.0.0/0 10.0.0.1\n\
            route fa:16:3e:00:00:01 10.9.0.0/16 10.0.0.2\n\
            address fa:16:3e:00:00:01 fd00::5/64\n\
            route fa:16:3e:00:00:01 ::/0 fd00::1\n\
            dhcp fa:16:3e:00:00:02\n\
            dns 10.0.0.3\n";
        assert_eq!(network(json).unwrap(), expected);
        assert_eq!(network(b"{}").unwrap(), "");
        assert!(network(b"[").is_err());
    }
}
