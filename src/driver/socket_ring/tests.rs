//! The ring over socket pairs and loopback: what it promises to its two users.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::*;

const GROUP: u16 = 7;

fn ring() -> SocketRing {
    SocketRing::new(Options { entries: 8, cq_entries: 64 }).unwrap()
}

fn ring_with(count: u16, bytes: u32) -> SocketRing {
    let mut ring = ring();
    ring.add_buffers(GROUP, count, bytes).unwrap();
    ring
}

/// Enters until a completion is there.
fn next(ring: &mut SocketRing) -> Completion {
    for _ in 0..100 {
        if let Some(completion) = ring.next_completion() {
            return completion;
        }
        let timeout = Some(Duration::from_millis(100));
        ring.enter(Wait::For { count: 1, timeout }).unwrap();
    }
    panic!("no completion within 10 s");
}

fn no_completion(ring: &mut SocketRing) {
    let timeout = Some(Duration::from_millis(20));
    ring.enter(Wait::For { count: 1, timeout }).unwrap();
    assert_eq!(ring.next_completion(), None);
}

/// Takes the received bytes and gives the buffer back.
fn take(ring: &mut SocketRing, completion: Completion) -> Vec<u8> {
    let id = completion.buffer.unwrap();
    let bytes = ring.buffer(id, completion.result.unwrap()).to_vec();
    ring.recycle(id);
    bytes
}

#[test]
fn accepts_until_cancelled() {
    let mut ring = ring();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    ring.accept_multishot(listener.as_raw_fd(), 1);
    for round in 0..3 {
        let mut client = TcpStream::connect(address).unwrap();
        let accepted = next(&mut ring);
        assert_eq!((accepted.user_data, accepted.more), (1, true), "round {round}");
        let fd = RawFd::try_from(accepted.result.unwrap()).unwrap();
        // SAFETY: the completion gave us the descriptor.
        let mut server = unsafe { TcpStream::from_raw_fd(fd) };
        client.write_all(b"x").unwrap();
        let mut byte = [0];
        server.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"x");
    }
    ring.cancel(1, 2);
    let ends: BTreeSet<_> = [next(&mut ring), next(&mut ring)]
        .map(|c| (c.user_data, c.result, c.more))
        .into_iter()
        .collect();
    assert_eq!(ends, BTreeSet::from([(1, Err(libc::ECANCELED), false), (2, Ok(1), false)]));
}

#[test]
fn receives_across_many_buffers_in_order() {
    let mut ring = ring_with(4, 16);
    let (mut near, far) = UnixStream::pair().unwrap();
    ring.recv_multishot(far.as_raw_fd(), GROUP, 5);
    let sent: Vec<u8> = (0..1000u32).map(|n| n as u8).collect();
    near.write_all(&sent).unwrap();
    let mut got = Vec::new();
    while got.len() < sent.len() {
        let completion = next(&mut ring);
        assert_eq!(completion.user_data, 5);
        if completion.result == Err(libc::ENOBUFS) {
            assert!(!completion.more, "ENOBUFS ends a multishot");
            ring.recv_multishot(far.as_raw_fd(), GROUP, 5);
            continue;
        }
        let bytes = take(&mut ring, completion);
        assert!(bytes.len() <= 16);
        got.extend(bytes);
    }
    assert_eq!(got, sent);
    drop(near);
    let mut end = next(&mut ring);
    while end.result == Err(libc::ENOBUFS) {
        ring.recv_multishot(far.as_raw_fd(), GROUP, 5);
        end = next(&mut ring);
    }
    assert_eq!((end.result, end.more), (Ok(0), false));
}

#[test]
fn used_up_buffers_end_the_receive_and_it_goes_on_when_armed_again() {
    let mut ring = ring_with(2, 4);
    let (mut near, far) = UnixStream::pair().unwrap();
    ring.recv_multishot(far.as_raw_fd(), GROUP, 1);
    near.write_all(b"aaaabbbbcccc").unwrap();
    let (first, second, third) = (next(&mut ring), next(&mut ring), next(&mut ring));
    assert_eq!((third.result, third.more, third.buffer), (Err(libc::ENOBUFS), false, None));
    ring.recv_multishot(far.as_raw_fd(), GROUP, 2);
    let refused = next(&mut ring);
    assert_eq!((refused.user_data, refused.result), (2, Err(libc::ENOBUFS)));
    assert_eq!(take(&mut ring, second), b"bbbb");
    assert_eq!(take(&mut ring, first), b"aaaa");
    ring.recv_multishot(far.as_raw_fd(), GROUP, 3);
    let rest = next(&mut ring);
    assert_eq!((rest.user_data, rest.more), (3, true));
    assert_eq!(take(&mut ring, rest), b"cccc");
}

