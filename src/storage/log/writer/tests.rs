//! Tests of the writer thread: the clock, and a replica beside the disk.

use super::*;

#[test]
fn a_clock_that_is_set_forward_reaches_the_cores_with_a_checkpoint() {
    let folder = std::env::temp_dir().join(format!("ringmq-clock-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let scan = Scan::of(&folder).expect("it is empty");
    let poll = mio::Poll::new().expect("a poll");
    let waker = mio::Waker::new(poll.registry(), mio::Token(0)).expect("a waker");
    let notifiers = Arc::from([Notifier::new(crate::base::waker::Waker::Poll(waker))]);
    let (mut writer, mut clients) =
        Writer::new(&folder, &Storage::default(), &scan, notifiers, None).expect("it is new");
    writer.day = TimeOfDay::of_1970();
    writer.check_clock();
    writer.check_size();
    let state = clients[0].changed_state().expect("there is news");
    assert_eq!(state.wall_at_zero_us, writer.started_us());
    assert!(state.wall_at_zero_us > 1_700_000_000_000_000, "{}", state.wall_at_zero_us);
    assert_eq!(state.checkpoint, 1);
    std::fs::remove_dir_all(&folder).expect("it exists");
}
