//! Who wants to hear of which names.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    ops::Bound,
    sync::Arc,
};

use smallvec::SmallVec;

use crate::sync::RandomState;

/// Whose changes are wanted.
#[derive(Clone, Debug)]
pub enum Scope {
    /// Of every bucket whose name begins with this.
    Prefix(Arc<str>),
    /// Of every bucket that has one of these names.
    Names(Vec<Arc<str>>),
}

/// Some of a scope.
#[derive(Clone, Copy)]
pub(super) enum Part<'a> {
    Prefix(&'a Arc<str>),
    Names(&'a [Arc<str>]),
}

impl Scope {
    /// All of it, not more than so many names at a time.
    pub(super) fn parts(&self, names_max: usize) -> impl Iterator<Item = Part<'_>> {
        let (prefix, names) = match self {
            Self::Prefix(prefix) => (Some(prefix), &[][..]),
            Self::Names(names) => (None, &names[..]),
        };
        prefix.map(Part::Prefix).into_iter().chain(names.chunks(names_max).map(Part::Names))
    }
}

/// Those who want to hear of one name or prefix: nearly always one, and maybe a hundred thousand.
#[derive(Debug)]
enum Those<T> {
    Few(SmallVec<[Arc<T>; 1]>),
    /// By address: when a crowd leaves, nobody is looked for among all the others.
    Many(BTreeMap<usize, Arc<T>>),
}

const FEW_MAX: usize = 16;

impl<T> Default for Those<T> {
    fn default() -> Self {
        Self::Few(SmallVec::new())
    }
}

impl<T> Those<T> {
    fn add(&mut self, who: &Arc<T>) {
        let by_address = |who: &Arc<T>| (Arc::as_ptr(who).addr(), Arc::clone(who));
        match self {
            // A name that is given twice is one interest, and it was added a moment ago. (Where another one came in between it
            // is two, which does no harm.)
            Self::Few(few) if few.last().is_some_and(|last| Arc::ptr_eq(last, who)) => {}
            Self::Few(few) if few.len() < FEW_MAX => few.push(Arc::clone(who)),
            Self::Few(few) => *self = Self::Many(few.iter().chain([who]).map(by_address).collect()),
            Self::Many(many) => many.extend([by_address(who)]),
        }
    }