#[test]
fn groups_do_not_share_buffers() {
    let mut ring = ring_with(2, 4);
    ring.add_buffers(8, 2, 32).unwrap();
    let (mut near, far) = UnixStream::pair().unwrap();
    let (mut near_other, far_other) = UnixStream::pair().unwrap();
    near.write_all(b"abc").unwrap();
    near_other.write_all(b"a longer message").unwrap();
    ring.recv_once(far.as_raw_fd(), GROUP, 1);
    ring.recv_once(far_other.as_raw_fd(), 8, 2);
    let mut all = [next(&mut ring), next(&mut ring)];
    all.sort_by_key(|c| c.user_data);
    assert!(all.iter().all(|c| !c.more));
    assert_eq!(all.map(|c| c.buffer.unwrap().index() / 2), [0, 1]);
    assert_eq!(take(&mut ring, all[0]), b"abc");
    assert_eq!(take(&mut ring, all[1]), b"a longer message");
    assert!(ring.add_buffers(8, 2, 32).is_err(), "the id is taken");
    assert!(ring.add_buffers(9, 3, 32).is_err(), "not a power of two");
}

#[test]
#[should_panic(expected = "recycled twice")]
fn a_buffer_goes_back_once() {
    let mut ring = ring_with(2, 4);
    ring.recycle(BufferId(1));
}

#[test]
#[should_panic(expected = "with the kernel")]
fn only_held_buffers_can_be_read() {
    ring_with(2, 4).buffer(BufferId(0), 1);
}

#[test]
fn cancel_collects_everything_on_a_descriptor() {
    let mut ring = ring_with(2, 4);
    let (near, far) = UnixStream::pair().unwrap();
    ring.recv_multishot(far.as_raw_fd(), GROUP, 1);
    ring.recv_once(far.as_raw_fd(), GROUP, 2);
    no_completion(&mut ring);
    ring.cancel_fd(far.as_raw_fd(), 3);
    let mut all = [next(&mut ring), next(&mut ring), next(&mut ring)];
    all.sort_by_key(|c| c.user_data);
    let expected = [Err(libc::ECANCELED), Err(libc::ECANCELED), Ok(2)];
    assert_eq!(all.map(|c| c.result), expected);
    assert!(all.iter().all(|c| !c.more));
    ring.cancel_fd(near.as_raw_fd(), 4);
    assert_eq!(next(&mut ring).result, Ok(0), "nothing was there");
}

#[test]
fn sends_everything_also_when_the_peer_reads_late() {
    let mut ring = ring();
    let (near, mut far) = UnixStream::pair().unwrap();
    let bytes: Vec<u8> = (0..4_000_000u32).map(|n| (n % 251) as u8).collect();
    // SAFETY: `bytes` lives to the end of the test, the completion is awaited.
    unsafe { ring.send(near.as_raw_fd(), bytes.as_ptr(), 4_000_000, 9) };
    no_completion(&mut ring);
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; 4_000_000];
        far.read_exact(&mut got).unwrap();
        (got, far)
    });
    let sent = next(&mut ring);
    assert_eq!((sent.user_data, sent.result), (9, Ok(4_000_000)));
    let (got, far) = reader.join().unwrap();
    assert_eq!(got, bytes);
    drop(far);
    // SAFETY: as above.
    unsafe { ring.send(near.as_raw_fd(), bytes.as_ptr(), 1, 10) };
    assert_eq!(next(&mut ring).result, Err(libc::EPIPE), "and no SIGPIPE");
}

#[test]
fn a_slot_is_out_of_reach_while_it_is_sent() {
    let mut ring = ring();
    let (near, mut far) = UnixStream::pair().unwrap();
    let slot = ring.add_send_slot(16);
    let other = ring.add_send_slot(16);
    for round in 0..3u8 {
        ring.slot_mut(slot).unwrap().clear();
        ring.slot_mut(slot).unwrap().extend_from_slice(&[round; 3]);
        ring.send_slot(near.as_raw_fd(), slot, 40);
        assert!(ring.slot_mut(slot).is_none());
        assert!(ring.slot_mut(other).is_some());
        let sent = next(&mut ring);
        assert_eq!((sent.user_data, sent.result), (40, Ok(3)));
        let mut got = [9; 3];
        far.read_exact(&mut got).unwrap();
        assert_eq!(got, [round; 3]);
    }
}

