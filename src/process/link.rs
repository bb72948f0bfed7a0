//! Links: two-way ties, at most one between two processes. And the ends of both kinds of tie, as a process dies.

use std::{
    mem,
    sync::{Arc, Weak},
};

use smallvec::SmallVec;

use super::{Exit, GenServer, NoProc, Peer, Process, Reason, Signal, monitor::Watcher, turn};

/// Whom the life of a process concerns.
pub(super) enum Bonds {
    Alive {
        /// A watched process nearly always has one watcher.
        watchers: SmallVec<[Watcher; 1]>,
        /// Boxed: few processes have any.
        #[allow(clippy::box_collection)]
        links: Option<Box<Vec<Weak<dyn Peer>>>>,
    },
    /// Nobody any more: whoever asks now is told at once.
    Dead(Exit),
}

impl Default for Bonds {
    fn default() -> Self {
        Self::Alive { watchers: SmallVec::new(), links: None }
    }
}

impl Bonds {
    /// Takes the link to `peer` away; whether there was one.
    fn unlink(&mut self, peer: &Weak<dyn Peer>) -> bool {
        let Self::Alive { links: Some(links), .. } = self else { return false };
        let index = links.iter().position(|link| Weak::ptr_eq(link, peer));
        index.map(|index| links.swap_remove(index)).is_some()
    }
}

impl<S: GenServer> Process<S> {
    /// Ties this process and `other` together: where one ends with any reason but [`Reason::Normal`], so does the other,
    /// unless it traps exits. Linking twice is linking once. Where `other` is dead, this process gets its exit signal, with
    /// [`Reason::NoProc`].
    ///
    /// # Errors
    /// [`NoProc`] where this process itself is dead.
    pub fn link<T: GenServer>(&self, other: &Process<T>) -> Result<(), NoProc> {
        if self.pid() == other.pid() {
            return Ok(());
        }
        let (me, peer) = (self.peer(), other.peer());
        let absent = {
            let (mut mine, mut others);
            if self.pid() < other.pid() {
                mine = me.bonds().lock();
                others = peer.bonds().lock();
            } else {
                others = peer.bonds().lock();
                mine = me.bonds().lock();
            }
            match (&mut *mine, &mut *others) {
                (Bonds::Dead(_), _) => return Err(NoProc),
                (_, Bonds::Dead(_)) => true,
                (Bonds::Alive { links, .. }, Bonds::Alive { links: others, .. }) => {
                    let link = Arc::downgrade(&peer);
                    let links = links.get_or_insert_default();
                    if !links.iter().any(|known| Weak::ptr_eq(known, &link)) {
                        links.push(link);
                        others.get_or_insert_default().push(Arc::downgrade(&me));
                    }
                    false
                }
            }
        };
        if absent {
            me.signal(other.link_exit(Reason::NoProc.into()));
            turn::wake(me);
        }
        Ok(())
    }

    /// Takes the link with `other` away, if there is one: from now on the end of one has no effect on the other, also where
    /// its exit signal was on the way. (Erlang lets a signal that has arrived be handled; here it is taken back.)
    pub fn unlink<T: GenServer>(&self, other: &Process<T>) {
        let (me, peer) = (self.peer(), other.peer());
        me.bonds().lock().unlink(&Arc::downgrade(&peer));
        peer.bonds().lock().unlink(&Arc::downgrade(&me));
        me.flush(&|signal| matches!(signal, Signal::LinkExit { from, .. } if *from == peer.pid()));
    }

    /// How many links it has, at this moment; none where it is dead.
    #[must_use]
    pub fn link_count(&self) -> usize {
        match &*self.0.bonds.lock() {
            Bonds::Alive { links: Some(links), .. } => links.len(),
            Bonds::Alive { links: None, .. } | Bonds::Dead(_) => 0,
        }
    }

    fn link_exit(&self, exit: Exit) -> Signal {
        Signal::LinkExit { from: self.pid(), name: self.identity().to_string().into(), exit }
    }

    /// Ends all ties of a process that dies, and returns those who may have a signal in the mailbox now.
    ///
    /// The DOWNs are left while the bonds are locked, so that who demonitors either takes the monitor away or finds the DOWN
    /// in its mailbox, and never neither. The links come after that, since two processes' bonds have no order between them
    /// here; a link that was taken away meanwhile has no effect.
    pub(super) fn sever(&self, exit: &Exit) -> SmallVec<[Arc<dyn Peer>; 2]> {
        let mut concerned = SmallVec::new();
        let links = {
            let mut bonds = self.0.bonds.lock();
            let Bonds::Alive { watchers, links } = mem::replace(&mut *bonds, Bonds::Dead(exit.clone())) else {
                return concerned;
            };
            for Watcher { monitor, process } in watchers {
                let Some(watcher) = process.upgrade() else { continue };
                // Also one that is dead: this may be its last handle, which must not go under the lock.
                watcher.signal(self.down(monitor, exit.clone()));
                concerned.push(watcher);
            }
            links
        };
        let Some(links) = links else { return concerned };
        let me = Arc::downgrade(&self.peer());
        for peer in links.iter().filter_map(Weak::upgrade) {
            let mut bonds = peer.bonds().lock();
            if bonds.unlink(&me) && peer.signal(self.link_exit(exit.clone())) {
                drop(bonds);
                concerned.push(peer);
            }
        }
        concerned
    }
}
