//! What is checked: the promises in every history of four small budgets, and that each sabotage breaks one of them.

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use crate::Begin::{self, Protected, SteppedDown};
use crate::{Budget, Replication, Sabotage};

const COMMANDS: Budget = Budget { commands: 2, losses: 0, power_cuts: 0, writes: 1 };
const LOSSES: Budget = Budget { commands: 1, losses: 2, power_cuts: 0, writes: 1 };
const POWER: Budget = Budget { commands: 1, losses: 1, power_cuts: 1, writes: 1 };
/// Hasty commands, a link that is late and a guest that writes: large, and only searched for what is broken.
const HASTE: Budget = Budget { commands: 3, losses: 1, power_cuts: 0, writes: 1 };
/// A host that comes back after the other took over, with nothing lost on the way, and a guest that writes.
const RETURN: Budget = Budget { commands: 2, losses: 0, power_cuts: 1, writes: 1 };
/// What follows when both hosts have written, behind a link that loses.
const APART: Budget = Budget { commands: 1, losses: 1, power_cuts: 0, writes: 1 };
/// Many hands, and nothing that fails; with one request that is lost. Large, and only searched for what is broken.
const HANDS: Budget = Budget { commands: 4, losses: 0, power_cuts: 0, writes: 0 };
const HANDS_AND_A_LOSS: Budget = Budget { commands: 3, losses: 1, power_cuts: 0, writes: 0 };
/// A host that comes back behind a link that was cut.
const DISASTER: Budget = Budget { commands: 2, losses: 1, power_cuts: 1, writes: 0 };

/// Budgets with the number of states that they lead to. One that changes says that more, or less, is tried than before: look why,
/// then pin it anew.
const BUDGETS: [(&str, Begin, Budget, usize); 5] = [
    ("commands", Protected, COMMANDS, 40_203),
    ("losses", Protected, LOSSES, 232_736),
    ("power cuts", Protected, POWER, 263_446),
    ("a host that returns, and a guest that writes", Protected, RETURN, 785_365),
    ("hosts that have written apart", SteppedDown, APART, 21_941),
];

/// A search of a third of an hour, with the memory that it wants: eleven GB.
const LONG: (&str, Begin, Budget, usize) =
    ("a host that returns behind a link that was cut", Protected, DISASTER, 9_079_544);

/// Each sabotage with a budget that is enough to find it.
const SABOTAGES: [(Sabotage, Begin, Budget); 14] = [
    (Sabotage::HookAllows, Protected, COMMANDS),
    (Sabotage::NoLock, Protected, COMMANDS),
    (Sabotage::EarlyAcknowledgement, Protected, COMMANDS),
    (Sabotage::NoPromise, Protected, HASTE),
    (Sabotage::AnyOrder, Protected, POWER),
    (Sabotage::SilenceAllows, Protected, DISASTER),
    (Sabotage::EpochUnheeded, Protected, RETURN),
    (Sabotage::DemoteFirst, Protected, COMMANDS),
    (Sabotage::EndedIsOff, Protected, COMMANDS),
    (Sabotage::NothingStays, Protected, RETURN),
    (Sabotage::StartUnasked, Protected, HANDS_AND_A_LOSS),
    (Sabotage::RemoveUnlocks, Protected, HANDS),
    (Sabotage::NothingAside, SteppedDown, APART),
    (Sabotage::RemoveDeletesAll, SteppedDown, APART),
];

/// What a search came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Searched {
    /// What was searched: a budget, or a sabotage.
    pub name: String,
    /// Different states that were seen.
    pub states: usize,
    /// States that there must be; none: the search ends with the first promise that is broken.
    pub pinned: Option<usize>,
    /// Promises that are broken, each with the shortest history that does it.
    pub broken: Vec<String>,
    /// Of what must be possible, what was seen.
    pub seen: Vec<&'static str>,
}

impl Searched {
    /// Whether it came to what it must: nothing is broken where nothing was sabotaged, and something where something was.
    #[must_use]
    pub fn is_as_it_must_be(&self) -> bool {
        match self.pinned {
            Some(pinned) => self.broken.is_empty() && self.states == pinned,
            None => !self.broken.is_empty(),
        }
    }
}

/// Searches every history of every budget.
pub fn promises() -> impl Iterator<Item = Searched> {
    BUDGETS.into_iter().map(promise)
}

/// Searches every history of the large budget.
#[must_use]
pub fn long_promise() -> Searched {
    promise(LONG)
}

fn promise((name, begins, budget, pinned): (&str, Begin, Budget, usize)) -> Searched {
    Searched { name: name.to_owned(), pinned: Some(pinned), ..search(begins, budget, None) }
}

/// What must be possible, and none of these searches has seen.
#[must_use]
pub fn never_seen(searches: &[Searched]) -> Vec<&'static str> {
    let properties = Replication { begins: Protected, budget: COMMANDS, sabotage: None }.properties();
    let possible = properties.into_iter().filter(|property| property.expectation == Expectation::Sometimes);
    let names = possible.map(|property| property.name);
    names.filter(|name| !searches.iter().any(|searched| searched.seen.contains(name))).collect()
}

/// Searches for what each sabotage breaks.
pub fn sabotages() -> impl Iterator<Item = Searched> {
    SABOTAGES.into_iter().map(|(sabotage, begins, budget)| Searched {
        name: format!("{sabotage:?}"),
        ..search(begins, budget, Some(sabotage))
    })
}

fn search(begins: Begin, budget: Budget, sabotage: Option<Sabotage>) -> Searched {
    let model = Replication { begins, budget, sabotage };
    let checker = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let is_promise = |name: &str| {
        let property = model.properties().into_iter().find(|property| property.name == name);
        property.is_some_and(|property| property.expectation == Expectation::Always)
    };
    let discoveries = checker.discoveries();
    let (broken, seen): (Vec<_>, Vec<_>) = discoveries.into_iter().partition(|(name, _)| is_promise(name));
    let told = broken.into_iter().map(|(name, path)| {
        let actions: Vec<String> =
            path.into_actions().iter().map(|action| format!("    {action:?}")).collect();
        format!("{name}:\n{}", actions.join("\n"))
    });
    Searched {
        name: String::new(),
        states: checker.unique_state_count(),
        pinned: None,
        broken: told.collect(),
        seen: seen.into_iter().map(|(name, _)| name).collect(),
    }
}
