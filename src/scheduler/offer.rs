//! What kinds of instances a worker can have made, and on which terms.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::instance::Isolation;

/// Who uses an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// One function.
    Function,
    /// All functions of one project.
    Project,
}

/// The terms of one driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Who uses its instances.
    pub sharing: Sharing,
    /// Memory of an instance for its sandboxes, in MiB; more where one sandbox needs more.
    pub memory_mib: u32,
    /// Memory of the largest instance that it makes, in MiB.
    pub memory_max_mib: u32,
    /// Most instances at the same time.
    pub instances: u32,
    /// Most instances that are booting at the same time.
    pub booting: u32,
    /// How long an agent may take to call after its boot was asked for.
    pub boot_timeout: Duration,
}

impl Offer {
    /// Memory of the instance that is booted for a sandbox of this size, in MiB; none when there is no such instance.
    #[must_use]
    pub fn instance_mib(&self, sandbox_mib: u32) -> Option<u32> {
        let wanted = self.memory_mib.max(sandbox_mib);
        (wanted <= self.memory_max_mib).then_some(wanted)
    }
}

/// The drivers that are configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    terms: BTreeMap<Isolation, Offer>,
    default: Option<Isolation>,
}

impl Offers {
    /// The first is what a function gets that nobody says anything about.
    #[must_use]
    pub fn new(terms: impl IntoIterator<Item = (Isolation, Offer)>) -> Self {
        let mut offers = Self::default();
        for (isolation, offer) in terms {
            offers.default.get_or_insert(isolation);
            offers.terms.insert(isolation, offer);
        }
        offers
    }

    /// The isolation that a function gets: the strongest of what is asked for, by a driver that gives at least that; the
    /// default where nothing is asked for. None: no driver isolates so strongly.
    #[must_use]
    pub fn isolation(&self, wishes: impl IntoIterator<Item = Isolation>) -> Option<Isolation> {
        match wishes.into_iter().max() {
            None => self.default,
            Some(wish) => self.terms.range(wish..).next().map(|(isolation, _)| *isolation),
        }
    }

    /// The terms of an isolation.
    #[must_use]
    pub fn terms(&self, isolation: Isolation) -> Option<&Offer> {
        self.terms.get(&isolation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: Offer = Offer {
        sharing: Sharing::Project,
        memory_mib: 512,
        memory_max_mib: 2048,
        instances: 4,
        booting: 2,
        boot_timeout: Duration::from_secs(60),
    };

    #[test]
    fn an_instance_has_room_for_the_sandbox_that_asked_for_it() {
        assert_eq!(OFFER.instance_mib(128), Some(512));
        assert_eq!(OFFER.instance_mib(1024), Some(1024));
        assert_eq!(OFFER.instance_mib(4096), None);
    }

    #[test]
    fn the_strongest_wish_holds_and_a_stronger_driver_serves_it() {
        use Isolation::{Container, Process, Vm};
        let both = Offers::new([(Container, OFFER), (Vm, OFFER)]);
        assert_eq!(both.isolation([]), Some(Container));
        assert_eq!(both.isolation([Container, Vm]), Some(Vm));
        assert_eq!(Offers::new([(Vm, OFFER), (Container, OFFER)]).isolation([]), Some(Vm));
        assert_eq!(Offers::new([(Vm, OFFER)]).isolation([Container]), Some(Vm));
        assert_eq!(Offers::new([(Process, OFFER)]).isolation([Container]), None);
    }
}
