//! What can happen next: the steps of users, of the store's faults, of writers and of readers. Those of prunes are in `prune`.
//!
//! A step is one call of the store with what its process makes of the answer. Whoever has a step may take it at any time or never: that is
//! also what a crash is. Promises to leave out no step that docs/format.md chapter 12 allows in a scene, and to know no oracle.

use super::rule::{Kept, Rule};
use super::scene::Scene;
use super::state::{
    CHUNKS, Doomed, Packs, ReaderAt, State, Store, WRITERS, Writer, WriterAt, bit, bits, frame, frames_of, session,
};
use super::tell::{On, Step, Who};

/// The steps out of one state.
pub(super) struct Play<'a> {
    pub scene: &'a Scene,
    pub kept: Kept,
    pub out: Vec<(State, Step)>,
}

impl Play<'_> {
    pub fn keeps(&self, rule: Rule) -> bool {
        self.kept.keeps(rule)
    }

    /// Whether a put may be answered now and not kept.
    pub fn may_lose(&self, st: &State) -> bool {
        self.scene.loses && !st.store.spent
    }

    pub fn emit(&mut self, mut next: State, who: Who, text: &'static str, on: On) {
        // The marker of a session that has ended says nothing to anybody.
        next.store.markers &= !next.store.ended();
        self.out.push((next, Step { who, text, on }));
    }

    /// All steps out of a state, into `out`.
    pub fn steps(&mut self, st: &State) {
        self.out.clear();
        if st.refused && !self.scene.lies() {
            return;
        }
        self.world(st);
        for writer in 0..usize::from(self.scene.writers) {
            // Writers who want the same begin in the order of their numbers: nothing tells them apart.
            let waits = writer > 0 && self.scene.wants[0] == self.scene.wants[writer] && st.writers[0] == Writer::default();
            if !waits {
                self.writer(st, writer);
            }
        }
        if self.scene.reader {
            self.reader(st);
        }
        for prune in 0..usize::from(self.scene.prunes) {
            self.prune(st, prune);
        }
    }

    fn world(&mut self, st: &State) {
        let store = &st.store;
        for at in bits(store.flying) {
            let mut next = *st;
            next.store.flying &= !bit(at);
            if (store.committed | store.aborted) & bit(at) == 0 {
                next.store.committed |= bit(at);
            }
            self.emit(next, Who::Store, "a commit arrives that was under way", On::Snapshot(at));
        }
        for at in bits(store.adrift) {
            let mut next = *st;
            next.store.adrift &= !bit(at);
            next.store.packs |= bit(at);
            self.emit(next, Who::Store, "a pack arrives that was sent twice", On::Packs(bit(at)));
        }
        if let Some((g, doomed)) = store.adrift_tombstone {
            let mut next = *st;
            next.store.adrift_tombstone = None;
            next.store.generations[usize::from(g)].tombstone.get_or_insert(doomed);
            self.emit(next, Who::Store, "a tombstone arrives that was sent twice", On::Doomed(doomed.packs, doomed.tables));
        }
        for at in bits(store.counted() & self.scene.removable) {
            let mut next = *st;
            next.store.told &= !bit(at);
            if self.keeps(Rule::RemovalFirst) {
                next.store.removed |= bit(at);
                self.emit(next, Who::User, "deletes a snapshot: creates the removal", On::Snapshot(at));
            } else {
                next.store.committed &= !bit(at);
                self.emit(next, Who::User, "deletes a snapshot, without a removal", On::Snapshot(at));
            }
            if self.may_lose(st) && !self.keeps(Rule::RemovalKept) {
                let mut next = *st;
                next.store.told &= !bit(at);
                next.store.spent = true;
                next.store.committed &= !bit(at);
                self.emit(
                    next,
                    Who::User,
                    "deletes a snapshot; the store answers the removal and does not keep it",
                    On::Snapshot(at),
                );
            }
        }
        for at in bits(store.committed & store.removed) {
            let mut next = *st;
            next.store.committed &= !bit(at);
            self.emit(next, Who::User, "deletes the removed snapshot's object", On::Snapshot(at));
        }
        if self.scene.fences {
            for at in bits(store.open_writers()) {
                let mut next = *st;
                next.store.aborted |= bit(at);
                self.emit(next, Who::Fence, "judges a session dead: takes its commit key", On::Snapshot(at));
                if self.may_lose(st) && !self.keeps(Rule::FenceKept) {
                    let mut next = *st;
                    next.store.spent = true;
                    next.store.markers &= !bit(at);
                    self.emit(
                        next,
                        Who::Fence,
                        "judges a session dead; the store does not keep it, the marker goes",
                        On::Snapshot(at),
                    );
                }
            }
        }
    }

    fn reader(&mut self, st: &State) {
        let me = st.reader;
        let at = usize::from(me.snapshot);
        let mut next = *st;
        match me.at {
            ReaderAt::Choose => {
                for at in bits(st.store.counted() & self.scene.readable) {
                    let mut next = *st;
                    (next.reader.at, next.reader.snapshot) = (ReaderAt::Marker, at as u8);
                    self.emit(next, Who::Reader, "chooses a snapshot that counts", On::Snapshot(at));
                }
            }
            ReaderAt::Marker => {
                next.reader.at = ReaderAt::Look;
                if self.may_lose(st) && !self.keeps(Rule::ReaderKept) {
                    let mut next = next;
                    next.store.spent = true;
                    self.emit(next, Who::Reader, "creates its marker; the store answers and does not keep it", On::Snapshot(at));
                }
                if self.keeps(Rule::ReaderMarker) {
                    next.store.reader = Some(me.snapshot);
                }
                self.emit(next, Who::Reader, "creates its marker", On::Snapshot(at));
            }
            ReaderAt::Look if st.store.removed & bit(at) != 0 && self.keeps(Rule::ReaderLooks) => {
                next.reader.at = ReaderAt::Done;
                next.store.reader = None;
                self.emit(next, Who::Reader, "finds the removal, deletes its marker and stops", On::Snapshot(at));
            }
            ReaderAt::Look => {
                next.reader.at = ReaderAt::Reads;
                self.emit(next, Who::Reader, "finds no removal, and reads", On::Snapshot(at));
            }
            ReaderAt::Reads => {
                next.reader.at = ReaderAt::Done;
                next.store.reader = None;
                self.emit(next, Who::Reader, "has read all, deletes its marker", On::Snapshot(at));
            }
            ReaderAt::Done => {}
        }
    }

    fn write(&mut self, st: &State, w: usize, text: &'static str, on: On, act: impl FnOnce(&mut Store, &mut Writer)) {
        let mut next = *st;
        let mut me = st.writers[w];
        act(&mut next.store, &mut me);
        if me.at == WriterAt::Done {
            me = Writer { at: WriterAt::Done, ..Writer::default() };
        }
        next.writers[w] = me;
        self.emit(next, Who::Writer(w), text, on);
    }

    /// The next attempt, in a session that adopts this one; or none, when all are used up.
    fn again(&self, me: &mut Writer) {
        *me = match me.attempt + 1 < self.scene.attempts {
            true => Writer { attempt: me.attempt + 1, ..Writer::default() },
            false => Writer { at: WriterAt::Done, ..Writer::default() },
        };
    }

    fn writer(&mut self, st: &State, w: usize) {
        let me = st.writers[w];
        let s = session(w, me.attempt);
        let own = On::Session(s);
        if self.scene.dies
            && matches!(me.at, WriterAt::Segment | WriterAt::Usage | WriterAt::Commit | WriterAt::GiveUp)
            && me.attempt + 1 < self.scene.attempts
        {
            let mut next = *st;
            self.again(&mut next.writers[w]);
            self.emit(next, Who::Writer(w), "dies; its next run will adopt the session", own);
        }
        match me.at {
            WriterAt::Marker | WriterAt::LateMarker => self.put_marker(st, w, s),
            WriterAt::EndAdopted => {
                let old = s - 1;
                self.write(st, w, "ends the session that it adopts", On::Snapshot(old), |store, me| {
                    if store.ended() & bit(old) == 0 {
                        store.aborted |= bit(old);
                    }
                    me.at = WriterAt::Tombstones;
                });
            }
            WriterAt::Tombstones => {
                let (packs_late, dead) = (!self.keeps(Rule::WriterPacksLast), st.store.tombstoned());
                self.write(st, w, if packs_late { "lists index and packs" } else { "reads tombstones" }, own, |store, me| {
                    me.at = WriterAt::Index;
                    me.dead = dead;
                    if packs_late {
                        (me.listed, me.dead) = (store.packs, Doomed::default());
                    }
                });
            }
            WriterAt::Index => self.write(st, w, "reads the index", own, |store, me| {
                me.at = WriterAt::Packs;
                me.known = store.indexed();
            }),
            WriterAt::Packs => self.choose_frames(st, w, s),
            WriterAt::Pack | WriterAt::LatePack => {
                let late = me.at == WriterAt::LatePack;
                let made = bits(me.fresh).fold(0, |all, chunk| all | frame(s, chunk));
                let put = |store: &mut Store, me: &mut Writer, kept: bool| {
                    store.made[s] = made;
                    if kept {
                        store.packs |= bit(s);
                    }
                    store.spent |= !kept;
                    me.at = if late { WriterAt::Done } else { WriterAt::Segment };
                };
                if self.scene.packs_twice && !st.store.spent {
                    self.write(st, w, "uploads its pack; the request is under way once more", On::Packs(bit(s)), |store, me| {
                        put(store, me, true);
                        (store.adrift, store.spent) = (bit(s), true);
                    });
                }
                self.write(st, w, "uploads its pack", On::Packs(bit(s)), |store, me| put(store, me, true));
                if self.may_lose(st) {
                    self.write(
                        st,
                        w,
                        "uploads its pack; the store answers and does not keep it",
                        On::Packs(bit(s)),
                        |store, me| put(store, me, false),
                    );
                }
            }
            WriterAt::Segment => self.write(st, w, "indexes what it uploaded", On::Packs(bit(s)), |store, me| {
                store.segments[s - 1] |= bit(s);
                me.at = WriterAt::Usage;
            }),
            WriterAt::Usage => self.put_usage(st, w, s),
            WriterAt::Commit => self.commit(st, w, s),
            WriterAt::GiveUp => {
                if self.keeps(Rule::GiveUpAborts) {
                    self.write(st, w, "gives up: takes its own commit key", On::Snapshot(s), |store, me| {
                        if store.ended() & bit(s) == 0 {
                            store.aborted |= bit(s);
                        }
                        me.at = WriterAt::Done;
                    });
                } else {
                    self.write(st, w, "gives up: deletes its marker and leaves its commit key free", own, |store, me| {
                        store.markers &= !bit(s);
                        me.at = WriterAt::Done;
                    });
                }
            }
            WriterAt::Done => {}
        }
    }

    fn put_marker(&mut self, st: &State, w: usize, s: usize) {
        let me = st.writers[w];
        let late = me.at == WriterAt::LateMarker;
        let on = On::Session(s);
        if !self.keeps(Rule::MarkerFirst) && !late {
            self.write(st, w, "begins without a marker", on, |_, me| me.at = WriterAt::Tombstones);
            return;
        }
        let again = me.attempt > 0 && !self.keeps(Rule::BeginAgain);
        let ends = me.attempt > 0 && !self.scene.repeats && self.keeps(Rule::AdoptedEnded) && st.store.ended() & bit(s - 1) == 0;
        let go = |me: &mut Writer| {
            me.at = match (late, again, ends) {
                (true, ..) if me.fresh != 0 => WriterAt::Pack,
                (true, ..) | (_, true, _) => WriterAt::Usage,
                (.., true) => WriterAt::EndAdopted,
                _ => WriterAt::Tombstones,
            };
        };
        self.write(st, w, "creates its marker", on, |store, me| {
            store.markers |= bit(s);
            go(me);
        });
        if self.may_lose(st) && !self.keeps(Rule::MarkerKept) {
            self.write(st, w, "creates its marker; the store answers and does not keep it", on, |store, me| {
                store.spent = true;
                go(me);
            });
        }
    }

    /// Lists packs, and chooses for each chunk a frame that may be used; those without one are stored anew.
    fn choose_frames(&mut self, st: &State, w: usize, s: usize) {
        let (me, store) = (st.writers[w], st.store);
        let adopted: Packs = if me.attempt > 0 && !self.scene.repeats { bit(s - 1) } else { 0 };
        let (listed, dead) = match self.keeps(Rule::WriterPacksLast) {
            true => (store.packs, me.dead),
            false => (me.listed, store.tombstoned()),
        };
        let dead = if self.keeps(Rule::DeadPacks) { dead } else { Doomed { packs: 0, ..dead } };
        let spent = if self.keeps(Rule::SpentUnused) { store.decided() } else { Doomed::default() };
        // Packs of adopted sessions that stand in no segment are found by their headers.
        let known = me.known | adopted;
        let mut usable = known & listed & !dead.packs;
        if !self.keeps(Rule::ListedPacks) {
            usable = me.known & !dead.packs;
        }
        if !self.keeps(Rule::AdoptedProved) {
            usable |= adopted;
        }
        usable &= !spent.packs;
        let there = store.frames(usable);
        let text = if self.keeps(Rule::WriterPacksLast) {
            "lists packs, and chooses what to rely on"
        } else {
            "reads tombstones, and chooses what to rely on"
        };
        let wants = self.scene.wants[w];
        let mut choices: Vec<(u16, u8)> = vec![(0, 0)];
        for chunk in 0..CHUNKS {
            if wants & bit(chunk) == 0 {
                continue;
            }
            let found = there & frames_of(chunk);
            let options: Vec<u16> = (0..16).map(|at| 1 << at).filter(|one| found & one != 0).collect();
            choices = match options.is_empty() {
                true => choices.iter().map(|(need, fresh)| (need | frame(s, chunk), fresh | bit(chunk))).collect(),
                false => choices.iter().flat_map(|(need, fresh)| options.iter().map(move |one| (need | one, *fresh))).collect(),
            };
        }
        let (marker_late, commit_early) = (!self.keeps(Rule::MarkerFirst), !self.keeps(Rule::CommitLast));
        for (need, fresh) in choices {
            self.write(st, w, text, On::Frames(need), |_, me| {
                *me = Writer {
                    at: match (marker_late, commit_early, fresh) {
                        (true, ..) => WriterAt::LateMarker,
                        (_, true, _) | (.., 0) => WriterAt::Usage,
                        _ => WriterAt::Pack,
                    },
                    attempt: me.attempt,
                    dead: Doomed { packs: 0, tables: dead.tables | spent.tables },
                    known: 0,
                    listed: 0,
                    need,
                    fresh,
                    table: 0,
                };
            });
        }
    }

    /// Names a usage table of equal content that may be relied on, or puts its own; then proves its packs.
    fn put_usage(&mut self, st: &State, w: usize, s: usize) {
        let (me, store) = (st.writers[w], st.store);
        let dead = if self.keeps(Rule::DeadTables) { me.dead.tables } else { 0 };
        let lost = me.fresh != 0 && store.packs & bit(s) == 0 && self.keeps(Rule::CommitLast);
        let go = |me: &mut Writer, table: usize, proves: bool| {
            me.at = if lost && proves { WriterAt::GiveUp } else { WriterAt::Commit };
            me.table = table as u8;
            me.dead = Doomed::default();
        };
        let proves = self.keeps(Rule::Prove);
        let equal: Vec<usize> = bits(store.tables & !dead).filter(|t| store.says[*t] == me.need).collect();
        for t in &equal {
            self.write(st, w, "finds a usage table of equal content, and names it", On::Tables(bit(*t)), |_, me| {
                go(me, *t, proves)
            });
        }
        if !equal.is_empty() {
            return;
        }
        self.write(st, w, "uploads its usage table", On::Tables(bit(s)), |store, me| {
            store.tables |= bit(s);
            store.says[s] = me.need;
            go(me, s, proves);
        });
        if self.may_lose(st) && !self.keeps(Rule::TableKept) {
            self.write(
                st,
                w,
                "uploads its usage table; the store answers and does not keep it",
                On::Tables(bit(s)),
                |store, me| {
                    store.says[s] = me.need;
                    store.spent = true;
                    go(me, s, proves);
                },
            );
        }
    }

    fn commit(&mut self, st: &State, w: usize, s: usize) {
        let (me, store) = (st.writers[w], st.store);
        let on = On::Snapshot(s);
        let done = if self.keeps(Rule::CommitLast) || me.fresh == 0 { WriterAt::Done } else { WriterAt::LatePack };
        let next = self.scene.repeats && me.attempt + 1 < self.scene.attempts;
        let land = |store: &mut Store, me: &mut Writer, tells: bool| {
            store.names[s] = me.table;
            store.committed |= bit(s);
            store.aborted &= !bit(s);
            if tells {
                store.told |= bit(s);
            }
            me.at = done;
            if next && done == WriterAt::Done {
                *me = Writer { attempt: me.attempt + 1, ..Writer::default() };
            }
        };
        if (store.committed | store.aborted) & bit(s) == 0 {
            self.write(st, w, "commits, and tells of it", on, |store, me| land(store, me, true));
            if self.scene.late && store.flying == 0 {
                self.write(st, w, "commits, and tells of it; the request is under way once more", on, |store, me| {
                    land(store, me, true);
                    store.flying |= bit(s);
                });
                self.write(st, w, "sends its commit, which is late: takes it for lost", on, |store, me| {
                    store.names[s] = me.table;
                    store.flying |= bit(s);
                    me.at = WriterAt::GiveUp;
                });
            }
            if self.may_lose(st) {
                let tells = !self.keeps(Rule::ReadBack);
                self.write(st, w, "commits; the store answers and does not keep it", on, |store, me| {
                    store.spent = true;
                    me.at = if tells { WriterAt::Done } else { WriterAt::GiveUp };
                    if tells {
                        store.names[s] = me.table;
                        store.told |= bit(s);
                    }
                });
            }
        } else if store.committed & bit(s) != 0 {
            self.write(st, w, "finds its own commit, which had arrived, and tells of it", on, |store, me| land(store, me, true));
        } else if !self.keeps(Rule::CreateOnly) {
            self.write(st, w, "commits, in the place of what lies there", on, |store, me| land(store, me, true));
        } else if !self.keeps(Rule::ReadBack) {
            self.write(st, w, "finds its commit key taken, and tells of a success", on, |store, me| {
                store.names[s] = me.table;
                store.told |= bit(s);
                me.at = WriterAt::Done;
            });
        } else {
            let (again, whole) = (me.attempt + 1 < self.scene.attempts, self.keeps(Rule::BeginAgain));
            self.write(st, w, "finds that it was fenced", on, |_, me| {
                *me = match (again, whole) {
                    (true, true) => Writer { attempt: me.attempt + 1, ..Writer::default() },
                    (true, false) => Writer { at: WriterAt::Marker, attempt: me.attempt + 1, fresh: 0, ..*me },
                    _ => Writer { at: WriterAt::Done, ..Writer::default() },
                };
            });
        }
    }
}

const _: () = assert!(WRITERS == 2, "wants are compared by pairs");
