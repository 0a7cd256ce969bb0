//! Tests of lanes and sleep flags: alone, against a model, on two threads, and, with `--cfg loom`, in
//! every order that the memory model allows.

#[cfg(not(loom))]
mod alone {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use proptest::prelude::*;

    use crate::mesh::{mesh, ring};

    #[test]
    fn a_full_ring_returns_the_item_and_accepts_it_when_there_is_room() {
        let (mut sender, mut receiver) = ring(2);
        assert_eq!((sender.push(1), sender.push(2), sender.push(3)), (Ok(()), Ok(()), Err(3)));
        assert!(sender.is_full() && receiver.is_full());
        assert_eq!(receiver.pop(), Some(1));
        assert_eq!(sender.push(3), Ok(()));
        assert_eq!((receiver.pop(), receiver.pop(), receiver.pop()), (Some(2), Some(3), None));
    }

    #[test]
    fn items_left_in_a_ring_are_dropped_with_it() {
        let item = Arc::new(());
        let (mut sender, mut receiver) = ring(4);
        for _ in 0..4 {
            sender.push(Arc::clone(&item)).expect("room");
        }
        drop(receiver.pop());
        drop((sender, receiver));
        assert_eq!(Arc::strong_count(&item), 1);
    }

    proptest! {
        #[test]
        fn a_ring_is_a_bounded_queue(
            capacity in 1usize..9,
            pushes in proptest::collection::vec(any::<bool>(), 0..200),
        ) {
            let (mut sender, mut receiver) = ring(capacity);
            let (mut model, capacity) = (VecDeque::new(), capacity.next_power_of_two());
            for (number, is_push) in pushes.into_iter().enumerate() {
                if is_push {
                    let fits = model.len() < capacity;
                    prop_assert_eq!(sender.push(number).is_ok(), fits);
                    if fits {
                        model.push_back(number);
                    }
                } else {
                    prop_assert_eq!(receiver.pop(), model.pop_front());
                }
                prop_assert_eq!((sender.len(), receiver.len()), (model.len(), model.len()));
                prop_assert_eq!(receiver.has_item(), !model.is_empty());
                prop_assert_eq!(sender.is_full(), model.len() == capacity);
            }
        }
    }

