//! Interest: against a plain list of announcements, on several threads, and, with `--cfg loom`, in every order that the
//! memory model allows.

#[cfg(not(loom))]
mod alone {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use proptest::prelude::*;

    use crate::arbitrary::{filter_text, topic};
    use crate::interest::{Class, EXACT_PARTS, InterestWriter, NodeMatches, Reading, interest};
    use crate::topic::TopicFilter;

    const NODES: u16 = 4;

    #[derive(Debug, Clone)]
    enum Change {
        /// A node has subscribers of this class.
        Announce(u16, String, usize),
        /// The nth announcement is withdrawn.
        Withdraw(prop::sample::Index),
        /// A node has left.
        Forget(u16),
        Publish,
    }

    fn change() -> impl Strategy<Value = Change> {
        let is_own = |text: &String| parsed(text).share_name().is_none();
        let announce = (0..NODES, filter_text().prop_filter("not shared", is_own), 0..3_usize);
        prop_oneof![
            4 => announce.prop_map(|(node, text, class)| Change::Announce(node, text, class)),
            3 => any::<prop::sample::Index>().prop_map(Change::Withdraw),
            1 => (0..NODES).prop_map(Change::Forget),
            2 => Just(Change::Publish),
        ]
    }

    fn matches(reading: &Reading<'_>, topic: &str, out: &mut NodeMatches) {
        out.clear();
        reading.exact(topic, out);
        reading.wildcards(topic, out);
    }

    fn parsed(text: &str) -> TopicFilter<'_> {
        TopicFilter::parse(text, 128).expect("well formed")
    }

    /// By filter and node: the class.
    type Model = BTreeMap<(String, u16), usize>;

    fn is_exact(text: &str) -> bool {
        !parsed(text).has_wildcard()
    }

    fn set(
        writer: &mut InterestWriter,
        text: &str,
        node: u16,
        before: Option<usize>,
        now: Option<usize>,
    ) {
        if is_exact(text) {
            let filter = writer.fingerprint(text);
            if let Some(class) = now {
                writer.announce_exact(node, filter, Class::ALL[class]);
            }
            if let Some(class) = before {
                assert!(writer.withdraw_exact(node, filter, Class::ALL[class]));
            }
        } else {
            match now {
                Some(class) => writer.announce_wildcard(node, text, Class::ALL[class]),
                None => writer.withdraw_wildcard(node, text),
            }
        }
    }

    /// Nodes by class as the plain matcher finds them; wildcards by the announcements that were shown.
    fn expected(now: &Model, shown: &Model, topic: &str) -> [u64; 3] {
        let mut nodes = [0; 3];
        let exact = now.iter().filter(|((text, _), _)| is_exact(text));
        let others = shown.iter().filter(|((text, _), _)| !is_exact(text));
        for ((_, node), &class) in
            exact.chain(others).filter(|((text, _), _)| parsed(text).matches(topic))
        {
            nodes[class] |= 1 << node;
        }
        nodes
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn interest_names_the_nodes_with_a_subscription_by_class(
            seed in any::<u64>(),
            changes in prop::collection::vec(change(), 1..80),
            topics in prop::collection::vec(topic(), 1..12),
        ) {
            let (mut writer, mut readers) = interest(seed, 2);
            let (mut now, mut shown) = (Model::new(), Model::new());
            let mut out = NodeMatches::default();
            for (n, change) in changes.into_iter().enumerate() {
                match change {
                    Change::Announce(node, text, value) => {
                        let before = now.insert((text.clone(), node), value);
                        set(&mut writer, &text, node, before, Some(value));
                    }
                    Change::Withdraw(nth) if !now.is_empty() => {
                        let (text, node) = nth.get(&now.keys().cloned().collect::<Vec<_>>()).clone();
                        let before = now.remove(&(text.clone(), node));
                        set(&mut writer, &text, node, before, None);
                    }
                    Change::Withdraw(_) => {}
                    Change::Forget(node) => {
                        let is_of = |&&(ref text, of): &&(String, u16)| of == node && is_exact(text);
                        let held = now.keys().filter(is_of).count();
                        let forgotten = (0..EXACT_PARTS).map(|part| writer.forget_exact(node, part));
                        prop_assert_eq!(forgotten.sum::<usize>(), held);
                        now.retain(|(text, of), _| *of != node || !is_exact(text));
                    }
                    Change::Publish => {
                        prop_assert!(writer.publish(), "nobody reads");
                        shown.clone_from(&now);
                    }
                }
                let topic = &topics[n % topics.len()];
                for reader in &mut readers {
                    let reading = reader.read();
                    matches(&reading, topic, &mut out);
                    prop_assert_eq!(out.nodes, expected(&now, &shown, topic));
                    drop(reading);
                    let exact = now.keys().filter(|(text, _)| is_exact(text)).count();
                    prop_assert_eq!(reader.has_no_exact(), exact == 0);
                }
            }
            prop_assert_eq!(writer.exact_len(), now.keys().filter(|(text, _)| is_exact(text)).count());
        }
    }

    #[test]
    fn a_class_includes_the_higher_ones() {
        let (mut writer, mut readers) = interest(7, 1);
        for (node, class) in Class::ALL.into_iter().enumerate() {
            writer.announce_exact(node as u16, writer.fingerprint("a"), class);
        }
        let mut out = NodeMatches::default();
        matches(&readers[0].read(), "a", &mut out);
        assert_eq!(Class::ALL.map(|lowest| out.nodes(lowest)), [0b111, 0b110, 0b100]);
    }

    #[test]
    fn changes_of_wildcards_wait_for_a_reader_and_reach_it_in_its_next_turn() {
        let (mut writer, mut readers) = interest(7, 2);
        let mut out = NodeMatches::default();
        let matches = |reading: &Reading<'_>, out: &mut NodeMatches| {
            matches(reading, "a/b", out);
            out.nodes(Class::AtMostOnce)
        };
        let [slow, quick] = &mut readers[..] else { panic!("two readers") };
        let reading = slow.read();
        writer.announce_wildcard(1, "a/+", Class::Stored);
        assert!(writer.publish(), "the first exchange waits for nobody");
        let first = matches(&reading, &mut out);
        writer.announce_wildcard(2, "a/#", Class::Stored);
        assert!(!writer.publish(), "a reader may have the other copy");
        assert_eq!(matches(&quick.read(), &mut out), 0b010);
        drop(reading);
        assert!(writer.publish());
        assert_eq!(matches(&quick.read(), &mut out), 0b110);
        assert_eq!(matches(&slow.read(), &mut out), 0b110);
        assert!([0, 0b010].contains(&first));
    }

    #[test]
    fn a_filter_without_wildcards_takes_at_most_24_bytes() {
        let (mut writer, _) = interest(7, 1);
        let mut most = 0;
        for number in 0..400_000_u32 {
            writer.announce_exact(
                5,
                writer.fingerprint(&format!("device/{number}/command")),
                Class::Stored,
            );
            if number > 100_000 && number % 997 == 0 {
                most = most.max(writer.heap_bytes() * 10 / writer.exact_len());
            }
        }
        assert!(most <= 240, "{most} tenths of a byte");
        let (all, nothing) = (writer.heap_bytes(), interest(7, 1).0.heap_bytes());
        for number in 0..400_000_u32 {
            let filter = writer.fingerprint(&format!("device/{number}/command"));
            assert!(writer.withdraw_exact(5, filter, Class::Stored));
        }
        assert!(writer.heap_bytes() < nothing + all / 8, "{} of {all}", writer.heap_bytes());
    }

    #[test]
    fn readers_on_other_threads_always_find_what_stays() {
        let (rounds, others) = if cfg!(miri) { (3, 40) } else { (300, 2_000) };
        let (mut writer, readers) = interest(7, 3);
        let is_over = Arc::new(AtomicBool::new(false));
        let stays: Vec<String> = (0..20).map(|number| format!("stays/{number}")).collect();
        for topic in &stays {
            writer.announce_exact(3, writer.fingerprint(topic), Class::Stored);
        }
        writer.announce_wildcard(4, "stays/#", Class::Acknowledged);
        assert!(writer.publish());
        let threads: Vec<_> = readers
            .into_iter()
            .map(|mut reader| {
                let (is_over, stays) = (Arc::clone(&is_over), stays.clone());
                std::thread::spawn(move || {
                    let (mut out, mut seen) = (NodeMatches::default(), BTreeSet::new());
                    while !is_over.load(Relaxed) {
                        let reading = reader.read();
                        for topic in &stays {
                            matches(&reading, topic, &mut out);
                            assert_eq!(out.nodes(Class::Stored) & 0b1000, 0b1000, "{topic}");
                            assert_eq!(out.nodes(Class::Acknowledged) & 0b11000, 0b11000);
                            seen.insert(out.nodes(Class::AtMostOnce));
                        }
                    }
                    seen
                })
            })
            .collect();
        for round in 0..rounds {
            for number in 0..others {
                let filter = writer.fingerprint(&format!("goes/{number}"));
                match round % 2 {
                    0 => writer.announce_exact(1, filter, Class::AtMostOnce),
                    _ => assert!(writer.withdraw_exact(1, filter, Class::AtMostOnce)),
                }
            }
            match round % 2 {
                0 => writer.announce_wildcard(2, "stays/+", Class::AtMostOnce),
                _ => writer.withdraw_wildcard(2, "stays/+"),
            }
            writer.publish();
        }
        is_over.store(true, Relaxed);
        for thread in threads {
            let seen = thread.join().expect("it finds what stays");
            assert!(seen.iter().all(|nodes| [0b11000, 0b11100].contains(nodes)), "{seen:?}");
        }
    }
}

