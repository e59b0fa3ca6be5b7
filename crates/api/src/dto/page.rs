//! Long lists come in pages. The body of a page is the list alone; where it goes on stands in the header `Link` with
//! `rel="next"`, so that whoever does not ask for pages reads one list.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most entries of one page, and as many come when nobody says how many: a host of a thousand VMs is one page.
pub const LIMIT_MAX: u32 = 1000;

/// Which part of a list.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Page {
    /// The page that follows the one whose `Link` says this; none: the first.
    pub after: Option<String>,
    /// At most so many entries.
    #[schemars(range(min = 1, max = LIMIT_MAX))]
    pub limit: Option<u32>,
}

impl Page {
    /// How many entries are meant; none: a number that no page has.
    #[must_use]
    pub fn limit_or(&self, default: u32) -> Option<u32> {
        let limit = self.limit.unwrap_or(default);
        (1..=LIMIT_MAX).contains(&limit).then_some(limit)
    }
}

/// A page of a list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Paged<T> {
    /// What it shows.
    pub shown: T,
    /// Where the list goes on; none: this is its end.
    pub next: Option<String>,
}

impl<T> Paged<T> {
    /// All there is.
    pub fn whole(shown: T) -> Paged<T> {
        Paged { shown, next: None }
    }

    /// The same page in another form.
    pub fn map<U>(self, form: impl FnOnce(T) -> U) -> Paged<U> {
        Paged { shown: form(self.shown), next: self.next }
    }
}

impl<T> Paged<Vec<T>> {
    /// The page at the beginning of what is left of a list, in which `cursor` names each entry. What is left is whatever lies behind the
    /// cursor in the list's order: an entry that is gone meanwhile ends no list.
    pub fn of(left: impl IntoIterator<Item = T>, limit: u32, cursor: impl Fn(&T) -> String) -> Self {
        let mut left = left.into_iter();
        let shown: Vec<T> = left.by_ref().take(limit as usize).collect();
        let next = left.next().and_then(|_| shown.last().map(&cursor));
        Paged { shown, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_and_show_everything_once() {
        let all: Vec<u32> = (0..10).collect();
        for limit in 1..12 {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let behind = after.and_then(|after: String| after.parse::<u32>().ok());
                let left = all.iter().copied().filter(|number| behind.is_none_or(|behind| *number > behind));
                let page = Paged::of(left, limit, u32::to_string);
                assert!(page.shown.len() <= limit as usize);
                seen.extend(page.shown);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(seen, all, "pages of {limit}");
        }
    }

    #[test]
    fn a_page_of_none_or_of_too_many_is_none() {
        let limit = |limit| Page { after: None, limit }.limit_or(7);
        assert_eq!(
            [limit(None), limit(Some(0)), limit(Some(1001)), limit(Some(1000))],
            [Some(7), None, None, Some(1000)]
        );
    }
}
