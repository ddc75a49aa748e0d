//! Which flavor a server gets.

use crate::openstack::glance::Image;
use crate::openstack::nova::Flavor;

/// Extra specs, by their beginnings, of flavors that give something scarce. Nobody asked for it.
const SCARCE: [&str; 6] =
    ["pci_passthrough:", "resources", "hw:cpu_policy", "hw:mem_page_size", "trait", "aggregate_instance_extra_specs"];

const MIB_PER_GIB: u64 = 1024;

/// Why there is no flavor.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoFlavor {
    /// None has the name or id.
    Unknown(String),
    /// The one that is configured is too small, and by how much.
    TooSmall {
        /// Its name.
        name: String,
        /// What it has, in MiB.
        has: u32,
        /// What is needed, in MiB.
        needs: u32,
    },
    /// None is large enough.
    NoneFits {
        /// Memory that is needed, in MiB.
        needs: u32,
    },
}

impl std::fmt::Display for NoFlavor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "there is no flavor '{name}'"),
            Self::TooSmall { name, has, needs } => {
                write!(f, "the flavor '{name}' has {has} MiB of memory, {needs} MiB are needed")
            }
            Self::NoneFits { needs } => write!(f, "no flavor has {needs} MiB of memory and a disk for the image"),
        }
    }
}

/// The flavor for a guest with this memory: the one that `wanted` names, by id or else by name, or the smallest that will
/// do when `wanted` is empty.
pub(super) fn flavor<'a>(
    flavors: &'a [Flavor],
    wanted: &str,
    memory_mib: u32,
    image: &Image,
) -> Result<&'a Flavor, NoFlavor> {
    let needs = memory_mib.max(image.min_ram);
    if wanted.is_empty() {
        return flavors
            .iter()
            .filter(|flavor| flavor.ram >= needs && will_do(flavor, image))
            .min_by_key(|flavor| (flavor.ram, flavor.vcpus, flavor.disk, &flavor.name, &flavor.id))
            .ok_or(NoFlavor::NoneFits { needs });
    }
    let flavor = flavors
        .iter()
        .find(|flavor| flavor.id == wanted)
        .or_else(|| flavors.iter().find(|flavor| flavor.name == wanted))
        .ok_or_else(|| NoFlavor::Unknown(wanted.to_owned()))?;
    if flavor.ram < needs {
        return Err(NoFlavor::TooSmall { name: flavor.name.clone(), has: flavor.ram, needs });
    }
    Ok(flavor)
}

/// Whether a flavor may be taken by whoever has only a need for memory.
fn will_do(flavor: &Flavor, image: &Image) -> bool {
    let disk_mib = u64::from(flavor.disk) * MIB_PER_GIB;
    let image_mib = image.virtual_size.unwrap_or(0).div_ceil(MIB_PER_GIB * MIB_PER_GIB);
    let is_scarce = |name: &String| SCARCE.iter().any(|beginning| name.starts_with(beginning));
    // Without a volume, a flavor without a disk is for administrators.
    flavor.disk > 0
        && flavor.disk >= image.min_disk
        && disk_mib >= image_mib
        && !flavor.is_disabled
        && !flavor.extra_specs.keys().any(is_scarce)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn sized(name: &str, ram: u32, vcpus: u32, disk: u32) -> Flavor {
        let id = format!("id-{name}");
        Flavor { id, name: name.to_owned(), ram, vcpus, disk, is_disabled: false, extra_specs: BTreeMap::new() }
    }

    fn with_spec(name: &str, ram: u32, spec: &str) -> Flavor {
        Flavor { extra_specs: BTreeMap::from([(spec.to_owned(), "1".to_owned())]), ..sized(name, ram, 1, 1) }
    }

    #[test]
    fn the_smallest_that_will_do_is_taken() {
        let flavors = [
            sized("large", 4096, 4, 40),
            sized("no-disk", 512, 1, 0),
            Flavor { is_disabled: true, ..sized("closed", 512, 1, 1) },
            with_spec("gpu", 512, "pci_passthrough:alias"),
            with_spec("pinned", 512, "hw:cpu_policy"),
            with_spec("bare-metal", 512, "resources:CUSTOM_METAL"),
            sized("two", 512, 2, 1),
            with_spec("one", 512, "hw_rng:allowed"),
            sized("small", 256, 1, 1),
        ];
        let image = Image::default();
        assert_eq!(flavor(&flavors, "", 300, &image).unwrap().name, "one");
        assert_eq!(flavor(&flavors, "", 256, &image).unwrap().name, "small");
        assert_eq!(flavor(&flavors, "", 513, &image).unwrap().name, "large");
        assert_eq!(flavor(&flavors, "", 5000, &image), Err(NoFlavor::NoneFits { needs: 5000 }));
    }

    #[test]
    fn an_image_has_needs_of_its_own() {
        let flavors = [sized("a", 256, 1, 1), sized("b", 512, 1, 2), sized("c", 1024, 1, 10)];
        let image = |min_ram, min_disk, gib: u64| Image {
            min_ram,
            min_disk,
            virtual_size: Some(gib << 30),
            ..Image::default()
        };
        assert_eq!(flavor(&flavors, "", 100, &image(300, 0, 0)).unwrap().name, "b");
        assert_eq!(flavor(&flavors, "", 100, &image(0, 5, 0)).unwrap().name, "c");
        assert_eq!(flavor(&flavors, "", 100, &image(0, 0, 2)).unwrap().name, "b");
    }

    #[test]
    fn a_flavor_that_is_named_is_taken_by_id_first_or_said_to_be_too_small() {
        let flavors = [sized("id-b", 100, 1, 1), sized("b", 512, 1, 0)];
        let image = Image::default();
        assert_eq!(flavor(&flavors, "id-b", 200, &image).unwrap().ram, 512);
        assert_eq!(flavor(&flavors, "b", 200, &image).unwrap().ram, 512);
        assert_eq!(flavor(&flavors, "x", 200, &image), Err(NoFlavor::Unknown("x".to_owned())));
        let too_small = flavor(&flavors, "b", 600, &image).unwrap_err();
        assert_eq!(too_small.to_string(), "the flavor 'b' has 512 MiB of memory, 600 MiB are needed");
    }

    proptest! {
        #[test]
        fn no_server_is_smaller_than_asked_for_or_larger_than_it_need_be(
            sizes in proptest::collection::vec((1_u32..8192, 1_u32..8, 0_u32..3), 0..12),
            needs in 1_u32..8192,
        ) {
            let flavors: Vec<_> =
                sizes.iter().enumerate().map(|(n, (ram, vcpus, disk))| sized(&n.to_string(), *ram, *vcpus, *disk)).collect();
            match flavor(&flavors, "", needs, &Image::default()) {
                Ok(chosen) => {
                    prop_assert!(chosen.ram >= needs && chosen.disk > 0);
                    prop_assert!(flavors.iter().all(|other| other.disk == 0 || other.ram < needs || other.ram >= chosen.ram));
                }
                Err(_) => prop_assert!(flavors.iter().all(|other| other.disk == 0 || other.ram < needs)),
            }
        }
    }
}
