//! A breadth-first search through every state that a system can reach. The first trace to a
//! violation that it finds is a shortest one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::{self, Debug, Display, Formatter};
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// A system to search.
pub trait System {
    type State: Clone + Hash;
    type Action;
    type Property: Ord + Copy + Debug + Display;

    fn initial(&self) -> Self::State;

    /// Everything that can happen next, in an order that only depends on the state.
    fn actions(&self, state: &Self::State) -> Vec<Self::Action>;

    fn next(&self, state: &Self::State, action: &Self::Action) -> Self::State;

    /// An action in words.
    fn describe(&self, before: &Self::State, action: &Self::Action, after: &Self::State) -> String;

    /// The properties that do not hold in this state.
    fn violated(&self, state: &Self::State) -> Vec<Self::Property>;
}

/// What a search has found.
#[derive(Debug)]
pub struct Findings<P> {
    pub states: usize,
    pub steps: usize,
    /// Number of actions to the farthest state.
    pub depth: usize,
    /// Whether every reachable state was visited.
    pub is_exhausted: bool,
    /// A shortest trace to each property that does not hold.
    pub violations: Vec<(P, Trace)>,
}

/// The actions that lead to a violation, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace(pub Vec<String>);

/// When a search ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until<'a, P> {
    /// Every state was visited.
    Exhausted,
    /// A property other than these was violated, or every state was visited.
    Violated { except: &'a [P] },
}

/// How a state was reached first.
#[derive(Clone, Copy)]
struct Origin {
    /// The digest of the state before.
    parent: u64,
    /// The position of the action among those of the state before.
    action: u16,
}

/// Mixes what it is given by multiplication. It is several times faster than the hasher of std, which
/// is made for keys of strangers.
#[derive(Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let folded = chunk.iter().fold(0, |folded, byte| folded << 8 | u64::from(*byte));
            self.write_u64(folded);
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn write_u64(&mut self, number: u64) {
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        let (low, high) = (self.0 ^ number ^ 0x2545_f491_4f6c_dd1d).carrying_mul(FACTOR, 0);
        self.0 = low ^ high.rotate_left(23);
    }
}

/// Digests are uniform already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, digest: u64) {
        self.0 = digest;
    }
}

struct Search<'a, S: System> {
    system: &'a S,
    /// States by their digest. Two of a million states have the same digest with a probability of
    /// 1 to 37 million.
    visited: HashMap<u64, Origin, BuildHasherDefault<AsIs>>,
    findings: Findings<S::Property>,
}

/// Searches `system`, up to this number of states.
pub fn search<S: System>(
    system: &S,
    until: Until<'_, S::Property>,
    most_states: usize,
) -> Findings<S::Property> {
    let findings =
        Findings { states: 0, steps: 0, depth: 0, is_exhausted: false, violations: Vec::new() };
    let mut search = Search { system, visited: HashMap::default(), findings };
    let initial = system.initial();
    let mut frontier = Vec::new();
    search.visit(initial, Origin { parent: 0, action: 0 }, &mut frontier);
    while !frontier.is_empty() {
        let is_found = match until {
            Until::Exhausted => false,
            Until::Violated { except } => search.findings.violated_except(except).is_some(),
        };
        if is_found || search.findings.states > most_states {
            return search.findings;
        }
        frontier = search.expand(frontier);
        search.findings.depth += usize::from(!frontier.is_empty());
    }
    search.findings.is_exhausted = true;
    search.findings
}