    /// Takes one out, and says whether that was the last.
    fn remove(&mut self, who: &Arc<T>) -> bool {
        match self {
            Self::Few(few) => {
                few.retain(|one| !Arc::ptr_eq(one, who));
                few.is_empty()
            }
            Self::Many(many) => {
                many.remove(&Arc::as_ptr(who).addr());
                many.is_empty()
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        let (few, many) = match self {
            Self::Few(few) => (&few[..], None),
            Self::Many(many) => (&[][..], Some(many)),
        };
        few.iter().chain(many.into_iter().flat_map(BTreeMap::values))
    }
}

/// Those who want to hear, by what they want to hear of.
#[derive(Debug)]
pub(super) struct Interests<T> {
    names: HashMap<Arc<str>, Those<T>, RandomState>,
    /// Ordered, so that the few prefixes of a name are found among however many there are.
    prefixes: BTreeMap<Arc<str>, Those<T>>,
}

impl<T> Default for Interests<T> {
    fn default() -> Self {
        Self { names: HashMap::default(), prefixes: BTreeMap::new() }
    }
}

impl<T> Interests<T> {
    pub(super) fn add(&mut self, part: Part<'_>, who: &Arc<T>) {
        match part {
            Part::Prefix(prefix) => self.prefixes.entry(Arc::clone(prefix)).or_default().add(who),
            Part::Names(names) => {
                for name in names {
                    self.names.entry(Arc::clone(name)).or_default().add(who);
                }
            }
        }
    }

    pub(super) fn remove(&mut self, part: Part<'_>, who: &Arc<T>) {
        let leave = |those: &mut Those<T>| those.remove(who);
        match part {
            Part::Prefix(prefix) => {
                if self.prefixes.get_mut(prefix).is_some_and(leave) {
                    self.prefixes.remove(prefix);
                }
            }
            Part::Names(names) => {
                for name in names {
                    if self.names.get_mut(name).is_some_and(leave) {
                        self.names.remove(name);
                    }
                }
            }
        }
        shrink(&mut self.names);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.prefixes.is_empty()
    }

    /// All who want to hear of a bucket of this name.
    pub(super) fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Arc<T>> {
        self.names.get(name).into_iter().chain(self.covering(name)).flat_map(Those::iter)
    }

    /// Everyone, some of them more than once.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<T>> {
        self.names.values().chain(self.prefixes.values()).flat_map(Those::iter)
    }

    /// Whether anyone wants to hear of a bucket of this name.
    pub(super) fn covers(&self, name: &str) -> bool {
        self.of(name).next().is_some()
    }

    /// The prefixes of this name that somebody wants, longest first. Each step leaps over all that stands between two of
    /// them: where the greatest that is left is none, only what both have in common can still hold one.
    fn covering<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Those<T>> {
        let mut bound = Some(Bound::Included(name));
        std::iter::from_fn(move || {
            loop {
                let mut left = self.prefixes.range::<str, _>((Bound::Unbounded, bound?));
                let Some((prefix, those)) = left.next_back() else {
                    bound = None;
                    return None;
                };
                if name.starts_with(&**prefix) {
                    bound = Some(Bound::Excluded(&name[..prefix.len()]));
                    return Some(those);
                }
                let common = name.char_indices().zip(prefix.chars()).find(|((_, one), other)| one != other);
                bound = common.map(|((at, _), _)| Bound::Included(&name[..at]));
            }
        })
    }
}

/// Gives back what a crowd that has left took.
fn shrink<K: Eq + Hash, V>(map: &mut HashMap<K, V, RandomState>) {
    if map.capacity() > 64 && map.len() < map.capacity() / 4 {
        map.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(interests: &Interests<&'static str>, name: &str) -> Vec<&'static str> {
        interests.of(name).map(|who| **who).collect()
    }

    #[test]
    fn a_name_is_wanted_by_those_who_named_it_and_by_those_of_its_prefixes() {
        let mut interests = Interests::default();
        for prefix in ["", "a", "a/", "a/b", "a/c", "a0", "b", "a/bb", "ä/"] {
            interests.add(Part::Prefix(&prefix.into()), &Arc::new(prefix));
        }
        interests.add(Part::Names(&["a/b".into(), "x".into()]), &Arc::new("named"));
        assert_eq!(prefixes(&interests, "a/b"), ["named", "a/b", "a/", "a", ""]);
        assert_eq!(prefixes(&interests, "a/bz"), ["a/b", "a/", "a", ""]);
        assert_eq!(prefixes(&interests, "a/a"), ["a/", "a", ""]);
        assert_eq!(prefixes(&interests, "ä/1"), ["ä/", ""]);
        assert_eq!(prefixes(&interests, "ö"), [""]);
        assert_eq!(prefixes(&interests, "x"), ["named", ""]);
    }

    #[test]
    fn who_leaves_is_not_known_any_more() {
        let mut interests = Interests::default();
        let (one, other) = (Arc::new("one"), Arc::new("other"));
        let names = ["a".into(), "a".into(), "b".into()];
        let scope = Part::Names(&names);
        interests.add(scope, &one);
        interests.add(scope, &other);
        assert_eq!(prefixes(&interests, "a"), ["one", "other"], "twice is once");
        interests.remove(scope, &one);
        assert_eq!(prefixes(&interests, "a"), ["other"]);
        interests.remove(scope, &other);
        assert!(interests.is_empty() && !interests.covers("a"));
    }

    #[test]
    fn a_crowd_is_told_of_one_by_one_and_leaves_nothing_behind() {
        let mut interests = Interests::default();
        let crowd: Vec<_> = (0..1_000).map(Arc::new).collect();
        let names = ["a".into()];
        crowd.iter().for_each(|who| interests.add(Part::Names(&names), who));
        let mut told: Vec<i32> = interests.of("a").map(|who| **who).collect();
        told.sort_unstable();
        assert!(told.into_iter().eq(0..1_000));
        for (n, who) in crowd.iter().enumerate() {
            assert_eq!(interests.of("a").count(), 1_000 - n);
            interests.remove(Part::Names(&names), who);
        }
        assert!(interests.is_empty());
    }

    #[test]
    fn many_that_leave_give_back_what_they_took() {
        let mut interests = Interests::default();
        let all: Vec<_> = (0..1_000).map(|n| ([format!("a/{n}").into()], Arc::new(n))).collect();
        all.iter().for_each(|(names, who)| interests.add(Part::Names(names), who));
        all.iter().for_each(|(names, who)| interests.remove(Part::Names(names), who));
        assert!(interests.names.capacity() <= 64, "{}", interests.names.capacity());
    }

    #[test]
    fn a_name_that_no_prefix_covers_is_found_out_among_many() {
        let mut interests = Interests::default();
        for n in 0..10_000 {
            interests.add(Part::Prefix(&format!("user/{n}/").into()), &Arc::new("user"));
        }
        assert!(interests.covers("user/77/cart"));
        assert!(!interests.covers("user/77") && !interests.covers("users/1/") && !interests.covers("user/10000/"));
    }
}
