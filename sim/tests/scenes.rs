//! Plays the named scenes, each from a defect that was found.

use sim::scenes;

type Played = anyhow::Result<()>;

#[test]
fn a_failover_from_a_point_that_only_the_files_know_can_be_left() -> Played {
    scenes::a_failover_from_a_point_that_only_the_files_know_can_be_left()
}

#[test]
fn a_merge_that_never_succeeds_is_left_out_by_a_person() -> Played {
    scenes::a_merge_that_never_succeeds_is_left_out_by_a_person()
}

#[test]
fn no_point_is_removed_while_what_an_old_primary_wrote_waits_to_be_set_aside() -> Played {
    scenes::no_point_is_removed_while_what_an_old_primary_wrote_waits_to_be_set_aside()
}