#[test]
fn sends_gathered_bytes() {
    let mut ring = ring();
    let (near, mut far) = UnixStream::pair().unwrap();
    let parts = [b"head".as_slice(), b"".as_slice(), b" and body".as_slice()];
    let mut vector =
        parts.map(|p| libc::iovec { iov_base: p.as_ptr() as *mut _, iov_len: p.len() });
    // SAFETY: all zeros is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = vector.as_mut_ptr();
    message.msg_iovlen = 3;
    // SAFETY: all of it lives to the end of the test.
    unsafe { ring.send_vectored(near.as_raw_fd(), &message, 1) };
    assert_eq!(next(&mut ring).result, Ok(13));
    let mut got = [0; 13];
    far.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"head and body");
}

#[test]
fn connects_shuts_down_and_closes() {
    let mut ring = ring_with(2, 64);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // SAFETY: plain socket(2); the result is checked.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0);
    // SAFETY: new and ours.
    let client = unsafe { OwnedFd::from_raw_fd(fd) };
    ring.connect(client.as_raw_fd(), listener.local_addr().unwrap(), 1);
    assert_eq!(next(&mut ring).result, Ok(0));
    let (mut server, _) = listener.accept().unwrap();
    server.write_all(b"hello").unwrap();
    ring.recv_multishot(client.as_raw_fd(), GROUP, 2);
    let hello = next(&mut ring);
    assert_eq!(take(&mut ring, hello), b"hello");
    ring.shutdown(client.as_raw_fd(), libc::SHUT_RDWR, 3);
    let mut ends = [next(&mut ring), next(&mut ring)];
    ends.sort_by_key(|c| c.user_data);
    assert_eq!(
        ends.map(|c| (c.user_data, c.result, c.more)),
        [(2, Ok(0), false), (3, Ok(0), false)]
    );
    ring.close(client.into_raw_fd(), 4);
    assert_eq!(next(&mut ring).result, Ok(0));
    assert_eq!(server.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn more_requests_than_the_submission_queue_and_completions_than_the_ring_hold() {
    let mut ring = ring();
    let pairs: Vec<_> = (0..200).map(|_| UnixStream::pair().unwrap()).collect();
    let bytes = *b"ping";
    for (index, (near, _)) in pairs.iter().enumerate() {
        // SAFETY: `bytes` lives to the end of the test, the completions are awaited.
        unsafe { ring.send(near.as_raw_fd(), bytes.as_ptr(), 4, index as u64) };
    }
    ring.enter(Wait::No).unwrap();
    assert!(!ring.has_unsubmitted());
    let seen: BTreeSet<_> = (0..200).map(|_| next(&mut ring).user_data).collect();
    assert_eq!(seen, (0..200).collect());
}

#[test]
fn the_eventfd_says_when_to_enter() {
    let mut ring = ring_with(2, 4);
    // SAFETY: eventfd(2) takes no memory; the result is checked.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    assert!(fd >= 0);
    // SAFETY: new and ours.
    let mut eventfd = unsafe { std::fs::File::from_raw_fd(fd) };
    ring.register_eventfd(eventfd.as_raw_fd()).unwrap();
    let (mut near, far) = UnixStream::pair().unwrap();
    ring.recv_multishot(far.as_raw_fd(), GROUP, 1);
    ring.enter(Wait::No).unwrap();
    assert!(!ring.has_deferred_work());
    assert!(eventfd.read(&mut [0; 8]).is_err(), "nothing has happened");
    near.write_all(b"a").unwrap();
    assert!(ring.has_deferred_work(), "the kernel waits for an enter");
    assert_eq!(eventfd.read(&mut [0; 8]).unwrap(), 8);
    let completion = next(&mut ring);
    assert_eq!(take(&mut ring, completion), b"a");
    ring.disable_eventfd();
    // What completed inside the enter has raised a signal too.
    let _ = eventfd.read(&mut [0; 8]);
    near.write_all(b"b").unwrap();
    assert!(ring.has_deferred_work());
    assert!(eventfd.read(&mut [0; 8]).is_err(), "disabled");
    ring.enable_eventfd();
    let completion = next(&mut ring);
    assert_eq!(take(&mut ring, completion), b"b");
}

#[test]
fn errors_say_what_to_do() {
    fn check(errno: i32, kind: io::ErrorKind, part: &str) {
        let error = unavailable::explain(io::Error::from_raw_os_error(errno));
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(part), "{error}");
    }
    check(libc::EINVAL, io::ErrorKind::Unsupported, "Linux 6.1 or newer");
    check(libc::ENOSYS, io::ErrorKind::Unsupported, "no io_uring");
    check(libc::EPERM, io::ErrorKind::PermissionDenied, "kernel.io_uring_disabled=0");
    check(libc::ENOMEM, io::ErrorKind::OutOfMemory, "ulimit -l");
}
