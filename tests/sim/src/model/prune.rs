//! The steps of a prune: a generation of its own from tombstone to deletion, or one that another began.
//!
//! As the engine's prune, it goes by an index that it reads once, at its beginning, and by the headers of packs that no segment lists. Its
//! first look, on which nothing rests but what a tombstone names, is one step; the second, on which safety rests, is one step a call.
//! Promises nothing about the order in which packs of one decision go beyond that it is fixed. Does not know who may be hurt.

use super::choose::lost;
use super::play::Play;
use super::rule::Rule;
use super::state::{Doomed, LAST, MOVERS, Prune, PruneAt, SESSIONS, State, Store, bit, bits, moved_segment, new_segment};
use super::tell::{On, Who};

/// No generation: the index alone is rewritten.
pub(super) const NONE: u8 = u8::MAX;

impl Play<'_> {
    pub fn act(&mut self, st: &State, p: usize, text: &'static str, on: On, act: impl FnOnce(&mut Store, &mut Prune)) {
        let mut next = *st;
        let mut me = st.prunes[p];
        act(&mut next.store, &mut me);
        if me.at == PruneAt::Done {
            me = Prune { at: PruneAt::Done, ..Prune::default() };
        }
        next.prunes[p] = me;
        self.emit(next, Who::Prune(p), text, on);
    }

    pub fn refuse(&mut self, st: &State, p: usize, text: &'static str, on: On) {
        let mut next = *st;
        next.prunes[p] = Prune { at: PruneAt::Done, ..Prune::default() };
        next.refused = true;
        self.emit(next, Who::Prune(p), text, on);
    }

    /// A put that the store may answer and not keep. `stops` is the rule by which the prune then stops.
    fn put(&mut self, st: &State, p: usize, stops: Rule, text: &'static str, on: On, act: impl Fn(&mut Store, &mut Prune, bool)) {
        self.act(st, p, text, on, |store, me| act(store, me, true));
        if self.may_lose(st) && !self.keeps(stops) {
            self.act(st, p, "puts an object that the store answers and does not keep, and goes on", on, |store, me| {
                store.spent = true;
                act(store, me, false);
            });
        }
    }

    /// All steps of one prune.
    pub fn prune(&mut self, st: &State, p: usize) {
        let (me, store) = (st.prunes[p], st.store);
        let g = usize::from(me.generation);
        let named = On::Doomed(me.doomed.packs, me.doomed.tables);
        match me.at {
            PruneAt::Index => {
                if p > 0 && p < LAST && st.prunes[p - 1] == Prune::default() {
                    return;
                }
                self.act(st, p, "reads the index", On::Packs(store.indexed()), |store, me| {
                    me.known = store.indexed();
                    me.segments = (0..store.segments.len()).fold(0, |all, at| all | u16::from(store.segments[at] != 0) << at);
                    me.lied_to = me.segments & store.lying != 0;
                    me.at = PruneAt::Choose;
                });
            }
            PruneAt::Choose => {
                self.carry_on(st, p);
                if p < MOVERS && self.scene.moves && store.packs & bit(SESSIONS + p) == 0 && store.segments[moved_segment(p)] == 0
                {
                    self.read_for_moving(st, p);
                }
                self.own(st, p);
            }
            PruneAt::PutMoved => {
                let u = SESSIONS + p;
                self.act(st, p, "creates a pack with what it moves", On::Moved(u, me.moved), |store, me| {
                    store.packs |= bit(u);
                    store.made[u] = me.moved;
                    me.moved = 0;
                    me.at = PruneAt::IndexMoved;
                });
            }
            PruneAt::IndexMoved => {
                let u = SESSIONS + p;
                self.act(st, p, "indexes the pack with what it moved", On::Packs(bit(u)), |store, me| {
                    store.segments[moved_segment(p)] = bit(u);
                    me.known |= bit(u);
                    me.segments |= 1 << moved_segment(p);
                    me.at = PruneAt::Choose;
                });
            }
            PruneAt::Tombstone => {
                self.put(st, p, Rule::TombstoneKept, "creates a tombstone", named, |store, me, kept| {
                    if kept {
                        store.generations[p].tombstone = Some(me.doomed);
                    }
                    me.at = PruneAt::ListOpen;
                });
                if self.scene.tombstones_twice && !store.spent {
                    self.act(st, p, "creates a tombstone; the request is under way once more", named, |store, me| {
                        store.generations[p].tombstone = Some(me.doomed);
                        (store.adrift_tombstone, store.spent) = (Some((p as u8, me.doomed)), true);
                        me.at = PruneAt::ListOpen;
                    });
                }
            }
            PruneAt::ListOpen => {
                let (early, open) = (!self.keeps(Rule::TombstoneFirst), store.open_writers());
                let open = if early && g == p { me.open } else { open };
                self.act(st, p, "lists writers that are open", On::Sessions(open), |_, me| {
                    me.open = open;
                    me.at = PruneAt::Open;
                });
            }
            PruneAt::Open => {
                let first = self.keeps(Rule::OneOpen);
                self.put(st, p, Rule::OpenKept, "creates the list of open writers", On::Sessions(me.open), |store, me, kept| {
                    let generation = &mut store.generations[g];
                    match generation.open {
                        Some(there) if first => me.open = there,
                        Some(_) => {}
                        None if kept => generation.open = Some(me.open),
                        None => {}
                    }
                    me.at = PruneAt::LookFirst;
                });
            }
            PruneAt::LookFirst if !self.keeps(Rule::LookAgain) => self.decide_by_first_look(st, p),
            PruneAt::LookFirst => {
                if self.keeps(Rule::SnapshotsFirst) {
                    for hidden in self.hidden_snapshots(st) {
                        let listed = (store.committed | store.aborted) & !hidden;
                        let text = if hidden == 0 { "lists snapshots" } else { "lists snapshots; the store leaves one out" };
                        self.act(st, p, text, On::Sessions(listed), |store, me| {
                            store.spent |= hidden != 0;
                            me.listed = listed;
                            me.at = PruneAt::LookSecond;
                        });
                    }
                } else {
                    self.act(st, p, "lists markers", On::None, |store, me| {
                        me.reader = store.reader;
                        me.at = PruneAt::LookSecond;
                    });
                }
            }
            PruneAt::LookSecond => self.act(st, p, "lists removals", On::Sessions(store.removed), |store, me| {
                me.removed = store.removed;
                me.at = PruneAt::LookThird;
            }),
            PruneAt::LookThird => self.look_third(st, p),
            PruneAt::Tombstones => {
                let packs_early = !self.keeps(Rule::PrunePacksLast);
                let off = self.off(&store, g, me.doomed.packs);
                let on = On::Packs(if packs_early { store.packs } else { off });
                self.act(st, p, if packs_early { "lists packs" } else { "reads tombstones" }, on, |store, me| {
                    me.off = off;
                    me.packs = store.packs;
                    me.at = PruneAt::Packs;
                });
            }
            PruneAt::Packs => {
                let (packs, off) = match self.keeps(Rule::PrunePacksLast) {
                    true => (store.packs, me.off),
                    false => (me.packs, self.off(&store, g, me.doomed.packs)),
                };
                for packs in self.listings(st, packs) {
                    self.decide(st, p, packs, off);
                }
            }
            PruneAt::Decide => self.put_decision(st, p),
            PruneAt::ReadDecision => self.read_decision(st, p),
            PruneAt::Rewrite => self.rewrite(st, p),
            PruneAt::DropSegments => {
                let old = me.segments;
                self.act(st, p, "deletes index segments that it replaced", On::None, |store, me| {
                    for at in (0..store.segments.len()).filter(|at| old & 1 << at != 0) {
                        store.segments[at] = 0;
                        store.lying &= !(1 << at);
                    }
                    me.at = if me.generation == NONE { PruneAt::Done } else { PruneAt::LastLook };
                    me.segments = 0;
                });
            }
            PruneAt::LastLook => self.last_look(st, p),
            PruneAt::Delete => self.delete(st, p),
            PruneAt::EndTombstone => {
                let left = me.doomed.packs & store.packs != 0 || me.doomed.tables & store.tables != 0;
                self.act(st, p, "deletes the tombstone", On::None, |store, me| {
                    store.generations[g].tombstone = None;
                    me.at = if left { PruneAt::Delete } else { PruneAt::EndOpen };
                });
            }
            PruneAt::EndOpen => self.act(st, p, "deletes the list of open writers", On::None, |store, me| {
                store.generations[g].open = None;
                me.at = PruneAt::Done;
            }),
            PruneAt::Done => {}
        }
    }

    /// What is there holds. A put that is kept and the look after it are one step, for nobody takes a decision away.
    fn put_decision(&mut self, st: &State, p: usize) {
        let (me, store) = (st.prunes[p], &st.store);
        let (g, one) = (usize::from(me.generation), self.keeps(Rule::OneDecision));
        let named = On::Doomed(me.doomed.packs, me.doomed.tables);
        let there = store.generations[g].decision;
        let text = match there {
            _ if !one => "creates the decision, and follows its own",
            Some(_) => "finds a decision, which holds",
            None => "creates the decision",
        };
        let on = there.map_or(named, |d| On::Doomed(d.packs, d.tables));
        self.act(st, p, text, on, |store, me| {
            let held = *store.generations[g].decision.get_or_insert(me.doomed);
            me.doomed = if one { held } else { me.doomed };
            me.at = PruneAt::Rewrite;
        });
        if self.may_lose(st) && there.is_none() {
            self.act(st, p, "creates the decision, which the store answers and does not keep", named, |store, me| {
                store.spent = true;
                me.at = PruneAt::ReadDecision;
            });
        }
    }

    /// The look after a put that was answered and not kept: another may have put its own since.
    fn read_decision(&mut self, st: &State, p: usize) {
        let (me, store) = (st.prunes[p], &st.store);
        match store.generations[usize::from(me.generation)].decision {
            None if self.keeps(Rule::DecisionKept) => {
                self.act(st, p, "finds no decision, and leaves the generation", On::None, |_, me| me.at = PruneAt::Done);
            }
            Some(there) if self.keeps(Rule::DecisionRead) && self.keeps(Rule::OneDecision) => {
                let on = On::Doomed(there.packs, there.tables);
                self.act(st, p, "reads another's decision, which holds", on, |_, me| {
                    (me.doomed, me.at) = (there, PruneAt::Rewrite);
                });
            }
            _ => {
                let on = On::Doomed(me.doomed.packs, me.doomed.tables);
                self.act(st, p, "follows the decision that it sent", on, |_, me| me.at = PruneAt::Rewrite);
            }
        }
    }

    fn carry_on(&mut self, st: &State, p: usize) {
        for g in 0..st.store.generations.len() {
            let generation = st.store.generations[g];
            if !generation.is_live() || generation.tombstone.is_none() && !self.keeps(Rule::OrphansEnd) {
                continue;
            }
            let (at, doomed) = match (generation.decision, generation.tombstone, generation.open) {
                (Some(decision), ..) => (PruneAt::Rewrite, decision),
                (None, None, _) => (PruneAt::Decide, Doomed::default()),
                (None, Some(tombstone), None) => (PruneAt::ListOpen, tombstone),
                (None, Some(tombstone), Some(_)) => (PruneAt::LookFirst, tombstone),
            };
            let open = generation.open.unwrap_or_default();
            self.act(st, p, "carries on a generation", On::Generation(g), |store, me| {
                me.generation = g as u8;
                me.packs = store.packs;
                (me.at, me.doomed, me.open) = (at, doomed, open);
            });
        }
    }

    fn rewrite(&mut self, st: &State, p: usize) {
        let (me, store) = (st.prunes[p], &st.store);
        let stays = me.packs & !me.doomed.packs;
        let after = |me: &mut Prune| me.at = if me.generation == NONE { PruneAt::Done } else { PruneAt::LastLook };
        let read = (0..store.segments.len()).filter(|at| me.segments & 1 << at != 0);
        // A segment of which another has taken the place says what it said when it was read.
        let stale = read.filter(|at| store.segments[*at] & !stays != 0).fold(0, |all, at| all | 1_u16 << at);
        let lies = me.lied_to && stale & store.lying != 0;
        let kept = (0..store.segments.len())
            .filter(|at| me.segments & !stale & 1 << at != 0)
            .fold(0, |all, at| all | store.segments[at]);
        let new = me.known & stays & !kept;
        if stale == 0 && new == 0 {
            let mut me = *st;
            after(&mut me.prunes[p]);
            me.prunes[p].segments = 0;
            if me.prunes[p].at == PruneAt::Done {
                me.prunes[p] = Prune { at: PruneAt::Done, ..Prune::default() };
                self.emit(me, Who::Prune(p), "has nothing to do", On::None);
                return;
            }
            // Nothing is called for: the next step is the one that comes then.
            return self.prune(&me, p);
        }
        self.act(st, p, "puts an index segment without what goes", On::Packs(new), |store, me| {
            store.segments[new_segment(p)] = new;
            if lies {
                store.lying |= 1 << new_segment(p);
            }
            me.segments = stale;
            me.at = PruneAt::DropSegments;
        });
    }

    fn last_look(&mut self, st: &State, p: usize) {
        let (me, store) = (st.prunes[p], &st.store);
        let looks = self.keeps(Rule::LookAgain) && self.keeps(Rule::LastLook);
        let at = if self.keeps(Rule::PacksGoFirst) { PruneAt::Delete } else { PruneAt::EndTombstone };
        let counted = store.counted();
        let ground = self.ground(&me, store, store.packs, store.needed(counted), 0, p);
        let tables = bits(counted).fold(0, |all, s| all | bit(usize::from(store.names[s])));
        if looks && (lost(&ground, me.doomed.packs) != 0 || me.doomed.tables & tables & store.tables != 0) {
            let on = On::Doomed(me.doomed.packs, me.doomed.tables);
            return self.refuse(st, p, "refuses: a snapshot needs what the decision names", on);
        }
        self.act(st, p, if looks { "looks for the last time" } else { "goes on without a last look" }, On::None, |_, me| {
            (me.known, me.packs, me.lied_to) = (0, 0, false);
            me.at = at;
        });
    }

    fn delete(&mut self, st: &State, p: usize) {
        let (me, store) = (st.prunes[p], &st.store);
        let (packs, tables) = (me.doomed.packs & store.packs, me.doomed.tables & store.tables);
        let ended = !self.keeps(Rule::PacksGoFirst);
        if let Some(pack) = bits(packs).next() {
            self.act(st, p, "deletes a pack", On::Packs(bit(pack)), |store, _| store.packs &= !bit(pack));
        } else if let Some(table) = bits(tables).next() {
            self.act(st, p, "deletes a usage table", On::Tables(bit(table)), |store, _| store.tables &= !bit(table));
        } else {
            let mut next = *st;
            next.prunes[p].at = if ended { PruneAt::EndOpen } else { PruneAt::EndTombstone };
            next.prunes[p].doomed = Doomed::default();
            self.prune(&next, p);
        }
    }
}
