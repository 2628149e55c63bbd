//! What a prune makes of what it saw: what is needed, who runs, which packs may go.
//!
//! The first look is one step, for nothing rests on it but what a tombstone names; of the second, on which safety rests, the last call is here.
//! Promises to call for a refusal where docs/format.md chapter 12 does, and nowhere else.

use super::choose::{Ground, choose};
use super::play::Play;
use super::prune::NONE;
use super::rule::Rule;
use super::state::{Doomed, Frames, Generation, Packs, Prune, PruneAt, SESSIONS, Sessions, State, Store, bit, bits};
use super::tell::On;

impl Play<'_> {
    /// The first look, and the candidates.
    pub fn own(&mut self, st: &State, p: usize) {
        let (me, store) = (st.prunes[p], &st.store);
        let mut need = store.needed(store.counted());
        let mut tables = bits(store.counted()).fold(0, |all, s| all | bit(usize::from(store.names[s])));
        if let Some(snapshot) = store.reader.filter(|_| self.keeps(Rule::ReadersCount)) {
            need |= store.needs(usize::from(snapshot));
            tables |= bit(usize::from(store.names[usize::from(snapshot)]));
        }
        let off = store.generations.iter().fold(0, |all, g| all | g.off());
        let pending = store.tombstoned().tables;
        let spared = if self.keeps(Rule::OpenSpared) { sheltered(store) } else { 0 };
        let blind = !self.keeps(Rule::FirstLook);
        if store.generations[p] != Generation::default() {
            return;
        }
        for packs in self.listings(st, store.packs) {
            let mut ground = self.ground(&me, &st.store, packs, if blind { 0 } else { need }, off | self.spent(store), p);
            let chosen = choose(&mut ground, packs & !spared & !off);
            let doomed = Doomed { packs: chosen, tables: store.tables & !pending & if blind { u8::MAX } else { !tables } };
            let short = packs != store.packs;
            if doomed == Doomed::default() {
                let stale = me.known & !packs != 0;
                self.act(st, p, "finds nothing to delete", On::None, |store, me| {
                    store.spent |= short;
                    (me.generation, me.packs, me.known) = (NONE, packs, ground.known);
                    me.at = if stale { PruneAt::Rewrite } else { PruneAt::Done };
                });
                continue;
            }
            let (keeps_look, early) = (self.keeps(Rule::LookAgain), !self.keeps(Rule::TombstoneFirst));
            self.act(st, p, "looks, and chooses candidates", On::Doomed(doomed.packs, doomed.tables), |store, me| {
                store.spent |= short;
                me.generation = p as u8;
                (me.doomed, me.known) = (doomed, ground.known);
                if early {
                    me.open = store.open_writers();
                }
                if !keeps_look {
                    (me.need, me.tables, me.packs, me.off) = (need, tables, packs, off | doomed.packs);
                }
                me.at = PruneAt::Tombstone;
            });
        }
    }

    pub fn ground(&self, me: &Prune, store: &Store, packs: Packs, need: Frames, off: Packs, p: usize) -> Ground {
        Ground {
            made: store.made,
            lie: if me.lied_to { self.scene.lie } else { None },
            known: me.known,
            listed: packs,
            need,
            off,
            descending: self.scene.descends & bit(p) != 0,
            reads_headers: self.keeps(Rule::KnownPacks),
            proves_headers: self.keeps(Rule::HeaderProof),
        }
    }

    pub fn off(&self, store: &Store, g: usize, own: Packs) -> Packs {
        match self.keeps(Rule::OtherTombstones) {
            true => store.generations.iter().fold(own, |all, g| all | g.off()),
            false => own | store.generations[g].off(),
        }
    }

    /// What any decision named, as it is read after packs are listed.
    fn spent(&self, store: &Store) -> Packs {
        if self.keeps(Rule::SpentPacks) { store.decided().packs } else { 0 }
    }

    /// Whether some writer has to be waited for.
    fn waits(&self, open: Sessions, ended: Sessions) -> bool {
        self.keeps(Rule::WaitForWriters) && open & !ended != 0
    }

    pub fn look_third(&mut self, st: &State, p: usize) {
        let (me, store) = (st.prunes[p], &st.store);
        let ordered = self.keeps(Rule::SnapshotsFirst);
        let (listed, reader) = if ordered { (me.listed, store.reader) } else { (store.committed | store.aborted, me.reader) };
        let reader = reader.filter(|_| self.keeps(Rule::ReadersCount)).map(usize::from);
        let over = "finds that something went while it looked, and looks again";
        let again = |_: &mut Store, me: &mut Prune| {
            (me.listed, me.removed, me.reader) = (0, 0, None);
            me.at = PruneAt::LookFirst;
        };
        let (mut need, mut tables) = (0, 0);
        for s in bits(listed & !me.removed & !store.aborted) {
            let table = usize::from(store.names[s]);
            if store.committed & bit(s) == 0 || store.tables & bit(table) == 0 {
                match store.removed & bit(s) != 0 {
                    true => self.act(st, p, over, On::Snapshot(s), again),
                    false => self.refuse(st, p, "refuses: a snapshot or its usage table is gone", On::Snapshot(s)),
                }
                return;
            }
            need |= store.says[table];
            tables |= bit(table);
        }
        if let Some(s) = reader {
            let table = usize::from(store.names[s]);
            let ended = (listed | me.removed) & bit(s) != 0;
            if !ended && store.committed & bit(s) != 0 {
                self.act(st, p, over, On::Snapshot(s), again);
                return;
            }
            if !ended && store.removed & bit(s) == 0 {
                self.refuse(st, p, "refuses: a reader names a snapshot that is neither listed nor deleted", On::Snapshot(s));
                return;
            }
            tables |= bit(table);
            if store.tables & bit(table) != 0 {
                need |= store.says[table];
            } else if me.removed & bit(s) == 0 {
                match store.removed & bit(s) != 0 {
                    true => self.act(st, p, over, On::Snapshot(s), again),
                    false => self.refuse(st, p, "refuses: the usage table of what is read is gone", On::Snapshot(s)),
                }
                return;
            }
        }
        let waits = self.waits(me.open, listed | me.removed);
        let on = if waits { On::Sessions(me.open & !(listed | me.removed)) } else { On::Frames(need) };
        self.act(
            st,
            p,
            if waits { "still waits for a writer" } else { "lists markers and reads usage tables: what is needed" },
            on,
            |_, me| {
                (me.listed, me.removed, me.reader) = (0, 0, None);
                if waits {
                    me.at = PruneAt::LookFirst;
                } else {
                    (me.need, me.tables, me.open) = (need, tables, 0);
                    me.at = PruneAt::Tombstones;
                }
            },
        );
    }

    pub fn decide_by_first_look(&mut self, st: &State, p: usize) {
        let (me, store) = (st.prunes[p], &st.store);
        if self.waits(me.open, store.ended()) {
            return;
        }
        let (packs, off) = if usize::from(me.generation) == p { (me.packs, me.off) } else { (store.packs, me.doomed.packs) };
        self.decide(st, p, packs, off);
    }

    /// What is deleted, of what the tombstone names.
    pub fn decide(&mut self, st: &State, p: usize, packs: Packs, off: Packs) {
        let (me, store) = (st.prunes[p], &st.store);
        let mut ground = self.ground(&me, store, packs, me.need, off | self.spent(store), p);
        let chosen = choose(&mut ground, me.doomed.packs & packs);
        // What was missing then and is asked for now by a snapshot that still counts is damage.
        let missing = ground.missing() & store.needed(store.counted());
        let short = packs != store.packs && self.scene.short_packs;
        if missing != 0 {
            let mut st = *st;
            st.store.spent |= short;
            self.refuse(&st, p, "refuses: a frame that a snapshot needs lies nowhere", On::Frames(missing));
            return;
        }
        let tables = if self.keeps(Rule::DoomedTables) { me.doomed.tables & !me.tables } else { me.doomed.tables };
        self.act(st, p, "lists packs, and decides what to delete", On::Doomed(chosen, tables), |store, me| {
            store.spent |= short;
            me.doomed = Doomed { packs: chosen, tables };
            (me.need, me.tables, me.off, me.open) = (0, 0, 0, 0);
            (me.packs, me.known) = (packs, ground.known);
            me.at = PruneAt::Decide;
        });
    }

    /// A listing of packs, and where listings may be short, without one of them.
    pub fn listings(&self, st: &State, packs: Packs) -> Vec<Packs> {
        let mut out = vec![packs];
        if self.scene.short_packs && !st.store.spent {
            out.extend(bits(packs).map(|pack| packs & !bit(pack)));
        }
        out
    }

    /// Snapshots that the store's one short listing may leave out, each alone, and none.
    pub fn hidden_snapshots(&self, st: &State) -> Vec<Sessions> {
        let mut out = vec![0];
        if self.scene.hides && !st.store.spent {
            out.extend(bits(st.store.counted()).map(bit));
        }
        out
    }

    /// Reads what it means to move out of a pack of which a part is needed.
    pub fn read_for_moving(&mut self, st: &State, p: usize) {
        let store = &st.store;
        let need = store.needed(store.counted());
        for pack in bits(store.packs & st.prunes[p].known & !sheltered(store) & !store.tombstoned().packs) {
            let moved = store.made[pack] & need;
            let is_worth = moved != 0 && (moved != store.made[pack] || self.scene.merges);
            if is_worth && pack < SESSIONS {
                self.act(st, p, "reads what is needed of a pack, to move it", On::Packs(bit(pack)), |_, me| {
                    me.moved = moved;
                    me.at = PruneAt::PutMoved;
                });
            }
        }
    }
}

/// Packs of open writers, and of sessions that they adopt.
fn sheltered(store: &Store) -> Packs {
    let open = store.open_writers();
    // A writer's second session adopts its first.
    bits(open).filter(|s| s % 2 == 1 && *s > 2).fold(open, |all, s| all | bit(s - 1))
}