    #[test]
    fn two_threads_keep_the_order_and_lose_no_item() {
        let count = if cfg!(miri) { 200 } else { 200_000 };
        let (mut sender, mut receiver) = ring(8);
        let sending = std::thread::spawn(move || {
            for number in 0..count {
                let mut item = Box::new(number);
                while let Err(back) = sender.push(item) {
                    item = back;
                    std::thread::yield_now();
                }
            }
        });
        for number in 0..count {
            let item = loop {
                match receiver.pop() {
                    Some(item) => break item,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(*item, number);
        }
        assert_eq!(receiver.pop(), None);
        sending.join().expect("the thread ends");
    }

    #[test]
    fn only_a_sleeping_core_is_woken_and_only_once() {
        let mut ports = mesh(3, 2);
        assert_eq!(ports[0].send(1, "awake"), Ok(false));
        assert_eq!(ports[1].receive(0).expect("sent").item, "awake");
        assert!(ports[1].prepare_to_sleep([].into_iter()));
        assert_eq!(ports[0].send(1, "wakes it"), Ok(true));
        assert_eq!(ports[2].send(1, "was woken by another"), Ok(false));
        ports[1].wake_up();
        assert!(!ports[1].prepare_to_sleep([].into_iter()), "there is something to receive");
        assert_eq!(ports[2].send(1, "awake again"), Ok(false));
    }

    #[test]
    fn a_core_that_waits_for_room_is_woken_when_there_is_room() {
        let mut ports = mesh(2, 1);
        assert_eq!(ports[0].send(1, 1), Ok(false));
        assert_eq!(ports[0].send(1, 2), Err(2));
        assert!(ports[0].prepare_to_sleep([1].into_iter()));
        assert!(ports[1].receive(0).expect("sent").must_wake);
        ports[0].wake_up();
        assert!(!ports[0].prepare_to_sleep([1].into_iter()), "there is room");
        assert!(ports[0].prepare_to_sleep([].into_iter()), "no lane to wait for");
        assert!(ports[1].receive(0).is_none());
    }

    #[test]
    fn a_single_core_has_no_lane() {
        let mut port = mesh::<u8>(1, 8).remove(0);
        assert_eq!((port.core(), port.cores(), port.depth(0)), (0, 1, 0));
        assert!(port.prepare_to_sleep([].into_iter()));
    }
}

#[cfg(loom)]
mod explored {
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    use crate::mesh::{mesh, ring};

    fn explore(model: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(model);
    }

    #[test]
    fn items_arrive_in_order_whole_and_once() {
        for capacity in [1, 2] {
            explore(move || {
                let (mut sender, mut receiver) = ring(capacity);
                let sending = thread::spawn(move || {
                    let mut sent = Vec::new();
                    for number in 0..3 {
                        if sender.push(Box::new(number)).is_ok() {
                            sent.push(number);
                        }
                        thread::yield_now();
                    }
                    sent
                });
                let mut came = Vec::new();
                for _ in 0..2 {
                    came.extend(receiver.pop().map(|item| *item));
                    thread::yield_now();
                }
                let sent = sending.join().expect("the thread ends");
                came.extend(std::iter::from_fn(|| receiver.pop()).map(|item| *item));
                assert_eq!(came, sent);
            });
        }
    }

    #[test]
    fn remaining_items_are_dropped() {
        explore(|| {
            let (mut sender, mut receiver) = ring(2);
            let receiving = thread::spawn(move || drop(receiver.pop()));
            let item = Arc::new(());
            let _ = sender.push(Arc::clone(&item));
            let _ = sender.push(Arc::clone(&item));
            drop(sender);
            receiving.join().expect("the thread ends");
            assert_eq!(Arc::strong_count(&item), 1);
        });
    }

    /// Models how the executor sleeps and is woken up.
    #[derive(Default)]
    struct Waker(Mutex<bool>, Condvar);

    impl Waker {
        fn wake(&self) {
            *self.0.lock().expect("no panic") = true;
            self.1.notify_one();
        }

        fn sleep(&self) {
            let mut woken = self.0.lock().expect("no panic");
            while !*woken {
                woken = self.1.wait(woken).expect("no panic");
            }
            *woken = false;
        }
    }

    /// A lost wake-up is a deadlock, which loom reports.
    #[test]
    fn an_item_always_wakes_a_sleeping_core() {
        explore(|| {
            let mut ports = mesh(2, 1);
            let (mut receiving, mut sending) = (ports.remove(0), ports.remove(0));
            let waker = Arc::new(Waker::default());
            let wakes = Arc::clone(&waker);
            let sender = thread::spawn(move || {
                if sending.send(0, 7).expect("there is room") {
                    wakes.wake();
                }
            });
            let item = loop {
                if let Some(received) = receiving.receive(1) {
                    break received.item;
                }
                if receiving.prepare_to_sleep([].into_iter()) {
                    waker.sleep();
                    receiving.wake_up();
                }
            };
            assert_eq!(item, 7);
            sender.join().expect("the thread ends");
        });
    }

    #[test]
    fn room_always_wakes_a_core_that_waits_for_it() {
        explore(|| {
            let mut ports = mesh(2, 1);
            let (mut receiving, mut sending) = (ports.remove(0), ports.remove(0));
            let waker = Arc::new(Waker::default());
            let wakes = Arc::clone(&waker);
            sending.send(0, 1).expect("there is room");
            let receiver = thread::spawn(move || {
                let received = receiving.receive(1).expect("sent before");
                if received.must_wake {
                    wakes.wake();
                }
                receiving
            });
            let mut item = Some(2);
            while let Some(it) = item.take() {
                if sending.send(0, it).is_ok() {
                    break;
                }
                item = Some(it);
                if sending.prepare_to_sleep([0].into_iter()) {
                    waker.sleep();
                    sending.wake_up();
                }
            }
            let mut receiving = receiver.join().expect("the thread ends");
            assert_eq!(receiving.receive(1).expect("sent").item, 2);
        });
    }
}
