//! What a state leaves when everybody in it is dead: prunes that nothing disturbs must end all of it, and leave nothing that nobody needs.

use super::explore::broken;
use super::play::Play;
use super::rule::Kept;
use super::scene::Scene;
use super::state::{Generation, LAST, Prune, PruneAt, State, Store, bit, bits};

/// More runs than any state should need: one a generation, one of its own, one that finds nothing.
const RUNS_MAX: usize = 8;
/// More steps than any run has.
const STEPS_MAX: usize = 60;

/// Fences all writers, ends the reader, and prunes until there is nothing to do.
pub(super) fn finish(store: &Store, scene: &Scene, kept: Kept) -> Result<(), String> {
    let honest = Scene { loses: false, short_packs: false, hides: false, moves: false, ..*scene };
    let mut st = State { store: *store, ..State::default() };
    let open = st.store.open_writers();
    st.store.aborted |= open;
    (st.store.markers, st.store.reader, st.store.flying) = (0, None, 0);
    (st.store.adrift, st.store.adrift_tombstone) = (0, None);
    st.store.spent = true;
    let mut play = Play { scene: &honest, kept, out: Vec::new() };
    for _ in 0..RUNS_MAX {
        let busy = run(&mut st, &mut play, &honest)?;
        st.prunes[LAST] = Prune::default();
        st.store.generations[LAST] = match st.store.generations[LAST].is_live() {
            true => st.store.generations[LAST],
            false => Generation::default(),
        };
        if !busy {
            return left(&st.store);
        }
        // What this run wrote is a segment like any other to the next.
        let last = st.store.segments.len() - 1;
        if let Some(free) = (0..last).find(|at| st.store.segments[*at] == 0) {
            st.store.segments.swap(free, last);
            if st.store.lying & 1 << last != 0 {
                st.store.lying ^= 1 << last | 1 << free;
            }
        }
    }
    Err("prunes that nothing disturbs find always something to do".to_owned())
}

/// Whether the run had anything to do.
fn run(st: &mut State, play: &mut Play<'_>, scene: &Scene) -> Result<bool, String> {
    let before = st.store;
    for _ in 0..STEPS_MAX {
        play.out.clear();
        play.prune(st, LAST);
        let Some((next, _)) = play.out.first() else {
            return Err("a prune that nothing disturbs waits for ever".to_owned());
        };
        *st = *next;
        if let Some(what) = broken(st, scene) {
            return Err(format!("when all are dead and a prune runs: {what}"));
        }
        if st.prunes[LAST].at == PruneAt::Done {
            return Ok(st.store != before);
        }
    }
    Err("a prune that nothing disturbs does not end: it waits".to_owned())
}

/// What is there that nobody needs.
fn left(store: &Store) -> Result<(), String> {
    let need = store.needed(store.counted());
    let tables = bits(store.counted()).fold(0, |all, s| all | bit(usize::from(store.names[s])));
    let needless = bits(store.packs).any(|pack| store.made[pack] & need & !store.frames(store.packs & !bit(pack)) == 0);
    let what = match () {
        () if store.generations.iter().any(Generation::is_live) => "a generation that is not ended",
        () if needless => "a pack that nobody needs",
        () if store.tables & !tables != 0 => "a usage table that nobody needs",
        () if store.indexed() & !store.packs != 0 => "an index of packs that are gone",
        () => return Ok(()),
    };
    Err(format!("when all are dead and prunes have run, there stays {what}"))
}
