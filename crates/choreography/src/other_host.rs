//! What the other host says of a VM that is to start on this one, and whether that stands in the way. Pure: asking is `engine`'s
//! (`hear`), and a model's. Asked twice, when a failover is planned and right before its start, and judged alike both times.
//!
//! Only silence is silence. Whatever comes back from a host that is there, an error too, is no "off".

/// What the other host answered of itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Word {
    /// It is primary in its epoch.
    pub is_primary: bool,
    /// Whether the VM runs there; none: it could not tell.
    pub runs: Option<bool>,
    /// It has ended the relationship: nothing keeps the VM from being started there.
    pub ended: bool,
}

/// What came of the question.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Said {
    /// It says what it believes.
    Word(Word),
    /// It answers, and knows nothing of the relationship: it has lost its database, or is a daemon of before.
    KnowsNothing,
    /// It answers, and says something else: why, for people.
    Else(String),
    /// Nothing came.
    Nothing,
}

/// What the other host says about the VM.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum OtherHost {
    /// It does not answer: nobody knows whether the VM runs there.
    Silent,
    /// It answers, and the VM is off there.
    Off,
    /// It answers, and the VM runs there.
    Runs,
    /// It answers, and does not tell: why, for people.
    Unsure(String),
    /// It answers, and knows the relationship no more: the VM may run there, or be started at any time.
    Forgot,
}

impl OtherHost {
    /// What came of the question means. One that is a replica does not run the VM, whether it looked or not.
    #[must_use]
    pub fn of(said: Said) -> OtherHost {
        match said {
            Said::Nothing => OtherHost::Silent,
            Said::KnowsNothing | Said::Word(Word { ended: true, .. }) => OtherHost::Forgot,
            Said::Word(Word { is_primary: false, .. } | Word { runs: Some(false), .. }) => OtherHost::Off,
            Said::Word(Word { runs: Some(true), .. }) => OtherHost::Runs,
            Said::Word(Word { runs: None, .. }) => OtherHost::Unsure("its libvirt does not say".to_owned()),
            Said::Else(why) => OtherHost::Unsure(why),
        }
    }

    /// Whether the VM may start here. Silence stands in nobody's way: a failover is for the case that the other host is gone, and
    /// a person decides. An answer that is no clear "off" does, unless that person vouches.
    #[must_use]
    pub fn lets_start(&self, force: bool) -> bool {
        force || matches!(self, OtherHost::Silent | OtherHost::Off)
    }

    /// For people.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            OtherHost::Silent => "it does not answer, so it is unknown whether the VM runs there".to_owned(),
            OtherHost::Off => "it answers, and the VM does not run there".to_owned(),
            OtherHost::Runs => "it answers, and the VM runs there".to_owned(),
            OtherHost::Forgot => {
                "it answers, and knows the relationship no more: nothing there keeps the VM from running"
                    .to_owned()
            }
            OtherHost::Unsure(why) => {
                format!("it answers, and does not tell whether the VM runs there: {why}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_off_a_replica_or_silence_lets_the_vm_start_without_a_person_who_vouches() {
        let primary = |runs| OtherHost::of(Said::Word(Word { is_primary: true, runs, ended: false }));
        for (said, lets) in [
            (OtherHost::of(Said::Nothing), true),
            (OtherHost::of(Said::KnowsNothing), false),
            (OtherHost::of(Said::Else("its disk is broken".into())), false),
            (primary(Some(false)), true),
            (primary(Some(true)), false),
            (primary(None), false),
        ] {
            assert_eq!(said.lets_start(false), lets, "{said:?}");
            assert!(said.lets_start(true), "{said:?}");
        }
        for runs in [None, Some(true), Some(false)] {
            let replica = Word { is_primary: false, runs, ended: false };
            assert_eq!(OtherHost::of(Said::Word(replica)), OtherHost::Off);
            for is_primary in [true, false] {
                let said = OtherHost::of(Said::Word(Word { is_primary, runs, ended: true }));
                assert!(
                    !said.lets_start(false) && said.lets_start(true),
                    "nothing guards it there: {said:?}"
                );
            }
        }
    }

    #[test]
    fn each_word_is_told_apart() {
        let unsure = OtherHost::Unsure("its disk is broken".to_owned());
        let all = [OtherHost::Silent, OtherHost::Off, OtherHost::Runs, unsure, OtherHost::Forgot];
        let words: std::collections::BTreeSet<String> = all.iter().map(OtherHost::words).collect();
        assert!(words.len() == all.len() && words.iter().all(|words| words.starts_with("it ")), "{words:?}");
    }
}