#[cfg(loom)]
mod every_order {
    use crate::interest::{Class, NodeMatches, interest};

    #[test]
    fn a_word_is_found_while_its_table_is_replaced_and_the_old_one_is_freed() {
        loom::model(|| {
            let (mut writer, mut readers) = interest(7, 1);
            let names = ["a", "b", "c", "d"].map(|name| writer.fingerprint(name));
            for name in &names[..3] {
                writer.announce_exact(1, *name, Class::Stored);
            }
            let mut reader = readers.pop().expect("one");
            let reading = loom::thread::spawn(move || {
                let mut out = NodeMatches::default();
                reader.read().exact("a", &mut out);
                assert_eq!(out.nodes(Class::Stored), 0b10);
            });
            writer.announce_exact(2, names[3], Class::Stored);
            writer.publish();
            reading.join().expect("found");
            assert!(writer.publish());
        });
    }

    #[test]
    fn a_reader_sees_either_copy_whole() {
        loom::model(|| {
            let (mut writer, mut readers) = interest(7, 1);
            writer.announce_wildcard(1, "a/+", Class::Stored);
            writer.publish();
            let mut reader = readers.pop().expect("one");
            let reading = loom::thread::spawn(move || {
                let mut out = NodeMatches::default();
                reader.read().wildcards("a/b", &mut out);
                let nodes = out.nodes(Class::Stored);
                assert!([0b10, 0b100, 0b110].contains(&nodes) && nodes & 0b10 > 0, "{nodes:b}");
            });
            writer.announce_wildcard(2, "a/#", Class::Stored);
            writer.publish();
            reading.join().expect("found");
            assert!(writer.publish());
        });
    }
}
