//! What every driver has to do.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use lambda_openstack::driver::{Driver, Observed};
use lambda_openstack::model::InstanceId;

use super::Subject;

/// Waits until what the driver sees is this.
pub async fn until(subject: &Subject, driver: &dyn Driver, id: InstanceId, is: impl Fn(&Observed) -> bool) -> Observed {
    let begun = Instant::now();
    loop {
        let observed = driver.observe(id).await.unwrap();
        if is(&observed) {
            return observed;
        }
        assert!(begun.elapsed() < subject.patience, "instance {id} is still {observed:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// That it runs.
pub async fn until_active(subject: &Subject, driver: &dyn Driver, id: InstanceId) {
    let observed = until(subject, driver, id, |observed| !matches!(observed, Observed::Building)).await;
    assert_eq!(observed, Observed::Active);
}

/// The end of every test.
pub async fn nothing_is_left(subject: &Subject) {
    for driver in [&subject.driver, &subject.stranger, &subject.mortal] {
        assert_eq!(driver.list().await.unwrap(), Vec::new());
    }
}

pub async fn what_is_asked_for_becomes_active_is_listed_and_goes(subject: &Subject) {
    let (driver, spec) = (&*subject.driver, subject.spec());
    driver.create(&spec).await.unwrap();
    assert_eq!(driver.list().await.unwrap(), [spec.id], "it is found from the moment when it was asked for");
    until_active(subject, driver, spec.id).await;
    driver.delete(spec.id).await.unwrap();
    assert_eq!(driver.observe(spec.id).await.unwrap(), Observed::Absent);
}

pub async fn asking_twice_makes_one(subject: &Subject) {
    let (driver, spec) = (&*subject.driver, subject.spec());
    driver.create(&spec).await.unwrap();
    driver.create(&spec).await.unwrap();
    if let Some(other) = &subject.other {
        other.create(&spec).await.unwrap();
    }
    until_active(subject, driver, spec.id).await;
    driver.create(&spec).await.unwrap();
    assert_eq!(driver.list().await.unwrap(), [spec.id]);
    driver.delete(spec.id).await.unwrap();
}

pub async fn what_is_absent_can_be_deleted_and_looked_at(subject: &Subject) {
    let (driver, spec) = (&*subject.driver, subject.spec());
    driver.delete(spec.id).await.unwrap();
    assert_eq!(driver.observe(spec.id).await.unwrap(), Observed::Absent);
    driver.create(&spec).await.unwrap();
    driver.delete(spec.id).await.unwrap();
    driver.delete(spec.id).await.unwrap();
}

pub async fn each_deployment_sees_its_own(subject: &Subject) {
    let (mine, its) = (subject.spec(), subject.spec());
    subject.driver.create(&mine).await.unwrap();
    subject.stranger.create(&its).await.unwrap();
    assert_eq!(subject.driver.list().await.unwrap(), [mine.id]);
    assert_eq!(subject.stranger.list().await.unwrap(), [its.id]);
    subject.driver.delete(mine.id).await.unwrap();
    subject.stranger.delete(its.id).await.unwrap();
}

/// Asked for and given up at every moment of a boot: none may stay behind.
pub async fn what_is_still_booting_can_be_deleted(subject: &Subject) {
    for step in 0..6 {
        let spec = subject.spec();
        subject.driver.create(&spec).await.unwrap();
        tokio::time::sleep(Duration::from_millis(step * 150)).await;
        subject.driver.delete(spec.id).await.unwrap();
        assert_eq!(subject.driver.observe(spec.id).await.unwrap(), Observed::Absent);
    }
    // A boot that went on after its deletion would show now.
    tokio::time::sleep(Duration::from_secs(2)).await;
    nothing_is_left(subject).await;
}

pub async fn many_at_once_are_seen_and_go(subject: &Subject) {
    let specs: Vec<_> = (0..3).map(|_| subject.spec()).collect();
    let absent = InstanceId::generate();
    let asked = futures::future::join_all(specs.iter().map(|spec| subject.driver.create(spec))).await;
    assert!(asked.iter().all(Result::is_ok), "{asked:?}");
    for spec in &specs {
        until_active(subject, &*subject.driver, spec.id).await;
    }
    let ids: Vec<_> = specs.iter().map(|spec| spec.id).chain([absent]).collect();
    let seen = subject.driver.observe_all(&ids).await.unwrap();
    let is_active = |id: &InstanceId| seen.contains(&(*id, Observed::Active));
    assert!(specs.iter().all(|spec| is_active(&spec.id)) && !is_active(&absent), "{seen:?}");
    let listed: BTreeSet<_> = subject.driver.list().await.unwrap().into_iter().collect();
    assert_eq!(listed, specs.iter().map(|spec| spec.id).collect());
    let gone = futures::future::join_all(specs.iter().map(|spec| subject.driver.delete(spec.id))).await;
    assert!(gone.iter().all(Result::is_ok), "{gone:?}");
}

pub async fn what_has_ended_is_told_with_how(subject: &Subject) {
    let (driver, spec) = (&*subject.mortal, subject.spec());
    driver.create(&spec).await.unwrap();
    let ended = until(subject, driver, spec.id, |o| !matches!(o, Observed::Building | Observed::Active)).await;
    assert!(matches!(&ended, Observed::Stopped(why) if !why.is_empty()), "{ended:?}");
    driver.delete(spec.id).await.unwrap();
    assert_eq!(driver.observe(spec.id).await.unwrap(), Observed::Absent);
}

pub async fn another_process_finds_and_deletes(subject: &Subject) {
    let other = subject.other.as_ref().expect("a driver whose instances outlive a process");
    let spec = subject.spec();
    subject.driver.create(&spec).await.unwrap();
    until_active(subject, &**other, spec.id).await;
    assert_eq!(other.list().await.unwrap(), [spec.id]);
    other.delete(spec.id).await.unwrap();
    assert_eq!(subject.driver.observe(spec.id).await.unwrap(), Observed::Absent);
}
