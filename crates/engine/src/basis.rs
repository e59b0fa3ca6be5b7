//! From which instant the next delta counts: a pure decision over what both sides believe.
//!
//! A checkpoint of *any* point in our history serves as base for a delta onto the newest one: its bitmap holds at least
//! what changed since the newest, and a block that is sent twice is the same block. So a lost acknowledgement, or a final
//! delta that was taken back, costs a few bytes more and never a wrong one.

use domain::{Epoch, PointId, RecoveryPoint};

/// What the next delta carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Basis {
    /// The replica holds nothing: everything that is allocated.
    Initial,
    /// What changed since this checkpoint.
    Since(PointId),
    /// What changed is not known: what differs from the replica's head, as a comparison finds it.
    Compare {
        /// Why it is not known, for people.
        cause: String,
    },
}

/// A decision, and what to write down before it is acted upon.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// What the next delta carries.
    pub basis: Basis,
    /// The replica has this point and we did not know: its acknowledgement was lost.
    pub adopt: Option<RecoveryPoint>,
}

/// Two sides that do not fit together; both stories are shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Disagreement {
    /// The epochs differ.
    #[error("this host believes in epoch {ours}, the other host in epoch {theirs}")]
    Epoch {
        /// Ours.
        ours: Epoch,
        /// The replica's.
        theirs: Epoch,
    },
    /// The same point with different bytes.
    #[error(
        "both hosts have recovery point {point}, but with different digests ({ours} here, {theirs} there)"
    )]
    Lineage {
        /// Which point.
        point: PointId,
        /// Ours.
        ours: String,
        /// The replica's.
        theirs: String,
    },
}

/// Decides from our history (oldest first), the replica's head and the checkpoints that exist here (oldest first).
pub fn decide(
    (our_epoch, their_epoch): (Epoch, Epoch),
    history: &[RecoveryPoint],
    their_head: Option<&RecoveryPoint>,
    checkpoints: &[PointId],
) -> Result<Decision, Disagreement> {
    if our_epoch != their_epoch {
        return Err(Disagreement::Epoch { ours: our_epoch, theirs: their_epoch });
    }
    let Some(theirs) = their_head else {
        return Ok(Decision { basis: Basis::Initial, adopt: None });
    };
    let known = history.iter().find(|point| point.id == theirs.id);
    if let Some(ours) = known.filter(|ours| ours.lineage != theirs.lineage) {
        return Err(Disagreement::Lineage {
            point: theirs.id,
            ours: ours.lineage.to_hex(),
            theirs: theirs.lineage.to_hex(),
        });
    }
    let our_head = history.last().map(|point| point.id);
    let adopt = known.is_none().then(|| theirs.clone());
    // Points of ours that the replica's head descends from: up to it, or all when it is our head's unacknowledged child.
    let ancestors: Vec<PointId> = match known {
        Some(known) => history.iter().filter(|it| it.ordinal <= known.ordinal).map(|it| it.id).collect(),
        None if theirs.parent == our_head => history.iter().map(|it| it.id).collect(),
        None => Vec::new(),
    };
    let is_ancestor = |point: &&PointId| ancestors.contains(point) || **point == theirs.id;
    let basis = match checkpoints.iter().rev().find(is_ancestor) {
        Some(checkpoint) => Basis::Since(*checkpoint),
        None if ancestors.is_empty() => Basis::Compare {
            cause: "the replica's newest recovery point is not one that this host made".to_owned(),
        },
        None => Basis::Compare {
            cause: "no usable checkpoint: changes were not tracked since the last recovery point".to_owned(),
        },
    };
    Ok(Decision { basis, adopt })
}

#[cfg(test)]
mod tests {
    use domain::Lineage;
    use domain::fixture::{point, point_id};

    use super::*;

    fn check(history: &[u64], theirs: Option<u64>, checkpoints: &[u64]) -> Decision {
        let history: Vec<_> = history.iter().map(|it| point(*it)).collect();
        let checkpoints: Vec<_> = checkpoints.iter().map(|it| point_id(*it)).collect();
        let theirs = theirs.map(point);
        decide((Epoch::FIRST, Epoch::FIRST), &history, theirs.as_ref(), &checkpoints)
            .expect("no disagreement")
    }

    #[test]
    fn an_empty_replica_gets_everything() {
        assert_eq!(check(&[], None, &[]).basis, Basis::Initial);
        assert_eq!(check(&[1, 2], None, &[2]).basis, Basis::Initial);
    }

    #[test]
    fn a_common_head_counts_from_its_checkpoint_and_unfinished_attempts_are_ignored() {
        assert_eq!(
            check(&[1, 2], Some(2), &[2, 3]),
            Decision { basis: Basis::Since(point_id(2)), adopt: None }
        );
    }

    #[test]
    fn a_lost_acknowledgement_is_adopted() {
        let decision = check(&[1, 2], Some(3), &[2, 3]);
        assert_eq!(decision, Decision { basis: Basis::Since(point_id(3)), adopt: Some(point(3)) });
    }

    #[test]
    fn an_older_checkpoint_covers_more_and_is_as_good() {
        assert_eq!(check(&[1, 2], Some(3), &[2]).basis, Basis::Since(point_id(2)));
        assert_eq!(check(&[1, 2, 3], Some(3), &[1]).basis, Basis::Since(point_id(1)));
    }

    #[test]
    fn a_checkpoint_younger_than_the_replicas_head_is_never_the_base() {
        assert!(matches!(check(&[1, 2, 3], Some(2), &[3]).basis, Basis::Compare { .. }));
        assert_eq!(check(&[1, 2, 3], Some(2), &[2, 3]).basis, Basis::Since(point_id(2)));
    }

    #[test]
    fn without_tracking_or_with_a_strange_head_both_sides_are_compared() {
        assert!(matches!(check(&[1, 2], Some(2), &[]).basis, Basis::Compare { .. }));
        assert!(matches!(check(&[1, 2], Some(9), &[2]).basis, Basis::Compare { .. }));
    }

    #[test]
    fn different_epochs_or_digests_are_refused_with_both_stories() {
        let epochs = (Epoch::FIRST, Epoch::FIRST.next());
        assert!(matches!(decide(epochs, &[], None, &[]), Err(Disagreement::Epoch { .. })));
        let other = RecoveryPoint { lineage: Lineage([9; 32]), ..point(2) };
        let same = (Epoch::FIRST, Epoch::FIRST);
        assert!(matches!(decide(same, &[point(2)], Some(&other), &[]), Err(Disagreement::Lineage { .. })));
    }
}
