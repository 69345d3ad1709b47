//! What a token is for: which namespaces, which things, which verbs. A role says how much, a scope says of what.
//!
//! Plain sets and their inclusion; who asks for what is decided by the table of routes.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Name;

macro_rules! words {
    ($($(#[doc = $doc:literal])* pub enum $name:ident { $($(#[doc = $vdoc:literal])* $variant:ident = $text:literal),+ $(,)? })+) => { $(
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[doc = $vdoc])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// Every value, in order. New ones go to the end: stored tokens name them by their place.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word that people write.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL.iter().find(|v| v.as_str() == text).copied().ok_or_else(|| {
                    let known: Vec<&str> = Self::ALL.iter().map(|v| v.as_str()).collect();
                    let text: String = text.chars().take(40).collect();
                    format!("{text:?} is not one of {}", known.join(", "))
                })
            }
        }
    )+ };
}

words! {
    /// What the API is about: each route is about one of these.
    pub enum Noun {
        /// The server itself: health, metrics, the API's own description. Open to everybody.
        Server = "server",
        /// The cluster as a whole.
        Cluster = "cluster",
        /// Machines.
        Nodes = "nodes",
        /// Jobs; sweeps too, as the jobs that they are.
        Jobs = "jobs",
        /// Sweeps, with their beams.
        Sweeps = "sweeps",
        /// Sandboxes, and all that is in them: execs, files, snapshots.
        Sandboxes = "sandboxes",
        /// Tokens of the API.
        Tokens = "tokens",
        /// Who belongs to the cluster, and who is kept out.
        Members = "members",
        /// Tokens with which machines join.
        JoinTokens = "join-tokens",
        /// What happened.
        Events = "events",
        /// Why things are as they are.
        Explain = "explain",
        /// Images on the nodes.
        Images = "images",
        /// Namespaces and their quotas.
        Namespaces = "namespaces",
    }

    /// What is done to it.
    pub enum Verb {
        /// Looks at it.
        Read = "read",
        /// Makes one.
        Create = "create",
        /// Changes one, or uses it.
        Change = "change",
        /// Removes one.
        Delete = "delete",
    }
}

/// What a token is for. What is `None` is not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Only in these namespaces.
    pub namespaces: Option<BTreeSet<Name>>,
    /// Only these things.
    pub nouns: Option<BTreeSet<Noun>>,
    /// Only these verbs.
    pub verbs: Option<BTreeSet<Verb>>,
}

impl Scope {
    /// Whether it is for this verb on this noun, somewhere.
    pub fn allows(&self, noun: Noun, verb: Verb) -> bool {
        let has_noun = self.nouns.as_ref().is_none_or(|all| all.contains(&noun));
        has_noun && self.verbs.as_ref().is_none_or(|all| all.contains(&verb))
    }

    /// Whether what is in this namespace is there for it.
    pub fn sees(&self, namespace: &Name) -> bool {
        let named = self.namespaces.as_ref();
        named.is_none_or(|all| all.contains(namespace))
    }

    /// Whether it is for every namespace, those to come included.
    pub fn is_everywhere(&self) -> bool {
        self.namespaces.is_none()
    }

    /// Whether everything that `other` is for, it is for as well.
    pub fn covers(&self, other: &Self) -> bool {
        includes(&self.namespaces, &other.namespaces)
            && includes(&self.nouns, &other.nouns)
            && includes(&self.verbs, &other.verbs)
    }
}

/// Whether one limit lets pass all that the other does.
fn includes<T: Ord>(outer: &Option<BTreeSet<T>>, inner: &Option<BTreeSet<T>>) -> bool {
    match (outer, inner) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(outer), Some(inner)) => inner.is_subset(outer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names() -> Vec<Name> {
        let all = ["a", "b", "c"];
        all.iter().map(|n| n.parse().unwrap()).collect()
    }

    fn limit<T: Ord + Clone + fmt::Debug + 'static>(
        all: Vec<T>,
    ) -> impl Strategy<Value = Option<BTreeSet<T>>> {
        // Never empty: a scope for nothing is refused where tokens are made.
        let some = proptest::sample::subsequence(all.clone(), 1..=all.len());
        proptest::option::of(some.prop_map(|picked| picked.into_iter().collect()))
    }

    fn scope() -> impl Strategy<Value = Scope> {
        // To name every word there is, is less than no limit: there may be more words one day.
        let (nouns, verbs) = (
            limit(Noun::ALL[..4].to_vec()),
            limit(Verb::ALL[..3].to_vec()),
        );
        (limit(names()), nouns, verbs).prop_map(|(namespaces, nouns, verbs)| Scope {
            namespaces,
            nouns,
            verbs,
        })
    }

    /// Every single right that a scope gives, over a world with one namespace that no scope names.
    fn rights(scope: &Scope) -> BTreeSet<(Name, Noun, Verb)> {
        let mut world = names();
        world.push("unnamed".parse().unwrap());
        let mut all = BTreeSet::new();
        for name in world.iter().filter(|n| scope.sees(n)) {
            for noun in Noun::ALL {
                let verbs = Verb::ALL.iter().filter(|v| scope.allows(*noun, **v));
                all.extend(verbs.map(|verb| (name.clone(), *noun, *verb)));
            }
        }
        all
    }

    proptest! {
        #[test]
        fn one_scope_covers_another_exactly_when_it_gives_every_right_of_it(a in scope(), b in scope()) {
            prop_assert_eq!(a.covers(&b), rights(&b).is_subset(&rights(&a)));
        }

        #[test]
        fn no_limit_covers_every_scope_and_a_scope_covers_itself(a in scope()) {
            prop_assert!(Scope::default().covers(&a));
            prop_assert!(a.covers(&a));
            prop_assert_eq!(a.covers(&Scope::default()), a == Scope::default());
        }
    }

    #[test]
    fn words_read_back_and_others_are_refused_with_those_that_are_known() {
        for noun in Noun::ALL {
            assert_eq!(noun.as_str().parse(), Ok(*noun));
        }
        for verb in Verb::ALL {
            assert_eq!(verb.as_str().parse(), Ok(*verb));
        }
        let why = "job".parse::<Noun>().unwrap_err();
        assert!(why.contains("jobs, sweeps"), "{why}");
    }
}