impl<S: System> Search<'_, S> {
    /// Visits the states after those of the frontier, and returns the new ones.
    fn expand(&mut self, frontier: Vec<(u64, S::State)>) -> Vec<(u64, S::State)> {
        let mut found = Vec::new();
        for (parent, state) in frontier {
            for (position, action) in self.system.actions(&state).iter().enumerate() {
                let next = self.system.next(&state, action);
                let action = u16::try_from(position).unwrap_or(u16::MAX);
                self.findings.steps += 1;
                self.visit(next, Origin { parent, action }, &mut found);
            }
        }
        found
    }

    /// Adds the state and its digest to those that were found, if it is new.
    fn visit(&mut self, state: S::State, origin: Origin, found: &mut Vec<(u64, S::State)>) {
        let digest = digest(&state);
        let Entry::Vacant(vacant) = self.visited.entry(digest) else { return };
        vacant.insert(origin);
        self.findings.states += 1;
        for property in self.system.violated(&state) {
            if self.findings.violations.iter().all(|(known, _)| *known != property) {
                let trace = self.trace(digest);
                self.findings.violations.push((property, trace));
            }
        }
        found.push((digest, state));
    }

    /// Repeats the actions that lead to a state.
    fn trace(&self, digest: u64) -> Trace {
        let mut positions = Vec::new();
        let mut origin = self.visited.get(&digest);
        while let Some(Origin { parent, action }) = origin.filter(|origin| origin.parent != 0) {
            positions.push(usize::from(*action));
            origin = self.visited.get(parent);
        }
        let mut state = self.system.initial();
        let mut words = Vec::new();
        for position in positions.into_iter().rev() {
            let actions = self.system.actions(&state);
            let Some(action) = actions.get(position) else { break };
            let next = self.system.next(&state, action);
            words.push(self.system.describe(&state, action, &next));
            state = next;
        }
        Trace(words)
    }
}

impl<P: PartialEq> Findings<P> {
    /// The first property other than these that is violated, with its trace.
    pub fn violated_except(&self, except: &[P]) -> Option<&(P, Trace)> {
        self.violations.iter().find(|(property, _)| !except.contains(property))
    }

    pub fn trace(&self, property: &P) -> Option<&Trace> {
        self.violations.iter().find(|(violated, _)| violated == property).map(|(_, trace)| trace)
    }
}

impl Display for Trace {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        for (position, action) in self.0.iter().enumerate() {
            writeln!(formatter, "{:>4}. {action}", position + 1)?;
        }
        Ok(())
    }
}

fn digest(state: &impl Hash) -> u64 {
    let mut hasher = Mixer::default();
    state.hash(&mut hasher);
    // Zero is the parent of the initial state.
    hasher.finish().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two jugs of three and five litres.
    struct Jugs;

    #[derive(Clone, Copy, Debug)]
    enum Pour {
        Fill(usize),
        Empty(usize),
        Into(usize),
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    enum Never {
        FourLitres,
        SixLitres,
    }

    impl Display for Never {
        fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
            Debug::fmt(self, formatter)
        }
    }

    impl System for Jugs {
        type State = [u8; 2];
        type Action = Pour;
        type Property = Never;

        fn initial(&self) -> [u8; 2] {
            [0, 0]
        }

        fn actions(&self, _: &[u8; 2]) -> Vec<Pour> {
            [0, 1]
                .iter()
                .flat_map(|&jug| [Pour::Fill(jug), Pour::Empty(jug), Pour::Into(jug)])
                .collect()
        }

        fn next(&self, state: &[u8; 2], action: &Pour) -> [u8; 2] {
            let (sizes, mut next) = ([3, 5], *state);
            match *action {
                Pour::Fill(jug) => next[jug] = sizes[jug],
                Pour::Empty(jug) => next[jug] = 0,
                Pour::Into(jug) => {
                    let poured = next[1 - jug].min(sizes[jug] - next[jug]);
                    next[jug] += poured;
                    next[1 - jug] -= poured;
                }
            }
            next
        }

        fn describe(&self, _: &[u8; 2], action: &Pour, _: &[u8; 2]) -> String {
            format!("{action:?}")
        }

        fn violated(&self, state: &[u8; 2]) -> Vec<Never> {
            let violated = [(Never::FourLitres, state[1] == 4), (Never::SixLitres, state[1] == 6)];
            violated.iter().filter(|(_, is)| *is).map(|(property, _)| *property).collect()
        }
    }

    #[test]
    fn the_trace_is_the_shortest_one() {
        let findings = search(&Jugs, Until::Exhausted, 1000);
        assert!(findings.is_exhausted);
        assert_eq!(findings.states, 16);
        assert_eq!(findings.trace(&Never::SixLitres), None);
        let trace = findings.trace(&Never::FourLitres).unwrap();
        let expected = ["Fill(1)", "Into(0)", "Empty(0)", "Into(0)", "Fill(1)", "Into(0)"];
        assert_eq!(trace.0, expected);
    }

    #[test]
    fn a_search_ends_where_it_is_asked_to() {
        assert!(!search(&Jugs, Until::Violated { except: &[] }, 1000).is_exhausted);
        assert!(!search(&Jugs, Until::Exhausted, 3).is_exhausted);
    }
}
