//! Nodes that are gone for good: their numbers can be given to others.

use super::Membership;
use crate::base::clock::Now;
use crate::cluster::view::View;

impl Membership {
    /// Takes a node that is no member any more out of the numbers that were used.
    ///
    /// # Errors
    ///
    /// No node had the name, or it is a member, or was one moments ago, or the list of members is not known; the text
    /// says what to do.
    pub fn forget(&mut self, name: &str, now: Now) -> Result<(), String> {
        let view = self.view.as_ref().filter(|_| self.own().is_some() && !self.is_isolated);
        let Some((_, view)) = view else {
            return Err("this node is no member, or the engine has no quorum; try again once \
                        `broker cluster status` says that it is ready"
                .to_owned());
        };
        if view.members.iter().any(|member| member.name == name) {
            return Err(format!(
                "{name} is a member: stop it first; one that is dead is taken out within 20 seconds"
            ));
        }
        let Some(past) = view.past.iter().find(|past| past.name == name) else {
            return Err(format!("no node of this cluster has had the name {name:?}"));
        };
        if !self.peers.has_lapsed(past.node, now) {
            return Err(format!("{name} was a member moments ago: wait ten seconds"));
        }
        self.forgotten.push(name.to_owned());
        Ok(())
    }

    /// Takes out what is to be forgotten, unless it is a member again; whether that changes anything.
    pub(super) fn remove_forgotten(&mut self, view: &mut View) -> bool {
        let had = view.past.len();
        for name in &self.forgotten {
            if view.members.iter().all(|member| member.name != *name) {
                view.past.retain(|past| past.name != *name);
            }
        }
        // Once the view that has been written comes back, nothing of them is left to take out.
        let is_changed = view.past.len() < had;
        if !is_changed {
            self.forgotten.clear();
        }
        is_changed
    }
}
